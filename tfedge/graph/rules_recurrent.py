"""Rules of recurrent layers and of wrappers over time steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.graph.activation import kind_of
from tfedge.graph.labels import Marks, along, unlabelled
from tfedge.graph.rules_shape import insert_axis
from tfedge.graph.site import Site, channel_axis
from tfedge.graph.trace import is_nested

_STEPS = "walks along the axis that is pruned"
_GATED = {"LSTMCell": 4, "GRUCell": 3, "SimpleRNNCell": 1}


def recurrent(site: Site) -> list[Marks]:
    """LSTM, GRU, SimpleRNN: kernel [in, gates * units], recurrent [units, gates * units].

    The gates stand side by side, so unit u owns position g * units + u of every gate g.
    """
    into = site.only(-1, _STEPS)
    units = _cell(site, site.layer.cell, "cell", into, "")
    site.size("units", units)
    return _recurrent_outputs(site, units, [units] * len(_states(site)), -1)


def _cell(site: Site, cell: Any, path: str, into: np.ndarray, part: str) -> np.ndarray:
    """Binds the weights of one cell; returns the labels of its units."""
    units = site.new(cell.units, part)
    every = np.tile(units, cell.kernel.shape[1] // cell.units)
    site.bind(f"{path}.kernel", 0, into)
    site.bind(f"{path}.kernel", 1, every, "out")
    site.bind(f"{path}.recurrent_kernel", 0, units)
    site.bind(f"{path}.recurrent_kernel", 1, every, "out")
    site.bind(f"{path}.bias", -1, every, "out")
    _elementwise_gates(site, cell, units)
    return units


def _elementwise_gates(site: Site, cell: Any, units: np.ndarray) -> None:
    for name in ("activation", "recurrent_activation"):
        if kind_of(getattr(cell, name, None)) != "elementwise":
            site.block(units, f"has a {name} that does not act element by element")


def _states(site: Site) -> list[int]:
    """Which inputs are initial states: what follows the sequence, masks left out."""
    mask = site.number(site.argument("mask").value)
    return [i for i in range(1, len(site.inputs)) if i != mask]


def _recurrent_outputs(
    site: Site, units: np.ndarray, states: list[np.ndarray], axis: int
) -> list[Marks]:
    """Ties initial states to the units that they start; marks of the outputs.

    Args:
        site: The call.
        units: Labels of the units in the first output.
        states: Labels of each initial state, in order of `_states`.
        axis: Channel axis of states and outputs (of the states without the step axis).
    """
    for i, labels in zip(_states(site), states, strict=True):
        at = axis % site.inputs[i].rank if axis < 0 else axis
        vector, rest = site.project(site.inputs[i], at, site.in_shapes[i][at])
        site.tie(vector, labels)
        site.block(rest, "starts from a state that is pruned along another axis")
    out = []
    for number, shape in enumerate(site.out_shapes):
        rank = len(shape)
        sequence = number == 0 and bool(getattr(site.layer, "return_sequences", False))
        at = rank - 1 if axis < 0 else axis + sequence
        out.append(along(units, at, rank))
    return out


def conv_lstm(site: Site) -> list[Marks]:
    """ConvLSTM1D/2D/3D: kernels [..., in, 4 * filters] and [..., filters, 4 * filters]."""
    rank = len(site.in_shapes[0])
    first = channel_axis(site.layer, rank) == 1  # data_format does not count the step axis
    cell = site.layer.cell
    into = site.only(2 if first else rank - 1, _STEPS)
    filters = site.new(site.layer.filters)
    every = np.tile(filters, 4)
    site.bind("cell.kernel", -2, into)
    site.bind("cell.kernel", -1, every, "out")
    site.bind("cell.recurrent_kernel", -2, filters)
    site.bind("cell.recurrent_kernel", -1, every, "out")
    site.bind("cell.bias", 0, every, "out")
    _elementwise_gates(site, cell, filters)
    site.size("filters", filters)
    return _recurrent_outputs(site, filters, [filters] * len(_states(site)), 1 if first else -1)


def rnn(site: Site) -> list[Marks]:
    """RNN over Keras' own cells, also stacked ones."""
    cells, paths = _cells(site.layer.cell)
    kinds = [type(c).__name__ for c in cells]
    foreign = [c for c, k in zip(cells, kinds, strict=True) if k not in _GATED or not _own(c)]
    if foreign:
        return site.block_inputs(
            f"runs a {type(foreign[0]).__name__}, a cell that has no rule; add a rule for the "
            "layer with tfedge.graph.RULES[...] = rule"
        )
    into = site.only(-1, _STEPS)
    all_units = []
    for i, (cell, path) in enumerate(zip(cells, paths, strict=True)):
        into = _cell(site, cell, path, into, f"cell{i}" if len(cells) > 1 else "")
        site.size(_config_path(path), into)
        all_units.append(into)
    per_state = [u for c, u in zip(cells, all_units, strict=True) for _ in range(_state_count(c))]
    given = _states(site)
    if given and len(given) != len(per_state):
        return site.block_inputs("starts from states in an order that is not known")
    out = _recurrent_outputs(site, into, per_state if given else [], -1)
    states = zip(per_state, site.out_shapes[1:], strict=False)
    return [out[0], *(along(u, len(s) - 1, len(s)) for u, s in states)]


def _cells(cell: Any) -> tuple[list[Any], list[str]]:
    if type(cell).__name__ == "StackedRNNCells" and _own(cell):
        return list(cell.cells), [f"cell.cells.{i}" for i in range(len(cell.cells))]
    return [cell], ["cell"]


def _config_path(path: str) -> str:
    if path == "cell":
        return "cell.config.units"
    return f"cell.config.cells.{path.rsplit('.', 1)[1]}.config.units"


def _own(cell: Any) -> bool:
    return type(cell).__module__.split(".")[0] in ("keras", "tf_keras")


def _state_count(cell: Any) -> int:
    size = cell.state_size
    return len(size) if isinstance(size, (list, tuple)) or hasattr(size, "__iter__") else 1


def bidirectional(site: Site) -> list[Marks]:
    """Bidirectional: both directions keep the same units where they have equally many."""
    forward, backward = site.layer.forward_layer, site.layer.backward_layer
    rule = _inner_rule(forward)
    if rule not in (recurrent, conv_lstm) or _inner_rule(backward) is not rule:
        return site.block_inputs(f"wraps a {type(forward).__name__}, which it has no rule for")
    states = _states(site)
    half = len(states) // 2
    halves = []
    for layer, key, own in (
        (forward, "layer", states[:half]),
        (backward, "backward_layer", states[half:]),
    ):
        inner = site.within(layer, key, site.inputs)
        inner.inputs = [site.inputs[0], *(site.inputs[i] for i in own)]
        inner.in_shapes = [site.in_shapes[0], *(site.in_shapes[i] for i in own)]
        inner.out_shapes = _half_shapes(site)
        halves.append(rule(inner))
    return _both(site, *halves)


def _half_shapes(site: Site) -> list[tuple]:
    """Shapes of one direction's outputs: the result, then half of the states."""
    states = len(site.out_shapes) - (1 if site.layer.merge_mode else 2)
    return [site.out_shapes[0], *site.out_shapes[len(site.out_shapes) - states :][: states // 2]]


def _both(site: Site, first: list[Marks], second: list[Marks]) -> list[Marks]:
    for a, b in zip(first, second, strict=True):
        for p, q in zip(a.planes, b.planes, strict=True):
            if p.shape == q.shape:
                site.tie(p, q)
            elif site.layer.merge_mode not in ("concat", None):
                site.block(p, "adds directions of different widths")
    a, b = first[0], second[0]
    states = [*first[1:], *second[1:]]
    if site.layer.merge_mode is None:
        return [a, b, *states]
    if site.layer.merge_mode == "concat":
        axis = a.axes[0] if a.axes else a.rank - 1
        pairs = zip(a.planes, b.planes, strict=True)
        joined = Marks.of([np.concatenate([p, q], axis) for p, q in pairs], a.rank)
        return [joined, *states]
    return [a, *states]


def time_distributed(site: Site) -> Marks:
    """TimeDistributed: the rule of the layer (or model) inside, on every step."""
    outer = site.inputs[0]
    if 1 in outer.axes:
        site.block_inputs(_STEPS)
        outer = unlabelled(outer.rank)
    if len(site.out_shapes) != 1:
        return site.block_inputs("has several results a step")[0]
    stepped = outer.map(lambda p: np.take(p, 0, axis=1), outer.rank - 1)
    layer = site.layer.layer
    inner = site.within(layer, "layer", [stepped], drop=1)
    inner.in_shapes = inner.in_shapes[:1]
    if is_nested(layer):
        from tfedge.graph.walk import walk_nested  # it runs the rules, this one too

        result: Any = walk_nested(inner)
    else:
        result = _inner_rule(layer)(inner)
    result = result[0] if isinstance(result, list) else result
    return insert_axis(result, 1)


def _inner_rule(layer: Any) -> Any:
    from tfedge.graph.registry import rule_for  # the table names this module's rules

    return rule_for(layer)

"""Cuts channels out of a model: gathers all positions a weight loses and cuts each weight once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tfedge.errors import PlanError
from tfedge.graph.channels import Analysis, analyse
from tfedge.graph.labels import NEVER
from tfedge.graph.trace import Call, Graph, copy_layer, replay


def cut(model: Any, cuts: dict[str, np.ndarray], analysis: Analysis | None = None) -> Any:
    """Builds the network in which some channels do not exist.

    Args:
        model: A built functional or sequential model of either Keras; it is not changed.
        cuts: Channels to remove by group name, int arrays.
        analysis: The result of `analyse(model)`, where it is at hand.

    Returns:
        A new functional model with the same input and output names; every layer keeps its name.

    Raises:
        PlanError: A group does not exist, is blocked, would lose all its channels, or a channel
            number is out of range.
    """
    analysis = analysis or analyse(model)
    alive = _alive(analysis, cuts)
    graph = analysis.graph
    weights, changes = _cut_weights(analysis, alive), _config_changes(analysis, alive)
    return _rebuilt(graph, weights, changes, lambda call: _edited(analysis, call, alive))


def rebuild(graph: Graph) -> Any:
    """A model with new layers of the same configs and weights, from a traced (or edited) graph.

    Args:
        graph: The graph; its layers are not changed.
    """
    weights = {
        name: layer.get_weights() if hasattr(layer, "get_weights") else []
        for name, layer in graph.layers().items()
    }
    return _rebuilt(graph, weights, {}, None)


def _rebuilt(graph: Graph, weights: dict, changes: dict, edit: Any) -> Any:
    made: dict[str, Any] = {}

    def make(name: str, layer: Any) -> Any:
        made[name] = copy_layer(layer, changes.get(name), name)
        return made[name]

    model = replay(graph, make, edit)
    for name in graph.layers():
        if weights[name]:
            made[name].set_weights(weights[name])
            if hasattr(made[name], "finalize_state"):  # Normalization derives constants from them
                made[name].finalize_state()
    return model


def _alive(analysis: Analysis, cuts: dict[str, np.ndarray]) -> dict[int, bool]:
    """Whether each label representative stays."""
    by_name = {g.name: (i, g) for i, g in enumerate(analysis.groups)}
    dead: set[tuple[int, int]] = set()
    for name, channels in cuts.items():
        if name not in by_name:
            raise PlanError("the plan names a group that the model does not have", f"'{name}'")
        number, group = by_name[name]
        channels = np.unique(np.asarray(channels, dtype=int))
        if not len(channels):
            continue
        if group.blocked:
            raise PlanError(f"group '{name}' cannot be cut", group.blocked)
        if channels[0] < 0 or channels[-1] >= group.channels:
            raise PlanError(
                f"group '{name}' has channels 0 to {group.channels - 1}",
                f"channel {channels[-1] if channels[0] >= 0 else channels[0]}",
            )
        if group.fixed[channels].any():
            raise PlanError(
                f"channel {channels[group.fixed[channels]][0]} of group '{name}' cannot be cut"
            )
        if len(channels) == group.channels:
            raise PlanError(
                f"group '{name}' would lose all its {group.channels} channels",
                fix="Keep at least one",
            )
        lost = next((p for p in analysis.parts[number] if p <= set(channels.tolist())), None)
        if lost is not None:
            raise PlanError(
                f"a part of group '{name}' would lose all its channels",
                f"channels {sorted(lost)}",
                "Keep at least one of them: a layer or slice consists of them alone",
            )
        dead.update((number, int(c)) for c in channels)
    return {root: place not in dead for root, place in analysis.position.items()}


def _stays(labels: np.ndarray, alive: dict[int, bool]) -> np.ndarray:
    """Bool array: which positions stay."""
    return np.array([x == NEVER or alive[x] for x in labels.tolist()], dtype=bool)


def _cut_weights(analysis: Analysis, alive: dict[int, bool]) -> dict[str, list[np.ndarray]]:
    """All weights by layer, with the dead positions taken out."""
    axes: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    for b in analysis.table.bindings.values():
        axes.setdefault((b.layer, b.weight), {})[b.axis] = _stays(b.labels, alive)
    out: dict[str, list[np.ndarray]] = {}
    for name, layer in analysis.graph.layers().items():
        values = layer.get_weights() if hasattr(layer, "get_weights") else []
        for number, value in enumerate(values):
            for axis, stay in axes.get((name, number), {}).items():
                if not stay.all():
                    value = np.compress(stay, value, axis=axis)
            kept = analysis.table.scales.get((name, number))
            if kept is not None:
                value = value * np.sqrt(_stays(kept, alive).mean(), dtype=value.dtype)
            values[number] = value
        out[name] = values
    return out


def _counted(kind: str, value: Any, alive: dict[int, bool]) -> Any:
    """What a config entry or parameter becomes: see `Site.size`, `Site.shape`, `Site.edit`."""

    def count(labels: np.ndarray) -> int:
        return int(_stays(labels, alive).sum())

    if kind == "size":
        return count(value)
    if kind == "shape":
        return [count(d) if isinstance(d, np.ndarray) else d for d in value]
    sizes = [count(v) for v in value]
    return np.cumsum(sizes).tolist() if kind == "indices" else sizes


def _config_changes(analysis: Analysis, alive: dict[int, bool]) -> dict[str, dict[str, Any]]:
    """New config entries (filters, units, target_shape...) by layer; keys may be dotted."""
    out: dict[str, dict[str, Any]] = {}
    for (name, key), (kind, value) in analysis.table.sizes.items():
        out.setdefault(name, {})[key] = _counted(kind, value, alive)
    return out


def _edited(analysis: Analysis, call: Call, alive: dict[int, bool]) -> Call:
    """The call with its shapes, bounds and constants cut."""
    edits = analysis.table.edits.get(call.outputs[0] if call.outputs else -1)
    if not edits:
        return call
    layer, args, kwargs = call.layer, call.args, call.kwargs
    for (where, *path), kind, value in edits:
        if where == "attr":
            new = _edit(getattr(layer, path[0]), path[1:], kind, value, alive)
            layer = copy_layer(layer, {path[0]: new})
        elif where == "args":
            args = _edit(args, path, kind, value, alive)
        else:
            kwargs = _edit(kwargs, path, kind, value, alive)
    return replace(call, layer=layer, args=args, kwargs=kwargs)


def _edit(old: Any, path: list[Any], kind: str, value: Any, alive: dict[int, bool]) -> Any:
    """Replaces the value at a path inside nested tuples, lists and dicts."""
    if kind == "slice" and not path:
        start, stop = (int(_stays(v, alive).sum()) for v in value)
        if isinstance(old, dict):  # tf_keras keeps slices as dicts
            return {**old, "start": start, "stop": stop}
        return slice(start, stop, old.step)
    if path:
        key, *rest = path
        if isinstance(old, dict):
            return {**old, key: _edit(old[key], rest, kind, value, alive)}
        items = list(old)
        items[key] = _edit(items[key], rest, kind, value, alive)
        return type(old)(items)
    if kind == "compress":
        axis, labels = value
        return np.compress(_stays(labels, alive), np.asarray(old), axis=axis)
    new = _counted(kind, value, alive)
    if kind == "shape":  # -1 and None mean "what is left" and stay
        new = [g if g in (-1, None) else n for g, n in zip(old, new, strict=True)]
    return tuple(new) if isinstance(old, tuple) else new

"""Channel groups: everything in a model that must lose the same channels.

`analyse` runs the rules over a traced model; `channel_groups` collects what they said. A group is
index data: which positions of which axis of which weight belong to which of its channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge.errors import ModelError
from tfedge.graph.labels import NEVER, Labels, unlabelled
from tfedge.graph.registry import rule_for
from tfedge.graph.site import Binding, Site, Table
from tfedge.graph.trace import Graph, trace


@dataclass(frozen=True)
class Slice:
    """Positions on one axis of one weight that belong to a group.

    Attributes:
        layer: Unique layer name in the graph.
        weight: Index into `layer.weights`.
        weight_name: Attribute name of the weight, for people.
        axis: Axis of the weight.
        index: Positions on that axis, int array [n].
        channel: The group's channel that each position belongs to, int array [n].
        role: "out" where the layer produces the channels, "in" where it consumes them, "through"
            where it keeps them.
    """

    layer: str
    weight: int
    weight_name: str
    axis: int
    index: np.ndarray
    channel: np.ndarray
    role: str


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are coupled through a model.

    Attributes:
        name: The first layer (with the part of it, where it has several) that produces them.
        channels: How many there are; a channel may stand for several positions of a weight.
        slices: All positions that belong to them.
        blocked: Why none can be cut, or "".
        fixed: Bool array [channels]: True for single channels that cannot be cut.
        counted_by: Layers whose result depends on the number of channels (layer norm, softmax).
    """

    name: str
    channels: int
    slices: tuple[Slice, ...]
    blocked: str = ""
    fixed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    counted_by: tuple[str, ...] = ()

    @property
    def producers(self) -> list[str]:
        """Layers that produce the channels."""
        return list(dict.fromkeys(s.layer for s in self.slices if s.role == "out"))

    @property
    def consumers(self) -> list[str]:
        """Layers whose weights read the channels."""
        return list(dict.fromkeys(s.layer for s in self.slices if s.role == "in"))

    def __str__(self) -> str:
        """One readable paragraph."""
        head = f"{self.name}: {self.channels} channels"
        if self.blocked:
            head += f", blocked: {self.blocked}"
        elif self.fixed.any():
            head += f", {int(self.fixed.sum())} of them fixed"
        lines = [head]
        for s in self.slices:
            arrow = {"out": "->", "in": "<-", "through": "--"}[s.role]
            lines.append(f"  {arrow} {s.layer}.{s.weight_name}, axis {s.axis}: {len(s.index)}")
        return "\n".join(lines)


@dataclass
class Analysis:
    """A traced model with its channel groups.

    Attributes:
        graph: The trace.
        table: What the rules said, labels resolved.
        groups: All channel groups, blocked ones too, in order of the graph.
        position: (group index, channel) by label representative.
        tensor_labels: Label array of each tensor, by tensor number, resolved.
        parts: By group index, sets of channels of which one must stay: those of a tensor that
            holds only some of the group's channels (a slice, one side of a concat).
    """

    graph: Graph
    table: Table
    groups: list[ChannelGroup]
    position: dict[int, tuple[int, int]]
    tensor_labels: dict[int, np.ndarray]
    parts: list[list[frozenset[int]]]


def analyse(model: Any) -> Analysis:
    """Traces a model and finds its channel groups.

    Args:
        model: A built functional or sequential Keras model.

    Raises:
        ModelError: The model cannot be traced, or a user's rule is wrong.
    """
    graph = model if isinstance(model, Graph) else trace(model)
    table = Table()
    known = {i: unlabelled(len(graph.tensors[i].shape)) for i in graph.inputs}
    for call in graph.calls:
        site = Site(table, graph, call, [known[i] for i in call.inputs])
        result = rule_for(call.layer)(site)
        results = result if isinstance(result, list) else [result]
        _check_rule_result(table, site, results)
        known.update(zip(call.outputs, results, strict=True))
    for number in graph.output_refs():
        table.labels.block(known[number], "it is an output of the model")
    return _collect(graph, table, known)


def channel_groups(model: Any) -> list[ChannelGroup]:
    """Finds the channel groups of a model, blocked ones (with their reason) included.

    Args:
        model: A built functional or sequential Keras model.

    Returns:
        The groups in order of the graph. `print(group)` shows what is coupled.

    Raises:
        ModelError: The model cannot be traced.
    """
    return analyse(model).groups


def _check_rule_result(table: Table, site: Site, results: list[np.ndarray]) -> None:
    what = f"the rule of layer '{site.name}' ({type(site.layer).__name__}) is wrong"
    if len(results) != len(site.out_shapes):
        raise ModelError(what, f"{len(results)} results for {len(site.out_shapes)} outputs")
    for labels, shape in zip(results, site.out_shapes, strict=True):
        labels = np.asarray(labels)
        fits = labels.ndim == len(shape) and all(
            n == 1 or d is None or n == d for n, d in zip(labels.shape, shape, strict=True)
        )
        if not fits:
            raise ModelError(
                what,
                f"labels of shape {labels.shape} for an output of shape {tuple(shape)}",
                "Return labels that broadcast to the output's shape",
            )
        if labels.size and (labels.max() >= len(table.labels) or labels.min() < NEVER):
            raise ModelError(
                what,
                f"label {labels.max()} of {len(table.labels)}",
                "Use only labels of site.inputs and site.new()",
            )


def _collect(graph: Graph, table: Table, known: dict[int, np.ndarray]) -> Analysis:
    """Turns labels into groups with channels numbered from 0."""
    labels = table.labels
    members: dict[int, list[int]] = {}
    for label in range(len(labels)):
        root = labels.find(label)
        classes = members.setdefault(labels.batch(label), [])
        if label == root:
            classes.append(root)
    resolved = {
        key: Binding(b.layer, b.weight, b.weight_name, b.axis, labels.resolve(b.labels), b.role)
        for key, b in table.bindings.items()
    }
    table.bindings = resolved
    table.sizes = {k: (kind, _resolved(labels, v)) for k, (kind, v) in table.sizes.items()}
    table.edits = {
        k: [(path, kind, _resolved(labels, v)) for path, kind, v in edits]
        for k, edits in table.edits.items()
    }
    table.scales = {k: labels.resolve(v) for k, v in table.scales.items()}
    position = {
        root: (g, c) for g, classes in enumerate(members.values()) for c, root in enumerate(classes)
    }
    slices = _slices(resolved, position, len(members))
    counted = _counted(table, position, len(members))
    groups = []
    for g, (batch, classes) in enumerate(members.items()):
        reasons = [labels.reason(root) for root in classes]
        fixed = np.array([bool(r) for r in reasons])
        blocked = reasons[0] if fixed.all() else ""
        groups.append(
            ChannelGroup(
                labels.batch_names[batch],
                len(classes),
                tuple(slices[g]),
                blocked,
                fixed,
                tuple(counted[g]),
            )  # fmt: skip
        )
    tensors = {i: labels.resolve(x) for i, x in known.items()}
    parts = _parts(tensors.values(), position, groups)
    return Analysis(graph, table, groups, position, tensors, parts)


def _parts(
    tensors: Iterable[np.ndarray],
    position: dict[int, tuple[int, int]],
    groups: list[ChannelGroup],
) -> list[list[frozenset[int]]]:
    """Channel sets smaller than their group that some tensor consists of."""
    found: list[set[frozenset[int]]] = [set() for _ in groups]
    for labels in tensors:
        roots = np.unique(labels).tolist()
        if NEVER in roots:  # something in this tensor always stays
            continue
        places = [position[root] for root in roots]
        # A tensor of several groups' channels (a concat) lives as long as one of its parts does.
        if len({g for g, _ in places}) == 1 and len(places) < groups[places[0][0]].channels:
            found[places[0][0]].add(frozenset(c for _, c in places))
    return [sorted(f, key=min) for f in found]


def _resolved(labels: Labels, value: Any) -> Any:
    """Replaces the label arrays in a nested value by their representatives."""
    if isinstance(value, np.ndarray):
        return labels.resolve(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(labels, v) for v in value)
    return value


def _slices(bindings: dict, position: dict[int, tuple[int, int]], count: int) -> list[list[Slice]]:
    """The slices of each group."""
    out: list[list[Slice]] = [[] for _ in range(count)]
    for b in bindings.values():
        where = np.array([position.get(x, (-1, -1)) for x in b.labels.tolist()])
        for g in np.unique(where[:, 0]).tolist():
            if g < 0:
                continue
            index = np.flatnonzero(where[:, 0] == g)
            out[g].append(
                Slice(b.layer, b.weight, b.weight_name, b.axis, index, where[index, 1], b.role)
            )
    return out


def _counted(table: Table, position: dict, count: int) -> list[list[str]]:
    """Names of the layers that count each group's channels."""
    out: list[list[str]] = [[] for _ in range(count)]
    for labels, name in table.counting:
        for root in np.unique(table.labels.resolve(labels)).tolist():
            if root in position and name not in out[position[root][0]]:
                out[position[root][0]].append(name)
    return out

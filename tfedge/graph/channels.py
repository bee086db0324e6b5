"""Channel groups: everything in a model that must lose the same channels.

`analyse` runs the rules over a traced model; `channel_groups` collects what they said. A group is
index data: which positions of which axis of which weight belong to which of its channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfedge.graph.collection import collection_paused
from tfedge.graph.labels import NEVER, Labels, Marks, plane_axes, unlabelled
from tfedge.graph.site import Dim, Table
from tfedge.graph.trace import Graph, trace
from tfedge.graph.walk import walk


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
        name: The first layer (with the part of it, where it has several) that produces them; unique
            in the model.
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
        group_of: Group index by label, int array (-1 for labels that stand for another one).
        channel_of: Channel in its group by label, int array.
        marks: What each tensor carries, by tensor number, labels resolved.
        parts: By group index, sets of channels of which one must stay: those of a tensor that
            holds only some of the group's channels (a slice, one side of a concat).
    """

    graph: Graph
    table: Table
    groups: list[ChannelGroup]
    group_of: np.ndarray
    channel_of: np.ndarray
    marks: dict[int, Marks]
    parts: list[list[frozenset[int]]]


@collection_paused()
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
    walk(table, graph, known)
    for number in graph.output_refs():
        for plane in known[number].planes:
            table.labels.block(plane, "it is an output of the model")
    tables = [(table, known)]
    for t, _ in tables:  # grows while it is walked: models inside wrappers inside models
        tables += [(n.table, n.marks) for n in t.nested.values()]
    for t, marks in tables:
        _make_grids(table.labels, [*marks.values(), *t.grids])
    return _collect(graph, tables)


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


def _make_grids(labels: Labels, tensors: list[Marks]) -> None:
    """Ties labels that still change along several axes of a tensor, so that a cut leaves a grid.

    What reads the tensors has had its say by now; of the axes left, the one with the most
    channels keeps them.
    """
    for carried in tensors:
        for plane in carried.planes:
            if len(plane_axes(plane)) < 2:
                continue
            for now in carried.resolved(labels).planes:
                axes = plane_axes(now)
                keep = max(axes, key=lambda a: (now.shape[a], a), default=0)
                for axis in axes:
                    if axis != keep:
                        first = np.take(now, [0], axis=axis)
                        labels.tie(now, first, "a reshape joins it with others", "a reshape")
                        now = labels.resolve(first)


def _collect(graph: Graph, tables: list[tuple[Table, dict[int, Marks]]]) -> Analysis:
    """Turns labels into groups with channels numbered from 0."""
    table, known = tables[0]
    labels = table.labels
    table.bindings = {
        k: replace(b, labels=labels.resolve(b.labels)) for k, b in table.bindings.items()
    }
    table.scales = {k: labels.resolve(v) for k, v in table.scales.items()}
    for t, _ in tables:
        t.sizes = {k: (kind, _resolved(labels, v)) for k, (kind, v) in t.sizes.items()}
        t.edits = {
            number: {path: (kind, _resolved(labels, v)) for path, (kind, v) in edits.items()}
            for number, edits in t.edits.items()
        }
    group_of, channel_of, names = labels.groups()
    slices = _slices(table, group_of, channel_of, len(names))
    counted = _counted(table, group_of, len(names))
    groups = []
    for g, name in enumerate(_unique(names)):
        roots = np.flatnonzero(group_of == g)
        reasons = [labels.reason(root) for root in roots.tolist()]
        fixed = np.array([bool(r) for r in reasons])
        blocked = _why_whole(labels, roots, reasons)
        groups.append(
            ChannelGroup(name, len(roots), tuple(slices[g]), blocked, fixed, tuple(counted[g]))
        )
    for _, marks in tables:
        marks.update({i: m.resolved(labels) for i, m in marks.items()})
    resolved = [marks for _, marks in tables]
    every = [m for marks in resolved for m in marks.values()]
    parts = _parts(every, group_of, channel_of, groups)
    groups = [_with_lone_channels(g, p) for g, p in zip(groups, parts, strict=True)]
    return Analysis(graph, table, groups, group_of, channel_of, resolved[0], parts)


def _with_lone_channels(group: ChannelGroup, parts: list[frozenset[int]]) -> ChannelGroup:
    """Fixes channels that a tensor consists of alone."""
    lone = [c for part in parts if len(part) == 1 for c in part]
    if not lone:
        return group
    fixed = group.fixed.copy()
    fixed[lone] = True
    blocked = group.blocked
    if fixed.all() and not blocked:
        blocked = "each of its channels is the only one of some tensor"
    return replace(group, fixed=fixed, blocked=blocked)


def _unique(names: list[str]) -> list[str]:
    """The names, a repeated one numbered."""
    out: list[str] = []
    for name in names:
        unique, n = name, 1
        while unique in out:
            unique, n = f"{name}_{n}", n + 1
        out.append(unique)
    return out


def _why_whole(labels: Labels, roots: np.ndarray, reasons: list[str]) -> str:
    """Why no channel of a group can be cut, or ""."""
    if all(reasons):
        return reasons[0]
    by = labels.joined_by.get(labels.batch_of(int(roots[0])))
    if len(roots) == 1 and by:
        return f"{by} joins all its channels into one"
    return ""


def _parts(
    tensors: list[Marks],
    group_of: np.ndarray,
    channel_of: np.ndarray,
    groups: list[ChannelGroup],
) -> list[list[frozenset[int]]]:
    """Channel sets smaller than their group that some tensor consists of."""
    found: list[set[frozenset[int]]] = [set() for _ in groups]
    for plane in (p for marks in tensors for p in marks.planes):
        roots = np.unique(plane)
        if roots[0] == NEVER:  # something in this tensor always stays
            continue
        owners = group_of[roots]
        # A tensor of several groups' channels (a concat) lives as long as one of its parts does.
        if (owners == owners[0]).all() and len(roots) < groups[owners[0]].channels:
            found[owners[0]].add(frozenset(channel_of[roots].tolist()))
    return [sorted(f, key=lambda part: (min(part), len(part))) for f in found]


def _resolved(labels: Labels, value: Any) -> Any:
    """Replaces label arrays in a nested value by representatives, and a Dim by its labels."""
    if isinstance(value, Dim):
        return axis_labels(value.marks.resolved(labels), value.axis, value.length)
    if isinstance(value, np.ndarray):
        return labels.resolve(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(labels, v) for v in value)
    return value


def axis_labels(marks: Marks, axis: int, length: int) -> np.ndarray:
    """Labels [k, length] along one axis of a tensor, whose labels are resolved."""
    rows = [np.moveaxis(p, axis, 0).reshape(-1) for p in marks.planes if p.shape[axis] > 1]
    return np.stack(rows) if rows else np.full((1, length), NEVER)


def _slices(
    table: Table, group_of: np.ndarray, channel_of: np.ndarray, count: int
) -> list[list[Slice]]:
    """The slices of each group."""
    out: list[list[Slice]] = [[] for _ in range(count)]
    for b in table.bindings.values():
        for row in b.labels:
            owners = np.where(row == NEVER, -1, group_of[row]) if count else row
            for g in np.unique(owners[owners >= 0]).tolist():
                index = np.flatnonzero(owners == g)
                out[g].append(
                    Slice(b.layer, b.weight, b.weight_name, b.axis, index,
                          channel_of[row[index]], b.role)
                )  # fmt: skip
    return out


def _counted(table: Table, group_of: np.ndarray, count: int) -> list[list[str]]:
    """Names of the layers that count each group's channels."""
    out: list[list[str]] = [[] for _ in range(count)]
    for labels, name in table.counting:
        roots = np.unique(table.labels.resolve(labels))
        for g in np.unique(group_of[roots[roots != NEVER]]).tolist():
            if name not in out[g]:
                out[g].append(name)
    return out

"""What a pruning rule sees and says: one call, its labels, and the table of what they index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge.errors import ModelError
from tfedge.graph.arguments import Parameter, Path, parameters
from tfedge.graph.labels import NEVER, Labels, Marks, along, plane_axes, unlabelled
from tfedge.graph.trace import Call, Graph, Ref


@dataclass(frozen=True)
class Dim:
    """The length of a tensor's axis, to be counted when all labels are known."""

    marks: Marks
    axis: int
    length: int


@dataclass(frozen=True)
class Binding:
    """Labels on one axis of one weight: position i of the axis belongs to labels[:, i].

    `role` is "out" where the layer produces the channels, "in" where it consumes them, "through"
    where it keeps them (norms, depthwise). Several rows of labels: any of them cuts the position.
    """

    layer: str
    weight: int
    weight_name: str
    axis: int
    labels: np.ndarray
    role: str


@dataclass
class Table:
    """All that the rules said about a graph.

    Attributes:
        labels: Issuer of the labels, with what is tied and blocked.
        bindings: Labels by (layer, weight index, axis).
        sizes: Config entries by (layer, key): ("size", labels) or ("shape", dims).
        counting: Labels that a layer counts, with its name.
        edits: Changes of a call's arguments, (kind, value) by path, by the number of the call's
            first output.
        scales: Weights (layer, weight index) to multiply by sqrt(kept / all) of these labels.
        shared: What the first use of a parameter of an operation object says, by (layer, path).
        grids: Marks of tensors inside a call, which a cut must leave rectangular as well.
        nested: Models inside a wrapper, by (wrapper, config entry).
    """

    labels: Labels = field(default_factory=Labels)
    bindings: dict[tuple[str, int, int], Binding] = field(default_factory=dict)
    sizes: dict[tuple[str, str], tuple[str, Any]] = field(default_factory=dict)
    counting: list[tuple[np.ndarray, str]] = field(default_factory=list)
    edits: dict[int, dict[Path, tuple[str, Any]]] = field(default_factory=dict)
    scales: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    shared: dict[tuple[str, Path], Any] = field(default_factory=dict)
    grids: list[Marks] = field(default_factory=list)
    nested: dict[tuple[str, str], Nested] = field(default_factory=dict)

    def inner(self) -> Table:
        """An empty table for a model inside a wrapper, whose weights are bound in this one."""
        return Table(self.labels, self.bindings, counting=self.counting, scales=self.scales)


@dataclass
class Nested:
    """A model inside a wrapper: its graph, what the rules said of its calls, its tensors' marks."""

    graph: Graph
    table: Table
    marks: dict[int, Marks] = field(default_factory=dict)


class Site:
    """One call as a rule sees it.

    Attributes:
        layer: The layer object.
        name: Its unique name in the graph.
        call: The traced call, with its arguments.
        inputs: `Marks` of the tensors that enter, in order.
        in_shapes: Their shapes, batch first.
        out_shapes: Shapes of the results.
    """

    def __init__(self, table: Table, graph: Graph, call: Call, inputs: list[Marks]) -> None:
        self.table, self.graph = table, graph
        self.call, self.layer, self.name = call, call.layer, call.name
        self.owner = call  # whose weights are bound: a wrapper, where this is a layer inside one
        self.prefix = ""
        self.inputs = [m.resolved(table.labels) for m in inputs]
        self.in_shapes = [graph.tensors[i].shape for i in call.inputs]
        self.out_shapes = [graph.tensors[i].shape for i in call.outputs]

    def within(self, layer: Any, key: str, inputs: list[Marks], drop: int = 0) -> Site:
        """The site of a layer inside this one (TimeDistributed, Bidirectional).

        Args:
            layer: The inner layer.
            key: Entry of this layer's config that holds the inner one.
            inputs: Marks that the inner layer sees.
            drop: How many axes after the batch the inner layer does not see.
        """
        site = Site(self.table, self.graph, self.call, inputs)
        site.layer, site.prefix, site.owner = layer, f"{self.prefix}{key}.config.", self.owner
        site.in_shapes = [(s[0], *s[1 + drop :]) for s in self.in_shapes]
        site.out_shapes = [(s[0], *s[1 + drop :]) for s in self.out_shapes]
        return site

    @property
    def who(self) -> str:
        """The layer as reasons name it."""
        return f"'{self.name}' ({type(self.layer).__name__})"

    def argument(self, *names: str) -> Parameter:
        """The first parameter of these names that the call has; value None where it has none."""
        found = parameters(self.layer, self.call)
        return next((found[n] for n in names if n in found), Parameter(None, ()))

    def number(self, value: Any) -> int | None:
        """Which input a parameter's value is, or None where it is no tensor of the graph."""
        return self.call.inputs.index(value.index) if isinstance(value, Ref) else None

    def new(self, count: int, part: str = "", passive: bool = False) -> np.ndarray:
        """Fresh labels for channels that this layer produces; shape [count].

        Args:
            count: How many.
            part: Which part of the layer, where it has several.
            passive: True for copies of one value, which follow the channels that they meet.
        """
        name = self.owner.name if self.owner is self.call else f"{self.owner.name}/{self.call.name}"
        return self.table.labels.new(count, f"{name}.{part}" if part else name, passive)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties two broadcastable label arrays; a label that meets -1 is blocked."""
        self._check(a)
        self._check(b)
        self.table.labels.tie(
            a, b, f"{self.who} joins it with channels that cannot be cut", self.who
        )

    def block(self, what: Marks | np.ndarray, reason: str) -> None:
        """Marks labels as never to be cut."""
        for labels in what.planes if isinstance(what, Marks) else (what,):
            self._check(labels)
            self.table.labels.block(labels, f"{self.who} {reason}")

    def block_inputs(self, reason: str) -> list[Marks]:
        """Blocks everything that enters this call; returns the marks of uncut outputs."""
        for marks in self.inputs:
            self.block(marks, reason)
        return [unlabelled(len(s)) for s in self.out_shapes]

    def vector(self, axis: int, index: int = 0) -> np.ndarray:
        """Labels along one axis of an input; -1 where it carries none.

        Returns:
            Labels [dim]; [k, dim] where k labels can cut an element independently. Labels that
            change along other axes too are tied over those axes first.
        """
        return self.split(axis, index)[0]

    def split(self, axis: int, index: int = 0) -> tuple[np.ndarray, Marks]:
        """As `vector`, and what the input carries on its other axes."""
        vector, rest = self.project(self.inputs[index], axis, self.in_shapes[index][axis])
        return vector, rest

    def project(self, marks: Marks, axis: int, dim: int | None) -> tuple[np.ndarray, Marks]:
        """As `split`, for any marks."""
        axis %= marks.rank
        vectors, rest = [], []
        for plane in marks.planes:
            if plane.shape[axis] == 1:
                rest.append(plane)
                continue
            for other in plane_axes(plane):
                if other != axis:
                    first = np.take(plane, [0], axis=other)
                    self.tie(plane, first)
                    plane = first
            vectors.append(plane.reshape(-1))
        if not vectors:
            vectors = [np.full(dim or 1, NEVER)]
        vector = np.stack(vectors) if len(vectors) > 1 else vectors[0]
        return vector, Marks(tuple(rest), marks.rank)

    def spread(self, axis: int, index: int = 0) -> Marks:
        """An input's marks with nothing along an axis whose positions are told apart by number.

        Labels that change along other axes too are tied over this one; those of this axis alone
        are left.
        """
        planes = []
        for plane in self.inputs[index].planes:
            if plane.shape[axis] > 1 and len(plane_axes(plane)) > 1:
                first = np.take(plane, [0], axis=axis)
                self.tie(plane, first)
                plane = first
            planes.append(plane)
        return Marks(tuple(planes), self.inputs[index].rank)

    def only(self, axis: int, reason: str, index: int = 0) -> np.ndarray:
        """As `vector`, for a layer that cannot keep labels on other axes."""
        vector, rest = self.split(axis, index)
        if rest.axes:
            self.block(rest, reason)
        return vector

    def bind(self, weight: str, axis: int, labels: np.ndarray, role: str = "in") -> None:
        """Says that position i on an axis of a weight belongs to labels[..., i].

        Args:
            weight: Attribute of the layer ("kernel", "_query_dense.kernel"); None values (no bias)
                are skipped.
            axis: Axis of the weight, may be negative.
            labels: Labels as long as that axis, [n] or [k, n].
            role: "out" where the layer produces the channels, "in" where it consumes them,
                "through" where it keeps them.

        Raises:
            ModelError: The labels do not fit the weight (a wrong rule).
        """
        variable, number = self._weight(weight)
        if variable is not None:
            self._bind(variable, number, weight, axis, labels, role)

    def bind_variable(self, variable: Any, name: str, labels: np.ndarray) -> None:
        """Binds the only axis of a vector that no attribute of the layer holds; see `bind`.

        Args:
            variable: One of the layer's weights.
            name: What plans and reports call it.
            labels: As long as the vector.
        """
        self._bind(variable, self._number(variable), name, 0, labels, "through")

    def _bind(
        self, variable: Any, number: int | None, weight: str, axis: int, labels: Any, role: str
    ) -> None:
        self._check(labels)
        if number is None:  # made from other weights: a quantized or low-rank kernel
            self.block(labels, f"computes its {weight} from other weights")
            return
        axis %= len(variable.shape)
        if labels.shape[-1] != variable.shape[axis] or labels.ndim > 2:
            raise self.wrong(
                f"labels of shape {labels.shape} for axis {axis} of '{weight}', "
                f"whose shape is {tuple(variable.shape)}",
                "A rule binds one label to each position of the axis",
            )
        rows = labels.reshape(-1, labels.shape[-1])
        key = (self.owner.name, number, axis)
        old = self.table.bindings.get(key)
        if old is not None:
            self._tie_rows(old.labels, rows)
            return
        inside = "" if self.owner is self.call else f"{self.call.name}."
        self.table.bindings[key] = Binding(
            self.owner.name, number, inside + weight, axis, rows, role
        )

    def _weight(self, path: str) -> tuple[Any, int | None]:
        """A weight by attribute, and its index in the owner's weights."""
        variable: Any = self.layer
        for part in path.split("."):
            number = int(part) if part.isdigit() else None
            variable = getattr(variable, part, None) if number is None else variable[number]
            if variable is None:
                return None, None
        return variable, self._number(variable)

    def _number(self, variable: Any) -> int | None:
        """The index of a variable in the owner's weights."""
        weights = self.owner.layer.weights
        return next((i for i, w in enumerate(weights) if w is variable), None)

    def _tie_rows(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties the labels of one axis that two calls bind."""
        if len(a) == len(b):
            self.tie(a, b)
        else:  # cut together or not at all is always right, if coarse
            self.tie(np.concatenate([a, b]), a[:1])

    def size(self, key: str, labels: np.ndarray) -> None:
        """Says that config entry `key` is the number of these labels that stay."""
        self._check(labels)
        self._record(self.table.sizes, (self.name, self.prefix + key), ("size", labels))

    def dims(self, key: str, dims: Sequence[Any]) -> None:
        """Says that config entry `key` is this list, with `Dim`s counted."""
        value = ("shape", list(dims))
        self._record(self.table.sizes, (self.name, self.prefix + key), value)

    def _record(self, table: dict, key: Any, value: tuple[str, Any]) -> None:
        """Stores a change; a layer that is called twice must count the same both times."""
        if key in table:
            self.same_count(table[key][1], value[1])
        else:
            table[key] = value

    def same_count(self, a: Any, b: Any) -> None:
        """Ties two counted values, so that both become the same number."""
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape:
            self.tie(a, b)
        elif isinstance(a, Dim) and isinstance(b, Dim) and a.length == b.length:
            self._same_marks(a.marks, b.marks)
        elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
            for x, y in zip(a, b, strict=True):
                self.same_count(x, y)
        else:
            for value in (a, b):
                self._block_counted(value)

    def _same_marks(self, a: Marks, b: Marks) -> None:
        """Ties what two tensors of one shape carry, or keeps both whole."""
        pairs = list(zip(a.planes, b.planes, strict=False))
        if len(a.planes) == len(b.planes) and all(p.shape == q.shape for p, q in pairs):
            for p, q in pairs:
                self.tie(p, q)
        else:
            for marks in (a, b):
                self.block(marks, "is used twice in different ways")

    def _block_counted(self, value: Any) -> None:
        reason = "is used twice in different ways"
        if isinstance(value, Dim):
            self.block(value.marks, reason)
        elif isinstance(value, np.ndarray):
            self.block(value, reason)
        elif isinstance(value, (list, tuple)):
            for v in value:
                self._block_counted(v)

    def edit(self, path: Path, kind: str, value: Any) -> None:
        """Says how a parameter of this call (not of the layer's config) changes.

        Args:
            path: Where it stands.
            kind: "size" (labels or a Dim, counted), "shape" (a nested list of numbers and Dims),
                "indices" (a list of Dims, summed up), "slice" (labels before start and before
                stop), "compress" (axis and labels of an array constant), "pick" (labels of the
                source and a tuple of positions in it, renumbered), "value" (as it is).
            value: As the kind needs.
        """
        edits = self.table.edits.setdefault(self.call.outputs[0], {})
        if path in edits:  # a nested model's call that is walked twice
            self.same_count(edits[path][1], value)
            return
        edits[path] = (kind, value)
        if path[0] == "attr":  # the operation object may be called again, and is copied once
            seen = self.table.shared.setdefault((self.name, path), value)
            if seen is not value:
                self.same_count(seen, value)

    def scale_root(self, weight: str, labels: np.ndarray) -> None:
        """Says that a weight is multiplied by sqrt(kept / all) of these labels."""
        _, number = self._weight(weight)
        if number is not None:
            self.table.scales[(self.owner.name, number)] = labels

    def grid(self, marks: Marks) -> None:
        """Says that a tensor inside the call carries these, and must be left rectangular."""
        self.table.grids.append(marks)

    def counts(self, labels: np.ndarray | Marks) -> None:
        """Says that the result depends on how many of these channels there are (norms, means)."""
        for plane in labels.planes if isinstance(labels, Marks) else (labels,):
            self.table.counting.append((plane, self.owner.name))

    def out(self, labels: np.ndarray, axis: int, rest: Marks | None = None) -> Marks:
        """Marks of the first output: labels on one axis, and what other axes carry."""
        made = along(labels, axis, len(self.out_shapes[0]))
        return made if rest is None else rest + made

    def wrong(self, found: str, fix: str = "") -> ModelError:
        """The error of a rule that says something impossible."""
        return ModelError(f"the rule of layer {self.who} is wrong", found, fix)

    def _check(self, labels: np.ndarray) -> None:
        if labels.size and (labels.max() >= len(self.table.labels) or labels.min() < NEVER):
            worst = labels.max() if labels.max() >= len(self.table.labels) else labels.min()
            raise self.wrong(
                f"label {worst} of {len(self.table.labels)}",
                "Use only labels of site.inputs and site.new()",
            )


def channel_axis(layer: Any, rank: int) -> int:
    """The channel axis that the layer's data_format names."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1

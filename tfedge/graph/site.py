"""What a pruning rule sees and says: one call, its labels, and the table of what they index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from tfedge.errors import ModelError
from tfedge.graph.labels import NEVER, Labels, along, dependent_axes, squeeze_axes, unlabelled
from tfedge.graph.trace import Call, Graph

# Where a value stands: ("args", 1), ("kwargs", "axis", 0) of a call, or ("attr", "axis") of an op.
Path = tuple[Any, ...]


@dataclass(frozen=True)
class Binding:
    """Labels on one axis of one weight: position i of the axis belongs to labels[i].

    `role` is "out" where the layer produces the channels, "in" where it consumes them, "through"
    where it keeps them (norms, depthwise).
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
        sizes: Config entries by (layer, key): ("size", labels) or ("shape", dims and labels).
        counting: Labels that a layer counts, with its name.
        edits: Changes of a call's arguments by the number of its first output.
        scales: Weights (layer, weight index) to multiply by sqrt(kept / all) of these labels.
    """

    labels: Labels = field(default_factory=Labels)
    bindings: dict[tuple[str, int, int], Binding] = field(default_factory=dict)
    sizes: dict[tuple[str, str], tuple] = field(default_factory=dict)
    counting: list[tuple[np.ndarray, str]] = field(default_factory=list)
    edits: dict[int, list[tuple[Path, str, Any]]] = field(default_factory=dict)
    scales: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)


class Site:
    """One call as a rule sees it.

    Attributes:
        layer: The layer object.
        name: Its unique name in the graph.
        call: The traced call, with its arguments.
        inputs: Label arrays of the tensors that enter, in order.
        in_shapes: Their shapes, batch first.
        out_shapes: Shapes of the results.
    """

    def __init__(
        self,
        table: Table,
        graph: Graph,
        call: Call,
        inputs: list[np.ndarray],
        inner: tuple[Any, str] | None = None,
    ) -> None:
        self._table, self._graph = table, graph
        self.call, self.layer, self.name = call, call.layer, call.name
        self._prefix = ""
        self.inputs = inputs
        self.in_shapes = [graph.tensors[i].shape for i in call.inputs]
        self.out_shapes = [graph.tensors[i].shape for i in call.outputs]
        if inner is not None:
            self.layer, self._prefix = inner[0], f"{inner[1]}.config."

    def within(self, layer: Any, key: str, inputs: list[np.ndarray], drop: int = 0) -> Site:
        """The site of a layer inside this one (TimeDistributed, Bidirectional).

        Args:
            layer: The inner layer.
            key: Entry of this layer's config that holds the inner one.
            inputs: Label arrays that the inner layer sees.
            drop: How many axes after the batch the inner layer does not see.
        """
        site = Site(self._table, self._graph, self.call, inputs, (layer, key))
        if drop:
            site.in_shapes = [(s[0], *s[1 + drop :]) for s in site.in_shapes]
            site.out_shapes = [(s[0], *s[1 + drop :]) for s in site.out_shapes]
        return site

    def new(self, count: int, part: str = "") -> np.ndarray:
        """Fresh labels for channels that this layer produces; shape [count]."""
        return self._table.labels.new(count, f"{self.name}.{part}" if part else self.name)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties two broadcastable label arrays; a label that meets -1 is blocked."""
        kind = type(self.layer).__name__
        self._table.labels.tie(
            a, b, f"'{self.name}' ({kind}) joins it with channels that cannot be cut"
        )

    def block(self, labels: np.ndarray, reason: str) -> None:
        """Marks labels as never to be cut."""
        self._table.labels.block(labels, f"'{self.name}' ({type(self.layer).__name__}) {reason}")

    def block_inputs(self, reason: str) -> None:
        """Blocks everything that enters this call."""
        for labels in self.inputs:
            self.block(labels, reason)

    def vector(self, axis: int, index: int = 0) -> np.ndarray:
        """Labels along one axis of an input, shape [dim]; -1 where it carries none.

        Labels that change along other axes too are tied over those axes first.
        """
        return self.project(self.inputs[index], axis, self.in_shapes[index][axis])

    def project(self, labels: np.ndarray, axis: int, dim: int | None) -> np.ndarray:
        """As `vector`, for any label array."""
        axis %= labels.ndim
        for other in dependent_axes(labels):
            if other != axis:
                first = np.take(labels, [0], axis=other)
                self.tie(labels, first)
                labels = first
        flat = squeeze_axes(labels).reshape(-1)
        if dim is None:
            self.block(flat, "has a free dimension there")
            return np.full(1, NEVER)
        return flat if len(flat) == dim else np.full(dim, flat[0])

    def bind(self, weight: str, axis: int, labels: np.ndarray, role: str = "in") -> None:
        """Says that position i on an axis of a weight belongs to labels[i].

        Args:
            weight: Attribute of the layer ("kernel", "_query_dense.kernel"); None values (no bias)
                are skipped.
            axis: Axis of the weight, may be negative.
            labels: 1-D labels, as long as that axis.
            role: "out" where the layer produces the channels, "in" where it consumes them,
                "through" where it keeps them.

        Raises:
            ModelError: The labels do not fit the weight (a wrong rule).
        """
        variable: Any = self.layer
        for part in weight.split("."):
            variable = getattr(variable, part, None)
            if variable is None:
                return
        number = next((i for i, w in enumerate(self.call.layer.weights) if w is variable), None)
        if number is None:
            return
        axis %= len(variable.shape)
        if labels.shape != (variable.shape[axis],):
            raise ModelError(
                f"the rule of layer '{self.name}' ({type(self.layer).__name__}) is wrong",
                f"labels of shape {labels.shape} for axis {axis} of '{weight}', "
                f"whose shape is {tuple(variable.shape)}",
                "A rule binds one label to each position of the axis",
            )
        key = (self.name, number, axis)
        old = self._table.bindings.get(key)
        if old is not None:
            self.tie(old.labels, labels)
            return
        self._table.bindings[key] = Binding(self.name, number, weight, axis, labels, role)

    def size(self, key: str, labels: np.ndarray) -> None:
        """Says that config entry `key` is the number of these labels that stay."""
        self._table.sizes[(self.name, self._prefix + key)] = ("size", labels)

    def shape(self, key: str, labels: np.ndarray, shape: Sequence[int | None]) -> None:
        """Says that config entry `key` is this shape with each labelled axis counted anew."""
        dims = []
        for axis, dim in enumerate(shape):
            varies = labels.shape[axis] > 1
            dims.append(self.project(labels, axis, dim) if varies else dim)
        self.dims(key, dims)

    def dims(self, key: str, dims: list[Any]) -> None:
        """Says that config entry `key` is this list, with label arrays counted."""
        self._table.sizes[(self.name, self._prefix + key)] = ("shape", dims)

    def edit(self, path: Path, kind: str, value: Any) -> None:
        """Says how a parameter of this call (not of the layer's config) changes.

        Args:
            path: Where it stands.
            kind: "shape" (dims and labels), "sizes" or "indices" (a list of labels, counted or
                summed up), "slice" (labels before start and before stop), "compress" (axis and
                labels of an array constant).
            value: As the kind needs.
        """
        self._table.edits.setdefault(self.call.outputs[0], []).append((path, kind, value))

    def scale_root(self, weight: str, labels: np.ndarray) -> None:
        """Says that a weight is multiplied by sqrt(kept / all) of these labels."""
        variable: Any = self.layer
        for part in weight.split("."):
            variable = getattr(variable, part, None)
        for i, w in enumerate(self.call.layer.weights):
            if w is variable:
                self._table.scales[(self.name, i)] = labels

    def counts(self, labels: np.ndarray) -> None:
        """Says that the result depends on how many of these channels there are (norms, means)."""
        self._table.counting.append((labels, self.name))

    def join(self, parts: list[np.ndarray], dims: Sequence[int | None], axis: int) -> np.ndarray:
        """Labels of tensors concatenated along an axis.

        Args:
            parts: Label arrays.
            dims: Length of each tensor along the axis.
            axis: The axis, not negative.
        """
        if not any(axis in dependent_axes(p) or p.shape[axis] > 1 for p in parts):
            for other in parts[1:]:
                self.tie(parts[0], other)
            return max(parts, key=lambda p: p.size)
        if any(d is None for d in dims):
            for p in parts:
                self.block(p, "concatenates along a free dimension")
            return unlabelled(parts[0].ndim)
        wide = []
        for part, dim in zip(parts, dims, strict=True):
            target = list(part.shape)
            target[axis] = dim or 0
            wide.append(np.broadcast_to(part, target))
        others = [max(w.shape[a] for w in wide) for a in range(wide[0].ndim)]
        grown = [
            np.broadcast_to(w, [w.shape[a] if a == axis else others[a] for a in range(w.ndim)])
            for w in wide
        ]
        return np.concatenate(grown, axis)

    def reshaped(
        self,
        labels: np.ndarray,
        shape: Sequence[int | None],
        target: Sequence[int | None],
    ) -> np.ndarray:
        """Labels after a row-major reshape (batch axis kept).

        Where the labels would change along several axes of the result, they are tied over all but
        the last of these, so that what remains after a cut is again a full grid.
        """
        rank = len(target)
        if not dependent_axes(labels):
            self.block(labels, "reshapes it")
            return unlabelled(rank)
        if any(d is None for d in [*shape[1:], *target[1:]]):
            self.block(labels, "reshapes a free dimension")
            return unlabelled(rank)
        if prod(shape[1:]) != prod(target[1:]):  # type: ignore[arg-type]
            return self._batch_reshaped(labels, shape, target)
        full = np.broadcast_to(labels, (1, *shape[1:])).reshape((1, *target[1:]))  # type: ignore[arg-type]
        axes = dependent_axes(full)
        for axis in axes[:-1]:
            first = np.take(full, [0], axis=axis)
            self.tie(full, first)
            full = first
        return squeeze_axes(full)

    def _batch_reshaped(
        self, labels: np.ndarray, shape: Sequence[int | None], target: Sequence[int | None]
    ) -> np.ndarray:
        """A reshape that moves axes into or out of the batch but keeps the last one."""
        rank = len(target)
        if dependent_axes(labels) == [len(shape) - 1] and shape[-1] == target[-1]:
            return along(labels.reshape(-1), rank - 1, rank)
        self.block(labels, "reshapes it into the batch")
        return unlabelled(rank)


def channel_axis(layer: Any, rank: int) -> int:
    """The channel axis that the layer's data_format names."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1

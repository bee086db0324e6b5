"""What a pruning rule sees and says: one call, its labels, and the table of what they index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge.errors import ModelError
from tfedge.graph.labels import NEVER, Labels, dependent_axes, squeeze_axes
from tfedge.graph.trace import Call, Graph


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
    """All that the rules said about a graph."""

    labels: Labels = field(default_factory=Labels)
    bindings: dict[tuple[str, int, int], Binding] = field(default_factory=dict)
    sizes: dict[tuple[str, str], tuple] = field(default_factory=dict)
    counting: list[tuple[np.ndarray, str]] = field(default_factory=list)


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

    def __init__(self, table: Table, graph: Graph, call: Call, inputs: list[np.ndarray]) -> None:
        self._table = table
        self.call, self.layer, self.name = call, call.layer, call.name
        self.inputs = inputs
        self.in_shapes = [graph.tensors[i].shape for i in call.inputs]
        self.out_shapes = [graph.tensors[i].shape for i in call.outputs]

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
        number = next((i for i, w in enumerate(self.layer.weights) if w is variable), None)
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
        self._table.sizes[(self.name, key)] = ("size", labels)

    def shape(self, key: str, labels: np.ndarray, shape: Sequence[int | None]) -> None:
        """Says that config entry `key` is this shape with each labelled axis counted anew."""
        dims = []
        for axis, dim in enumerate(shape):
            varies = labels.shape[axis] > 1
            dims.append(self.project(labels, axis, dim) if varies else dim)
        self._table.sizes[(self.name, key)] = ("shape", dims)

    def counts(self, labels: np.ndarray) -> None:
        """Says that the result depends on how many of these channels there are (norms, means)."""
        self._table.counting.append((labels, self.name))


def channel_axis(layer: Any, rank: int) -> int:
    """The channel axis that the layer's data_format names."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1

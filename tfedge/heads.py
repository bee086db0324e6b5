"""What the outputs of a model are: their shapes, and the activation that made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfedge.errors import ModelError
from tfedge.graph.trace import functional_of, output_names

# Layers that change neither the values nor what they mean.
_PASSING = (
    "Dropout",
    "Flatten",
    "Permute",
    "QuantizeLayer",
    "Reshape",
    "SpatialDropout1D",
    "SpatialDropout2D",
)


@dataclass(frozen=True)
class Head:
    """One output of a model.

    Attributes:
        name: The output's name (that of the layer that makes it).
        shape: Axes, the batch first; None is free.
        activation: Name of the last activation: "softmax", "sigmoid", "linear", ...; "unknown"
            where the last layer says nothing about it (a Lambda, for example).
    """

    name: str
    shape: tuple[int | None, ...]
    activation: str

    @property
    def units(self) -> int | None:
        """Size of the last axis; 1 for outputs of shape [N]."""
        return self.shape[-1] if len(self.shape) > 1 else 1


def heads(model: Any) -> tuple[Head, ...]:
    """Reads the outputs of a functional or sequential model of either Keras.

    The last activation is found by walking back over layers that only reshape or drop, through
    nested models and through wrappers (those of pruning and quantization among them).

    Args:
        model: A built model, or one with the attribute `student` (a Distiller), which is read
            instead.

    Raises:
        ModelError: The model has no symbolic outputs (subclassed, or a Sequential never built).
    """
    model = getattr(model, "student", model)
    outputs = getattr(model, "outputs", None)
    if not outputs:
        raise ModelError(
            "the model's outputs are not known",
            f"a {type(model).__name__} without symbolic outputs",
            "Use a functional model, or a Sequential with an input shape",
        )
    return tuple(
        Head(str(name), tuple(tensor.shape), _activation(tensor))
        for name, tensor in zip(output_names(functional_of(model)), outputs, strict=True)
    )


def _activation(tensor: Any) -> str:
    """Name of the activation that made a symbolic tensor."""
    while True:
        layer, node_index, tensor_index = tensor._keras_history
        inner = layer
        while hasattr(inner, "layer") and not hasattr(inner, "outputs"):
            inner = inner.layer
        if getattr(inner, "outputs", None):  # a nested model
            return _activation(inner.outputs[tensor_index])
        name = _of_layer(inner)
        if name not in ("linear", "passing"):
            return name
        if name == "linear" and type(inner).__name__ != "Activation":
            return name
        node = layer._inbound_nodes[node_index]
        sources = node.input_tensors if hasattr(node, "arguments") else node.keras_inputs
        if len(sources) != 1:
            return "linear"
        tensor = sources[0]


def _of_layer(layer: Any) -> str:
    """Activation of one layer; "passing" where the one before it decides."""
    kind = type(layer).__name__
    if kind in _PASSING:
        return "passing"
    if not hasattr(layer, "trainable"):  # a Keras 3 operation, such as Softmax
        return kind.lower() if kind not in _PASSING else "passing"
    symbol = getattr(layer, "symbol", "") or ""
    if symbol:  # an operation on symbolic tensors, such as tf.nn.softmax
        return symbol.rpartition(".")[2]
    function = getattr(layer, "activation", None)
    if function is None:
        known = {"Softmax": "softmax", "ReLU": "relu", "Lambda": "unknown"}
        return known.get(kind, "linear")
    while hasattr(function, "activation"):  # tfmot's activation wrappers
        function = function.activation
    return getattr(function, "__name__", type(function).__name__).lower()

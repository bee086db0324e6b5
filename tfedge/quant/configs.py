"""How one layer is quantized in training: QuantizeConfig and wrapper on tfmot's.

What differs from tfmot's wrapper, and why: a frozen layer stays frozen; a wrapped layer gets its
own variables back after each call, so that it saves and reloads; a pooling layer's output is
rounded to its input's scale, as the kernel does.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, tf
from tfedge.errors import ModelError
from tfedge.graph.rewrite import activation_name
from tfedge.quant import _tfmot
from tfedge.quant.quantizers import (
    ActivationQuantizer,
    FileActivation,
    FixedQuantizer,
    WeightQuantizer,
    round_as_pooling,
)
from tfedge.quantized import CONCAT_SCOPE, export_bits

FILE_ACTIVATIONS = ("sigmoid", "softmax", "tanh", "swish")
"""Values of `LayerConfig.output` whose activation is computed as the file does."""


def _swap(layer: Any, name: str, value: Any) -> None:
    """Sets an attribute past Keras's tracking, which would drop and reorder the variables."""
    object.__setattr__(layer, name, value)


class LayerConfig(_tfmot.QuantizeConfig):
    """Says what is quantized in one layer.

    Args:
        kernels: Kernel attributes of the layer with their `WeightQuantizer` axis, for example
            {"kernel": "channel"}.
        before_activation: Quantize what enters the layer's activation function.
        output: "" (not quantized), "range" (by a range of its own), "sigmoid", "softmax" or "tanh"
            (by the range that TFLite prescribes), "swish" (by a range of its own, its sigmoid as
            prescribed) or "source" (by the range of what the layer reads: kernels that round, but
            keep their input's scale).
        activation_bits: 8 or 16.
        final: True where the output is the model's (see `FixedQuantizer`).
    """

    def __init__(
        self,
        kernels: dict[str, str] | None = None,
        before_activation: bool = False,
        output: str = "",
        activation_bits: int = 8,
        final: bool = False,
    ) -> None:
        self.kernels = dict(kernels or {})
        self.before_activation = before_activation
        self.output = output
        self.activation_bits = activation_bits
        self.final = final

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Kernels of the layer with their quantizers."""
        return [
            (getattr(layer, name), WeightQuantizer(axis)) for name, axis in self.kernels.items()
        ]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """The activation whose input is quantized, if any."""
        if not self.before_activation:
            return []
        function = FileActivation(layer.activation, self.activation_bits)
        return [(function, ActivationQuantizer(self.activation_bits))]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Lets the layer compute with the quantized kernels."""
        for name, value in zip(self.kernels, quantize_weights, strict=True):
            _swap(layer, name, value)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Lets the layer compute with the quantized activation."""
        for value in quantize_activations:
            _swap(layer, "activation", value)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """The output's quantizer, if any."""
        if self.output in ("range", "swish"):
            return [ActivationQuantizer(self.activation_bits)]
        if self.output in ("", "source"):
            return []
        return [FixedQuantizer(self.output, self.activation_bits, self.final)]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "kernels": self.kernels,
            "before_activation": self.before_activation,
            "output": self.output,
            "activation_bits": self.activation_bits,
            "final": self.final,
        }


class Untracked:
    """Holds a value that Keras must not track as the layer's own (another layer's variables)."""

    def __init__(self, value: Any) -> None:
        self.value = value


def source_quantizer(tensor: Any, required: bool = True) -> Any:
    """The quantizer, with its variables, that the values of a symbolic tensor went through last.

    Follows the tensor back through layers that quantize nothing.

    Args:
        tensor: A KerasTensor.
        required: Whether there must be one; else None may be returned.

    Raises:
        ModelError: Nothing quantizes the tensor, or two different quantizers do.
    """
    history = tensor._keras_history
    layer = history.layer
    if isinstance(layer, InputQuantizer):
        return layer.quantizer, layer.quantizer_vars
    if isinstance(layer, TfedgeQuantizeWrapper):
        if layer.quantize_config.output == "source":
            return layer._source.value
        if layer._output_quantizers:
            return layer._output_quantizers[0], layer._output_quantizer_vars
    before = layer._inbound_nodes[history.node_index].keras_inputs
    if len(before) != 1:
        if not required:
            return None
        raise ModelError(f"what '{layer.name}' gives has no quantizer", f"{len(before)} inputs")
    return source_quantizer(before[0], required)


def concatenation_stand_in(inputs: list[Any], axis: int) -> Any:
    """What stands for a concatenation in a 16-bit export (see `quantized.CONCAT_SCOPE`).

    Args:
        inputs: Tensors of static shape.
        axis: The axis to join.
    """
    axis = axis % len(inputs[0].shape)
    sizes = [int(x.shape[axis]) for x in inputs]
    result = None
    with tf.name_scope(CONCAT_SCOPE):
        for i, x in enumerate(inputs):
            widths = [[0, 0] for _ in x.shape]
            widths[axis] = [sum(sizes[:i]), sum(sizes[i + 1 :])]
            padded = tf.pad(x, widths)
            result = padded if result is None else tf.maximum(result, padded)
    return result


def _uncapped(layer: Any) -> dict[str, Any]:
    """Lets a limited relu export as a plain one: the range of its output ends at the limit.

    No op has a limit other than 6 (or 1), and the op with 6 takes no int16 when it stands alone.

    Returns:
        The attributes that were changed, as they were.
    """
    if type(layer) is keras.layers.ReLU and layer.max_value is not None:
        own = {"max_value": layer.max_value}
        _swap(layer, "max_value", None)
    elif type(layer) is keras.layers.Activation and activation_name(layer) == "relu6":
        own = {"activation": layer.activation}
        _swap(layer, "activation", tf.nn.relu)
    else:
        own = {}
    return own


class InputQuantizer(_tfmot.QuantizeLayer):
    """tfmot's layer that quantizes a model input, built once (see the wrapper's `build`)."""

    def build(self, input_shape: Any) -> None:
        """Adds the range."""
        if not hasattr(self, "quantizer_vars"):
            super().build(input_shape)


class TfedgeQuantizeWrapper(_tfmot.QuantizeWrapperV2):
    """tfmot's wrapper, mended: a frozen layer stays frozen, and the layer is itself after a call.

    tfmot leaves the fake-quantized tensors in the place of the layer's kernels (so that `.keras`
    files do not reload) and trains the kernels of a layer with `trainable=False`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source: Untracked | None = None

    def build(self, input_shape: Any) -> None:
        """Adds the ranges, once: loading a `.keras` file asks twice, and tfmot then adds twice."""
        if not hasattr(self, "_weight_vars"):
            super().build(input_shape)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; finds the quantizer of what it reads where it needs that."""
        if self.quantize_config.output == "source" and self._source is None:
            self._source = Untracked(source_quantizer(inputs))
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        """Runs the layer with quantized kernels and activation, then puts its own back."""
        config = self.quantize_config
        if export_bits() == 16 and isinstance(self.layer, keras.layers.Concatenate):
            outputs = concatenation_stand_in(list(inputs), self.layer.axis)
            return (
                self._output_quantizers[0](outputs, False, self._output_quantizer_vars)
                if self._output_quantizers
                else outputs
            )
        own = {name: getattr(self.layer, name) for name in config.kernels}
        if export_bits() and config.output == "range":
            own |= _uncapped(self.layer)
        if config.before_activation or config.output in FILE_ACTIVATIONS:
            own["activation"] = self.layer.activation
            function = FileActivation(self.layer.activation, config.activation_bits)
            _swap(self.layer, "activation", function)
        try:
            outputs = super().call(inputs, training=training, **kwargs)
        finally:
            for name, value in own.items():
                _swap(self.layer, name, value)
        if config.output == "source" and self._source is not None:
            return round_as_pooling(outputs, *self._source.value)
        return outputs

    @property
    def trainable_weights(self) -> list[Any]:
        """The layer's trainable weights; none where the layer is frozen."""
        return self._dedup_weights(list(self.layer.trainable_weights))

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The layer's other weights, then the ranges."""
        return self._dedup_weights(
            [*self.layer.non_trainable_weights, *self._non_trainable_weights]
        )

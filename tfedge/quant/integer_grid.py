"""What the ops of a file compute in and round to: the grids of their inputs and outputs.

In inference the simulation computes convolutions, dense layers, sums and means in whole codes, as
the file does (`integer_product`, `integer_sums`, `integer_fixed`): what float32 rounds otherwise
moves one value in 100,000 to the next code, and each such value moves others in the layers behind
it. Training does not need it and is spared the cost. Gradients, where somebody takes them in
inference, are those of the float computation.
"""

from __future__ import annotations

from typing import Any, Protocol

from tfedge._keras import keras, tf
from tfedge.quant.fake_quant import constant
from tfedge.quant.file_arithmetic import relu_of
from tfedge.quant.integer_ops import on_grid, range_step

Range = tuple[Any, dict]
"""A quantizer with its variables."""


class Integers(Protocol):
    """One layer computed in whole codes: `outputs(layer.call(inputs(values)))`."""

    def inputs(self, values: Any) -> Any:
        """What the layer is given in place of the values that it reads."""

    def outputs(self, sums: Any) -> Any:
        """What the layer gives, float32, before its activation."""


def quantizes(source: Range) -> bool:
    """Whether values behind a quantizer are on its grid at present."""
    quantizer = source[0]
    return not getattr(quantizer, "final", False) and bool(quantizer.phase.quantizing)


def target(wrapper: Any) -> Range | None:
    """What quantizes the output of a layer's op, which its batch norm and relu are a part of.

    Args:
        wrapper: The layer's quantize wrapper, in a built model.

    Returns:
        The quantizer and its variables; None where there is none.
    """
    if wrapper._quantize_activations:
        before = wrapper._quantize_activations[0].range
        return before if quantizes(before) else None
    reader, relu = wrapper, relu_of(wrapper.layer)
    while relu is not None or is_linear(inner(reader)):
        if getattr(reader, "_output_quantizers", None):
            found = reader._output_quantizers[0], reader._output_quantizer_vars
            return found if quantizes(found) else None
        ended, reader = relu is not None, only_reader(reader)
        if isinstance(inner(reader), keras.layers.Concatenate):
            found = joined(reader)
            return found if found is not None and quantizes(found) else None
        relu = relu_of(inner(reader))
        if ended or not (is_norm(reader) or (relu is not None and relu[0])):
            return None
    return None


def joined(layer: Any) -> Range | None:
    """What quantizes the output of an op that has one scale for all that it reads and gives.

    Args:
        layer: A concatenation, maximum or minimum, or the one layer before it, in a built model.

    Returns:
        The quantizer and its variables, those of a further concatenation where that dictates them;
        None where there is none.
    """
    reader = layer if isinstance(inner(layer), keras.layers.Concatenate) else only_reader(layer)
    while reader is not None:
        if getattr(reader, "_output_quantizers", None):
            return reader._output_quantizers[0], reader._output_quantizer_vars
        if hasattr(reader, "quantizer_vars"):
            return reader.quantizer, reader.quantizer_vars
        reader = only_reader(reader)
    return None


def only_reader(layer: Any) -> Any | None:
    """The layer that reads this one's output; None where there are none or several."""
    readers = {id(node.layer): node.layer for node in layer._outbound_nodes}
    return next(iter(readers.values())) if len(readers) == 1 else None


def inner(layer: Any) -> Any:
    """A wrapper's layer, or the layer itself."""
    return getattr(layer, "layer", layer)


def is_linear(layer: Any) -> bool:
    """Whether a layer ends without an activation function."""
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def is_norm(layer: Any) -> bool:
    """Whether a layer, or what it wraps, is a batch norm."""
    return isinstance(inner(layer), keras.layers.BatchNormalization)


def step(source: Range) -> Any:
    """The step between the codes of a range, float64: what the converter computes it in."""
    low, high = source[0].bounds(source[1])
    levels = constant(2.0 ** source[0].num_bits - 1.0, tf.float64)
    return range_step(tf.convert_to_tensor(low), tf.convert_to_tensor(high), levels)


def zero_point(source: Range) -> Any:
    """The code of 0, float32."""
    low = tf.cast(source[0].bounds(source[1])[0], tf.float64)
    least = -(2.0 ** (source[0].num_bits - 1))
    return tf.stop_gradient(narrow(tf.round(least - low / step(source))))


def snapped(values: Any, source: Range) -> Any:
    """The values on the grid of what quantizes them, but not clipped.

    Fake quantization of numbers from outside takes another code for one in 100,000.

    Args:
        values: float32, any shape.
        source: The quantizer, of any number of bits.
    """
    return on_grid(values, narrow(step(source)))


def narrow(values: Any) -> Any:
    """The values as float32."""
    return tf.cast(values, tf.float32)


def whole(values: Any) -> Any:
    """A few values rounded to even; the gradient passes straight through.

    Exact: a float and its nearest whole number differ by a float. For large tensors there are
    `integer_ops`.
    """
    return values + tf.stop_gradient(tf.round(values) - values)

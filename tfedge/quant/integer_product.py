"""Convolutions and dense layers in inference, computed in the integers of the file.

With s_x, s_w (per channel) and s_y the steps of input, kernel and output, and x, w, b whole codes
(x less its zero point, b of step s_x * s_w), TFLite's kernels compute

    acc = sum(x * w) + b,    y = round(acc * m),    m = s_x * s_w / s_y

(8-bit quantization specification of TFLite; XNNPACK's kernels take m in float32 and round to even).
The same product of the real values differs from that by float32's rounding, which moves one value
in 100,000 to the next code, and each such value moves others in the layers behind it. Whole numbers
below 2^24 are exact in float32, so that here the codes are the file's own. A sum may exceed that
only in layers of more than 518 inputs, where it then is as exact as a float is.

Training does not need it and is spared the cost. Gradients, where somebody takes them in inference,
are those of the float product.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, tf
from tfedge.quant.file_arithmetic import relu_of

_BITS = 8  # With 16-bit activations the sums are beyond float32's whole numbers.

Range = tuple[Any, dict]
"""A quantizer with its variables."""


class IntegerProduct:
    """What one wrapped layer computes before its activation.

    Args:
        wrapper: The quantize wrapper of a Conv2D, DepthwiseConv2D, Conv2DTranspose or Dense layer
            with channels last, in a built model.
        kernel: The kernel's variable, its `WeightQuantizer`, and that one's variables.
        source: Quantizer of the layer's input and its variables, 8 bits.
    """

    def __init__(self, wrapper: Any, kernel: tuple[Any, Any, dict], source: Range) -> None:
        variable, self._quantizer, ends = kernel
        target, norm = _target(wrapper), _norm_behind(wrapper)
        self._gain, self._shift = (None, None) if norm is None else _affine(norm)
        read = _step(source)
        step = folded = tf.stop_gradient(self._quantizer.scales(variable, ends))
        if self._gain is not None:
            folded = step * tf.abs(tf.cast(self._gain, tf.float64))
        self._read, self._weight = _narrow(read), _narrow(step)
        self._sum_step = self._read * _narrow(folded)
        self._bias = self._bias_codes(wrapper.layer, read * folded)
        self._output = None if target is None else _narrow(_step(target))

    def inputs(self, values: Any) -> Any:
        """Codes of the layer's input, less their zero point, as float32."""
        return _whole(values / self._read)

    def kernel(self, quantized: Any) -> Any:
        """Codes of the kernel as float32, in its own shape.

        Args:
            quantized: What the kernel's quantizer gives.
        """
        quantizer = self._quantizer
        found = _whole(quantizer.grouped(quantized) / self._weight)
        return quantizer.ungrouped(found, quantized)

    def outputs(self, sums: Any) -> Any:
        """What the layer gives, on the grid of what quantizes it where that is known.

        Where a batch norm comes between, it is undone here and so comes out whole behind it.

        Args:
            sums: What the layer gives for `inputs` and `kernel`, without a bias, float32.
        """
        whole = _whole(sums)
        if self._gain is not None:
            whole *= tf.sign(self._gain)
        whole += self._bias
        if self._output is None:
            result = whole * self._sum_step
        else:
            result = _whole(whole * (self._sum_step / self._output)) * self._output
        if self._gain is None:
            return result
        return tf.math.divide_no_nan(result - self._shift, self._gain)

    def _bias_codes(self, layer: Any, step: Any) -> Any:
        """Codes of the bias that the file has, float32, [channels] or 0."""
        bias = layer.bias if layer.use_bias else None
        if self._gain is not None:
            bias = self._shift if bias is None else self._shift + bias * self._gain
        if bias is None:
            return tf.constant(0.0)
        return _narrow(_whole(tf.math.divide_no_nan(tf.cast(bias, tf.float64), step)))


def integer_product(
    wrapper: Any, kernel: tuple[Any, Any, dict], source: Range | None
) -> IntegerProduct | None:
    """A wrapped layer in integers; None where its input has no known 8-bit range.

    Args:
        wrapper: As of `IntegerProduct`.
        kernel: As of `IntegerProduct`.
        source: Quantizer of the layer's input and its variables; None: not known.
    """
    if source is None or not _quantizes(source[0]):
        return None
    if getattr(wrapper.layer, "data_format", "channels_last") != "channels_last":
        return None
    return IntegerProduct(wrapper, kernel, source)


def _quantizes(quantizer: Any) -> bool:
    """Whether the values behind a quantizer are on a grid of 8 bits at present."""
    if quantizer.num_bits != _BITS or getattr(quantizer, "final", False):
        return False
    return bool(quantizer.phase.quantizing)


def _target(wrapper: Any) -> Range | None:
    """What quantizes the output of the file's op: with its batch norm and relu; None: not known."""
    if wrapper._quantize_activations:
        before = wrapper._quantize_activations[0]
        return before.range if _quantizes(before.quantizer) else None
    reader, relu = wrapper, relu_of(wrapper.layer)
    while relu is not None or _is_linear(_inner(reader)):
        found = getattr(reader, "_output_quantizers", None)
        if found:
            return (found[0], reader._output_quantizer_vars) if _quantizes(found[0]) else None
        reader = None if relu is not None else _only_reader(reader)
        relu = relu_of(_inner(reader))
        if not (_is_norm(reader) or (relu is not None and relu[0])):
            return None
    return None


def _norm_behind(wrapper: Any) -> Any | None:
    """The batch norm that the file folds into a wrapped layer."""
    reader = None if wrapper._output_quantizers else _only_reader(wrapper)
    return _inner(reader) if _is_norm(reader) and _is_linear(wrapper.layer) else None


def _only_reader(layer: Any) -> Any | None:
    """The layer that reads this one's output; None where there are none or several."""
    readers = {id(node.layer): node.layer for node in layer._outbound_nodes}
    return next(iter(readers.values())) if len(readers) == 1 else None


def _inner(layer: Any) -> Any:
    return getattr(layer, "layer", layer)


def _is_linear(layer: Any) -> bool:
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def _is_norm(layer: Any) -> bool:
    return isinstance(_inner(layer), keras.layers.BatchNormalization)


def _affine(norm: Any) -> tuple[Any, Any]:
    """Batch norm in inference as gain * x + shift, float32 [channels]."""
    gain = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    gain = gain if norm.gamma is None else gain * norm.gamma
    shift = -norm.moving_mean * gain
    shift = shift if norm.beta is None else shift + norm.beta
    return tf.stop_gradient(gain), tf.stop_gradient(shift)


def _step(source: Range) -> Any:
    """The step between the codes of a range, float64: what the converter computes it in."""
    low, high = (tf.cast(end, tf.float64) for end in source[0].bounds(source[1]))
    width = tf.where(high > low, high - low, 1.0)  # As `quantizers` exports an empty range.
    return tf.stop_gradient(width / (2.0**_BITS - 1.0))


def _narrow(values: Any) -> Any:
    return tf.cast(values, tf.float32)


def _whole(values: Any) -> Any:
    """Rounded to even; the gradient passes straight through.

    Exact: a float and its nearest whole number differ by a float.
    """
    return values + tf.stop_gradient(tf.round(values) - values)

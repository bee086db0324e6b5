"""Biases as the file holds them: whole multiples of the input's step times the kernel's.

TFLite stores the bias of a convolution or dense layer as int32 of scale s_x * s_w (per channel; the
8-bit quantization specification of TFLite). The rounding moves an output by up to half of that
scale, which is a small part of the output's own step, but without it one value in a thousand lands
on another code in each layer. Training does not need it and is spared the cost.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras, tf

_BITS = 8  # With 16-bit activations the bias has so fine a scale that rounding does not matter.


def rounding(
    wrapper: Any, kernel: tuple[Any, Any, dict], source: tuple[Any, dict] | None
) -> Any | None:
    """What rounding adds to what a layer gives before its activation.

    Args:
        wrapper: The quantize wrapper of a layer with a kernel.
        kernel: The kernel's variable, its `WeightQuantizer`, and that one's variables.
        source: Quantizer of the layer's input and its variables; None: not known.

    Returns:
        float32 [channels]; None where there is no bias, or nothing to round it to.
    """
    if source is None or source[0].num_bits != _BITS or not source[0].phase.quantizing:
        return None
    layer, norm = wrapper.layer, norm_behind(wrapper)
    bias = layer.bias if getattr(layer, "use_bias", False) else None
    if bias is None and norm is None:
        return None
    low, high = source[0].bounds(source[1])
    variable, quantizer, ends = kernel
    scale = (high - low) / (2.0**_BITS - 1.0) * quantizer.scales(variable, ends)
    if norm is None:
        return _to_codes(bias, scale)
    gain, shift = _affine(norm)
    whole = shift if bias is None else shift + bias * gain
    return tf.math.divide_no_nan(_to_codes(whole, scale * tf.abs(gain)), gain)


def _to_codes(bias: Any, scale: Any) -> Any:
    """The nearest multiple of the scale, less the bias; 0 where the scale is 0."""
    return tf.round(tf.math.divide_no_nan(bias, scale)) * scale - tf.where(scale > 0.0, bias, 0.0)


def _affine(norm: Any) -> tuple[Any, Any]:
    """Batch norm in inference as gain * x + shift."""
    gain = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    gain = gain if norm.gamma is None else gain * norm.gamma
    shift = -norm.moving_mean * gain
    return gain, shift if norm.beta is None else shift + norm.beta


def norm_behind(wrapper: Any) -> Any | None:
    """The batch norm that the file folds into a wrapped layer: its only reader."""
    readers = {id(node.layer): node.layer for node in wrapper._outbound_nodes}
    if len(readers) != 1:
        return None
    (reader,) = readers.values()
    inner = getattr(reader, "layer", reader)
    return inner if isinstance(inner, keras.layers.BatchNormalization) else None

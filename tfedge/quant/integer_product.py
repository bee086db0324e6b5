"""Convolutions and dense layers in inference, computed in the integers of the file.

With s_x, s_w (per channel) and s_y the steps of input, kernel and output, and x, w, b whole codes
(x less its zero point, b of step s_x * s_w), TFLite's kernels compute

    acc = sum(x * w) + b,    y = round(acc * m),    m = s_x * s_w / s_y

(8-bit quantization specification of TFLite). XNNPACK's kernels take m in float32 and round to even;
the others, of 16-bit activations and of convolutions with 4-bit kernels, take a fixed-point number
and round twice (`integer_grid.fixed_point`), those of 64-bit sums one of 16 bits (`reduced_point`).
Whole numbers below 2^24 are exact in float32, so that the codes are the file's own; codes of 16
bits go in as two halves. A sum can exceed that only in layers of more than 518 inputs (1,032 with
16 bits), where it is as exact as a float then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfedge._keras import keras, tf
from tfedge.quant.integer_grid import (
    Range,
    fixed_point,
    half_up,
    inner,
    is_linear,
    is_norm,
    narrow,
    only_reader,
    reduced_point,
    step,
    target,
    whole,
)

_HALF = 256.0
_COARSE = 2048.0


class IntegerProduct:
    """What one wrapped layer computes before its activation.

    Args:
        wrapper: The quantize wrapper of a Conv2D, DepthwiseConv2D, Conv2DTranspose or Dense layer
            with channels last, in a built model.
        kernel: The kernel's variable, its `WeightQuantizer`, and that one's variables.
        source: What quantizes the layer's input.
    """

    def __init__(self, wrapper: Any, kernel: tuple[Any, Any, dict], source: Range) -> None:
        variable, self._quantizer, ends = kernel
        norm, goal, read = _norm_behind(wrapper), target(wrapper), step(source)
        self._halved = source[0].num_bits == 16
        self._scale = _scaling(wrapper.layer, source[0].num_bits, self._quantizer.num_bits)
        self._kind = tf.float32 if self._scale is None else tf.float64
        self._gain, self._shift = (None, None) if norm is None else _affine(norm)
        weight = folded = tf.stop_gradient(self._quantizer.scales(variable, ends))
        if self._gain is not None:
            folded = weight * tf.abs(tf.cast(self._gain, tf.float64))
        self._read, self._weight = narrow(read), narrow(weight)
        self._folded = narrow(folded)
        self._sum_step = self._read * self._folded
        self._bias = self._bias_codes(wrapper.layer, read * folded)
        self._goal = None if goal is None else narrow(step(goal))

    def inputs(self, values: Any) -> Any:
        """Codes of the layer's input, less their zero point, as float32.

        Of 16 bits: the upper halves of all samples, then the lower ones.
        """
        codes = whole(values / self._read)
        if not self._halved:
            return codes
        upper = half_up(codes / _HALF)
        return tf.concat([upper, codes - _HALF * upper], 0)

    def kernel(self, quantized: Any) -> Any:
        """Codes of the kernel as float32, in its own shape.

        Args:
            quantized: What the kernel's quantizer gives.
        """
        codes = whole(self._quantizer.grouped(quantized) / self._weight)
        return self._quantizer.ungrouped(codes, quantized)

    def outputs(self, sums: Any) -> Any:
        """What the layer gives, on the grid of what quantizes it where that is known.

        Where a batch norm comes between, it is undone here and so comes out whole behind it.

        Args:
            sums: What the layer gives for `inputs` and `kernel`, without a bias, float32.
        """
        codes = tf.cast(whole(sums), self._kind)
        if self._halved:
            upper, lower = tf.split(codes, 2)
            codes = _HALF * upper + lower
        if self._gain is not None:
            codes *= tf.cast(tf.sign(self._gain), self._kind)
        for part in self._bias:
            codes += part
        result = self._scaled(codes)
        if self._gain is None:
            return result
        return tf.math.divide_no_nan(result - self._shift, self._gain)

    def _scaled(self, codes: Any) -> Any:
        """Sums in the steps of the output, float32."""
        if self._goal is None:
            return narrow(codes * tf.cast(self._sum_step, self._kind))
        if self._scale is None:
            return whole(codes * (self._sum_step / self._goal)) * self._goal
        read, weight = (tf.cast(x, tf.float64) for x in (self._read, self._folded))
        goal = tf.cast(self._goal, tf.float64)
        return narrow(self._scale(codes, read * weight / goal)) * self._goal

    def _bias_codes(self, layer: Any, bias_step: Any) -> list[Any]:
        """Codes of the bias that the file has, [channels], in parts that are added one by one.

        In float32 the last part has no digits where sums below 2^24 have theirs, so that a bias of
        more than that is rounded once, with the sum.
        """
        bias = layer.bias if layer.use_bias else None
        if self._gain is not None:
            bias = self._shift if bias is None else self._shift + bias * self._gain
        if bias is None:
            return []
        codes = whole(tf.math.divide_no_nan(tf.cast(bias, tf.float64), bias_step))
        if self._kind == tf.float64:
            return [codes]
        upper = _COARSE * tf.stop_gradient(tf.round(codes / _COARSE))
        return [narrow(codes - upper), narrow(upper)]


def _scaling(layer: Any, bits: int, weight_bits: int) -> Callable[[Any, Any], Any] | None:
    """How the layer's kernel multiplies whole sums by a factor; None: in float32, as XNNPACK.

    16 bits: as in a file for x86_64 whose sums all fit 32 bits. There a depthwise convolution is
    mostly written in others where a TRANSPOSE_CONV computes the same or it has several outputs a
    channel (`tflite.int16_costs`), and left alone elsewhere.
    """
    if bits == 8:
        four = weight_bits == 4 and type(layer) is keras.layers.Conv2D
        return fixed_point if four else None
    if not isinstance(layer, keras.layers.DepthwiseConv2D):
        return fixed_point
    odd = all(n % 2 for n in layer.kernel_size)
    steps = {*layer.strides, *layer.dilation_rate}
    rewritten = odd and steps == {1} and layer.padding == "same"
    return fixed_point if rewritten or layer.depth_multiplier > 1 else reduced_point


def _norm_behind(wrapper: Any) -> Any | None:
    """The batch norm that the file folds into a wrapped layer."""
    reader = None if wrapper._output_quantizers else only_reader(wrapper)
    return inner(reader) if is_norm(reader) and is_linear(wrapper.layer) else None


def _affine(norm: Any) -> tuple[Any, Any]:
    """Batch norm in inference as gain * x + shift, float32 [channels]."""
    gain = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    gain = gain if norm.gamma is None else gain * norm.gamma
    shift = -norm.moving_mean * gain
    shift = shift if norm.beta is None else shift + norm.beta
    return tf.stop_gradient(gain), tf.stop_gradient(shift)

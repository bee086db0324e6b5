"""Convolutions and dense layers in inference, computed in the integers of the file.

With s_x, s_w (per channel) and s_y the steps of input, kernel and output, and x, w, b whole codes
(x less its zero point, b of step s_x * s_w), TFLite's kernels compute

    acc = sum(x * w) + b,    y = round(acc * m),    m = s_x * s_w / s_y

(8-bit quantization specification of TFLite; XNNPACK's kernels take m in float32 and round to even).
Whole numbers below 2^24 are exact in float32, so that the codes are the file's own. A sum can
exceed that only in layers of more than 518 inputs, where it is as exact as a float then.
"""

from __future__ import annotations

from typing import Any

from tfedge._keras import tf
from tfedge.quant.integer_grid import (
    Range,
    inner,
    is_linear,
    is_norm,
    narrow,
    only_reader,
    step,
    target,
    whole,
)


class IntegerProduct:
    """What one wrapped layer computes before its activation.

    Args:
        wrapper: The quantize wrapper of a Conv2D, DepthwiseConv2D, Conv2DTranspose or Dense layer
            with channels last, in a built model.
        kernel: The kernel's variable, its `WeightQuantizer`, and that one's variables.
        source: What quantizes the layer's input, with 8 bits.
    """

    def __init__(self, wrapper: Any, kernel: tuple[Any, Any, dict], source: Range) -> None:
        variable, self._quantizer, ends = kernel
        norm, goal, read = _norm_behind(wrapper), target(wrapper), step(source)
        self._gain, self._shift = (None, None) if norm is None else _affine(norm)
        weight = folded = tf.stop_gradient(self._quantizer.scales(variable, ends))
        if self._gain is not None:
            folded = weight * tf.abs(tf.cast(self._gain, tf.float64))
        self._read, self._weight = narrow(read), narrow(weight)
        self._sum_step = self._read * narrow(folded)
        self._bias = self._bias_codes(wrapper.layer, read * folded)
        self._goal = None if goal is None else narrow(step(goal))

    def inputs(self, values: Any) -> Any:
        """Codes of the layer's input, less their zero point, as float32."""
        return whole(values / self._read)

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
        codes = whole(sums)
        if self._gain is not None:
            codes *= tf.sign(self._gain)
        codes += self._bias
        if self._goal is None:
            result = codes * self._sum_step
        else:
            result = whole(codes * (self._sum_step / self._goal)) * self._goal
        if self._gain is None:
            return result
        return tf.math.divide_no_nan(result - self._shift, self._gain)

    def _bias_codes(self, layer: Any, bias_step: Any) -> Any:
        """Codes of the bias that the file has, float32, [channels] or 0."""
        bias = layer.bias if layer.use_bias else None
        if self._gain is not None:
            bias = self._shift if bias is None else self._shift + bias * self._gain
        if bias is None:
            return tf.constant(0.0)
        return narrow(whole(tf.math.divide_no_nan(tf.cast(bias, tf.float64), bias_step)))


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

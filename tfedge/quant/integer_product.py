"""Convolutions and dense layers in inference, computed in the integers of the file.

With s_x, s_w (per channel) and s_y the steps of input, kernel and output, and x, w, b whole codes
(x less its zero point, b of step s_x * s_w), TFLite's kernels compute

    acc = sum(x * w) + b,    y = round(acc * m),    m = s_x * s_w / s_y

(8-bit quantization specification of TFLite). XNNPACK's kernels take m in float32 and round to even;
the others, of 16-bit activations and of convolutions with 4-bit kernels, take a fixed-point number
and round twice (`integer_ops.fixed_point`), those of 64-bit sums one of 16 bits (`reduced_point`).
Whole numbers below 2^24 are exact in float32, so that the codes are the file's own; codes of 16
bits go in as two halves. A sum can exceed that only in layers of more than 518 inputs (1,032 with
16 bits), where it is as exact as a float then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfedge._keras import keras, tf
from tfedge.quant import integer_ops as ops
from tfedge.quant.fake_quant import constant
from tfedge.quant.integer_grid import (
    Range,
    inner,
    is_linear,
    is_norm,
    only_reader,
    step,
    target,
)


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
        layer, goal, norm = wrapper.layer, target(wrapper), _norm_behind(wrapper)
        self._halved = source[0].num_bits == 16
        self._rescaled = _rescaling(layer, source[0].num_bits, self._quantizer.num_bits)
        self._has_goal, self._has_norm = goal is not None, norm is not None
        self._terms: ops.Terms = ops.product_terms(
            step(source),
            constant(1.0, tf.float64) if goal is None else step(goal),
            self._quantizer.largest_code(variable, ends),
            (constant(1.0), constant(0.0)) if norm is None else _affine(norm),
            tf.convert_to_tensor(layer.bias) if layer.use_bias else constant(0.0),
        )

    def inputs(self, values: Any) -> Any:
        """Codes of the layer's input, less their zero point, as float32 (16 bits: in halves)."""
        take = ops.halved_codes if self._halved else ops.codes
        return take(values, self._terms.read)

    def kernel(self, quantized: Any) -> Any:
        """Codes of the kernel that the file has as float32, in the layer's shape.

        Args:
            quantized: What the kernel's quantizer gives.
        """
        grouped = self._quantizer.grouped(quantized)
        codes = ops.kernel_codes(grouped, self._terms.weight, self._terms.sign)
        return self._quantizer.ungrouped(codes, quantized)

    def outputs(self, sums: Any) -> Any:
        """What the layer gives, on the grid of what quantizes it where that is known.

        Where a batch norm comes between, it is undone here and so comes out whole behind it.

        Args:
            sums: What the layer gives for `inputs` and `kernel`, without a bias, float32.
        """
        terms = self._terms
        if self._rescaled is not None and self._has_goal:
            result = self._rescaled(sums, terms.bias, terms.exact, terms.unit)
        elif self._halved:
            result = ops.real_halves(sums, terms.bias, terms.exact, terms.unit)
        else:
            compute = ops.scaled if self._has_goal else ops.real
            result = compute(sums, terms.parts, terms.factor, terms.unit)
        return ops.less(result, terms.offset) if self._has_norm else result


def _rescaling(layer: Any, bits: int, weight_bits: int) -> Callable[..., Any] | None:
    """How the layer's kernel multiplies whole sums by a factor; None: in float32, as XNNPACK.

    16 bits: as in a file for x86_64 whose sums all fit 32 bits. There a depthwise convolution is
    mostly written in others where a TRANSPOSE_CONV computes the same or it has several outputs a
    channel (`tflite.int16_costs`), and left alone elsewhere.
    """
    if bits == 8:
        four = weight_bits == 4 and type(layer) is keras.layers.Conv2D
        return ops.fixed if four else None
    if not isinstance(layer, keras.layers.DepthwiseConv2D):
        return ops.fixed_halves
    odd = all(n % 2 for n in layer.kernel_size)
    steps = {*layer.strides, *layer.dilation_rate}
    rewritten = odd and steps == {1} and layer.padding == "same"
    return ops.fixed_halves if rewritten or layer.depth_multiplier > 1 else ops.reduced_halves


def _norm_behind(wrapper: Any) -> Any | None:
    """The batch norm that the file folds into a wrapped layer."""
    reader = None if wrapper._output_quantizers else only_reader(wrapper)
    return inner(reader) if is_norm(reader) and is_linear(wrapper.layer) else None


def _affine(norm: Any) -> tuple[Any, Any]:
    """Batch norm in inference as gain * x + shift, float32 [channels]."""
    gamma = constant(1.0) if norm.gamma is None else tf.convert_to_tensor(norm.gamma)
    beta = constant(0.0) if norm.beta is None else tf.convert_to_tensor(norm.beta)
    statistics = (tf.convert_to_tensor(v) for v in (norm.moving_variance, norm.moving_mean))
    return ops.affine(*statistics, gamma, beta, constant(float(norm.epsilon)))

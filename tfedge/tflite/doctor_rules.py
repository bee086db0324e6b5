"""The conditions of XNNPACK: each a rule that says whether an op breaks it.

A rule's docstring is what the user is told: its first line stands in certificates, the rest tells
what to do. The conditions are those that XNNPACK's delegate documents and its source checks
(LiteRT 2.3, tflite/delegates/xnnpack: README.md and xnnpack_delegate.cc), each tried on this
runtime with a file of one op (tests/test_doctor.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge.tflite.flatbuffer import schema
from tfedge.tflite.op_view import OpView

FLOAT_OR_INT8 = frozenset(
    "ADD ASSIGN_VARIABLE BATCH_MATMUL CONCATENATION CONV_2D DEPTH_TO_SPACE DEPTHWISE_CONV_2D "
    "DEQUANTIZE ELU EXPAND_DIMS FULLY_CONNECTED LEAKY_RELU LOGISTIC MAX_POOL_2D MEAN MUL PAD "
    "QUANTIZE READ_VARIABLE REDUCE_MAX REDUCE_MIN RESHAPE RESIZE_BILINEAR SLICE SPACE_TO_DEPTH "
    "SPLIT STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV VAR_HANDLE".split()
)
"""Ops that XNNPACK has for float and for 8-bit tensors."""

FLOAT_ONLY = frozenset(
    "ABS AVERAGE_POOL_2D CEIL COS DENSIFY DIV EXP FLOOR GELU HARD_SWISH LOG MAXIMUM MINIMUM NEG "
    "PRELU RELU RELU6 RELU_N1_TO_1 ROUND RSQRT SIN SOFTMAX SQRT SQUARE SQUARED_DIFFERENCE".split()
)
"""Ops that XNNPACK has for float tensors only."""

_WEIGHTED = {
    "CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
}  # fmt: skip
_SHAPE_INPUT = {
    "RESHAPE": (1,), "PAD": (1,), "MEAN": (1,), "SUM": (1,), "REDUCE_MAX": (1,), "REDUCE_MIN": (1,),
    "TRANSPOSE": (1,), "EXPAND_DIMS": (1,), "RESIZE_BILINEAR": (1,), "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3), "SPLIT": (0,), "TRANSPOSE_CONV": (0,),
}  # fmt: skip
_MAX_RANK = 6
MAX_CONCAT = 5
_MAX_SPLIT = 4
_SCALE_RATIO = {"ADD": (2.0**-10, 2.0**8), "SUB": (2.0**-10, 2.0**8), "QUANTIZE": (2.0**-8, 2.0**7)}
_FUSED_REFUSED = (schema.ActivationFunctionType.TANH, schema.ActivationFunctionType.SIGN_BIT)


def int16_activations(op: OpView) -> bool:
    """int16 activations are never delegated.

    XNNPACK has no 16-bit kernels, so on a CPU a 16x8 file is slower than the float32 one. What it
    buys is precision (steps of 1/256 of an 8-bit one) and an integer-only file for NPUs and
    microcontrollers. For speed on a CPU take w8a8, or float32; if few layers need the precision,
    give 16 bits to those alone.
    """
    return "int16" in op.activations


def custom_op(op: OpView) -> bool:
    """It is a custom op, which no delegate knows.

    The file runs only where the application brings a kernel for it ("Flex" ops: TensorFlow's own).
    Convert with TFLite's builtin ops only; what this op computes must be written in those.
    """
    return op.custom


def control_flow(op: OpView) -> bool:
    """A loop or a branch stays with the runtime.

    Its body is a subgraph of its own that starts and ends in memory. Unroll a loop of fixed length.
    """
    return op.name in ("WHILE", "IF", "CALL_ONCE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE")


def no_such_op(op: OpView) -> bool:
    """XNNPACK has no such op.

    The runtime's own kernel computes it, and the delegate's partition is cut in two there: what
    crosses the cut is written to memory and packed again. Write it in ops that XNNPACK has.
    """
    return op.name not in FLOAT_OR_INT8 | FLOAT_ONLY


def float_only(op: OpView) -> bool:
    """XNNPACK has this op for floats only.

    In 8 bits the runtime's own kernel computes it. Choose a layer with an 8-bit kernel (ADD, MUL,
    LOGISTIC, TANH, LEAKY_RELU, MAX_POOL_2D, MEAN have one), or keep the layer float.
    """
    return op.name in FLOAT_ONLY and bool({"int8", "uint8"} & set(op.activations))


def shape_at_run_time(op: OpView) -> bool:
    """Its shape is known only at run time.

    The delegate plans its memory before the first run. Convert with a fixed batch and fixed sizes.
    """
    return any(not op.fixed(i) for i in _SHAPE_INPUT.get(op.name, ()))


def plain_integers(op: OpView) -> bool:
    """XNNPACK does not compute on integers that are no codes, nor on booleans or text.

    Index and mask arithmetic stays with the runtime. Compute it before the model where it does not
    depend on the input.
    """
    return bool({"int32", "int64", "uint32", "bool", "string"} & set(op.activations))


def dynamic_depthwise(op: OpView) -> bool:
    """dynamic-range depthwise convolution is not delegated.

    Float activations with 8-bit depthwise weights run in a slow kernel. Give these layers full
    integer (w8a8) or float weights.
    """
    dynamic = "float32" in op.activations and op.dtype(1) in ("int8", "int4")
    return op.name == "DEPTHWISE_CONV_2D" and dynamic


def moving_weights(op: OpView) -> bool:
    """Its weights or bias are not constant.

    XNNPACK packs weights once, before the first run. Fold what computes them into constants.
    """
    return any(not op.fixed(i) for i in _WEIGHTED.get(op.name, ()))


def no_bias(op: OpView) -> bool:
    """It has no bias.

    LiteRT 2.3 refuses a CONV_2D without one, and ends the process at a DEPTHWISE_CONV_2D. A bias of
    zeros changes nothing.
    """
    lacks = len(op.inputs) < 3 or op.inputs[2] is None
    return op.name in ("CONV_2D", "DEPTHWISE_CONV_2D") and lacks


def low_bit_weights(op: OpView) -> bool:
    """int4 or int2 weights are delegated for FULLY_CONNECTED only.

    Elsewhere they are unpacked at every run: the file is smaller, not faster. Take 8 bits.
    """
    return op.name != "FULLY_CONNECTED" and op.dtype(1) in ("int4", "int2")


def odd_int4(op: OpView) -> bool:
    """int4 weights need an even number of input channels.

    Make the layer before it one channel wider or narrower, or give this one 8 bits.
    """
    four = op.name == "FULLY_CONNECTED" and op.dtype(1) == "int4"
    return four and bool(int(op.inputs[1].shape[-1]) % 2)


def odd_int2(op: OpView) -> bool:
    """int2 weights need a multiple of 4 input channels.

    Round the layer before it to a multiple of 4 channels, or give this one 8 bits.
    """
    two = op.name == "FULLY_CONNECTED" and op.dtype(1) == "int2"
    return two and bool(int(op.inputs[1].shape[-1]) % 4)


def slice_of_axes(op: OpView) -> bool:
    """A strided slice that adds or drops axes is not delegated.

    Slice with the axis kept (x[:, 1:2]) and reshape.
    """
    o = op.options
    return op.name == "STRIDED_SLICE" and bool(o.ellipsisMask or o.newAxisMask or o.shrinkAxisMask)


def slice_with_steps(op: OpView) -> bool:
    """A strided slice with a stride other than 1 is not delegated.

    Pool or convolve with that stride instead, or bring the steps to an axis of their own by a
    reshape and slice that.
    """
    strides = op.value(3) if op.name == "STRIDED_SLICE" else None
    return strides is not None and bool(np.any(strides != 1))


def offset_matmul(op: OpView) -> bool:
    """The second factor's zero point is not 0.

    The 8-bit product of two activations wants the second one symmetric. Quantize it with zero
    point 0.
    """
    if op.name != "BATCH_MATMUL" or len(op.inputs) < 2 or "int8" not in op.activations:
        return False
    quantization = op.inputs[1].quantization
    points = None if quantization is None else quantization.zeroPoint
    return points is not None and len(points) > 0 and int(points[0]) != 0


def many_inputs(op: OpView) -> bool:
    """It joins more than 5 tensors.

    Join some of them first: in a tree of concatenations of at most 5 the elements are the same.
    """
    return op.name == "CONCATENATION" and len(op.inputs) > MAX_CONCAT


def many_outputs(op: OpView) -> bool:
    """It splits into fewer than 2 or more than 4.

    Split twice: into at most 4, and each part again.
    """
    return op.name == "SPLIT" and not 2 <= len(op.outputs) <= _MAX_SPLIT


def many_axes(op: OpView) -> bool:
    """It has more than 6 axes.

    Merge neighbouring axes by a reshape before it.
    """
    tensors = [t for t in (*op.inputs, *op.outputs) if t is not None]
    return any(t.shape is not None and len(t.shape) > _MAX_RANK for t in tensors)


def fused_tanh(op: OpView) -> bool:
    """A fused TANH or SIGN_BIT activation is not delegated.

    Let the activation be an op of its own.
    """
    return getattr(op.options, "fusedActivationFunction", 0) in _FUSED_REFUSED


def wide_stride(op: OpView) -> bool:
    """Pooling with a stride wider than its window is not delegated.

    Slice off what it skips first, or use a window as wide as the stride.
    """
    if op.name not in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        return False
    o = op.options
    return o.strideW > o.filterWidth or o.strideH > o.filterHeight


def scale_ratio(op: OpView) -> bool:
    """Its input and output scales are too far apart.

    ADD and SUB take quotients of 2^-10 to 2^8, QUANTIZE 2^-8 to 2^7. A range that is far too wide
    usually comes from one outlier in the calibration data.
    """
    limits = _SCALE_RATIO.get(op.name)
    out = _scale(op.outputs[0]) if op.outputs else None
    if limits is None or not out:
        return False
    scales = [s for s in (_scale(t) for t in op.inputs if t is not None) if s is not None]
    return any(not limits[0] <= s / out <= limits[1] for s in scales)


def leaky_range(op: OpView) -> bool:
    """Its slope or scales are outside LEAKY_RELU's range.

    The quotient of the scales must be 2^-8 to 128, and likewise times the slope.
    """
    ends = [_scale(t) for t in (*op.inputs, *op.outputs) if t is not None]
    if op.name != "LEAKY_RELU" or len(ends) != 2 or not ends[0] or not ends[1]:
        return False
    ratio = ends[0] / ends[1]
    slope = ratio * float(op.options.alpha)
    return not (2.0**-8 <= ratio <= 128 and 2.0**-8 <= abs(slope) <= 128)


def softmax_beta(op: OpView) -> bool:
    """A softmax with beta other than 1 is not delegated.

    Multiply its input by beta, or the layer before it.
    """
    return op.name == "SOFTMAX" and float(getattr(op.options, "beta", 1.0)) != 1.0


def _scale(tensor: Any) -> float | None:
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    return float(scales[0]) if scales is not None and len(scales) else None


RULES: dict[str, Callable[[OpView], bool]] = {
    "custom_op": custom_op,
    "control_flow": control_flow,
    "no_such_op": no_such_op,
    "int16_activations": int16_activations,
    "float_only": float_only,
    "shape_at_run_time": shape_at_run_time,
    "plain_integers": plain_integers,
    "dynamic_depthwise": dynamic_depthwise,
    "moving_weights": moving_weights,
    "no_bias": no_bias,
    "low_bit_weights": low_bit_weights,
    "odd_int4": odd_int4,
    "odd_int2": odd_int2,
    "slice_of_axes": slice_of_axes,
    "slice_with_steps": slice_with_steps,
    "offset_matmul": offset_matmul,
    "many_inputs": many_inputs,
    "many_outputs": many_outputs,
    "many_axes": many_axes,
    "fused_tanh": fused_tanh,
    "wide_stride": wide_stride,
    "scale_ratio": scale_ratio,
    "leaky_range": leaky_range,
    "softmax_beta": softmax_beta,
}
"""Rule by name, in the order of asking; the first that an op breaks explains it."""

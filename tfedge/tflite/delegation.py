"""Why XNNPACK leaves an op to the runtime's own kernels.

The delegate does not say; these are its conditions, as documented for it and as its source checks
them (LiteRT 2.3, tflite/delegates/xnnpack: README.md and xnnpack_delegate.cc). They explain what
the interpreter reports and never decide it. An op that none of them explains is called so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfedge.tflite import flatbuffer
from tfedge.tflite.flatbuffer import schema

UNKNOWN = "XNNPACK refused it (no rule known)"

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

_WEIGHTED = frozenset("CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED TRANSPOSE_CONV".split())
_SHAPE_INPUT = {
    "RESHAPE": (1,), "PAD": (1,), "MEAN": (1,), "SUM": (1,), "REDUCE_MAX": (1,), "REDUCE_MIN": (1,),
    "TRANSPOSE": (1,), "EXPAND_DIMS": (1,), "RESIZE_BILINEAR": (1,), "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3), "SPLIT": (0,), "TRANSPOSE_CONV": (0,),
}  # fmt: skip
_MAX_RANK = 6
_MAX_CONCAT = 5
_MAX_SPLIT = 4
_SCALE_RATIO = {"ADD": (2.0**-10, 2.0**8), "SUB": (2.0**-10, 2.0**8), "QUANTIZE": (2.0**-8, 2.0**7)}
_FUSED_REFUSED = (schema.ActivationFunctionType.TANH, schema.ActivationFunctionType.SIGN_BIT)


@dataclass(frozen=True)
class OpView:
    """One op with what the rules look at.

    Attributes:
        name: Builtin operator name.
        inputs: Input tensors; None where an optional one is absent.
        outputs: Output tensors.
        options: The op's builtin options, or None.
        static: For each input, True where it is absent or its value is fixed: constant data, or
            constants that a DEQUANTIZE or DENSIFY unpacks.
    """

    name: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    options: Any
    static: tuple[bool, ...]

    def fixed(self, position: int) -> bool:
        """True where an input is absent or its value is fixed."""
        return position >= len(self.static) or self.static[position]

    def dtype(self, position: int) -> str:
        """Dtype name of an input, or "" where it is absent."""
        tensor = self.inputs[position] if position < len(self.inputs) else None
        return "" if tensor is None else flatbuffer.tensor_dtype(tensor)

    @property
    def activations(self) -> list[str]:
        """Dtypes of the outputs and of the inputs that are not constant."""
        moving = [t for t, static in zip(self.inputs, self.static, strict=True) if not static]
        return [flatbuffer.tensor_dtype(t) for t in (*moving, *self.outputs)]


def _scale(tensor: Any) -> float | None:
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    return float(scales[0]) if scales is not None and len(scales) else None


def _bad_ratio(op: OpView) -> bool:
    limits = _SCALE_RATIO.get(op.name)
    out = _scale(op.outputs[0]) if op.outputs else None
    if limits is None or not out:
        return False
    scales = [s for s in (_scale(t) for t in op.inputs if t is not None) if s is not None]
    return any(not limits[0] <= s / out <= limits[1] for s in scales)


def _bad_leaky_slope(op: OpView) -> bool:
    ends = [_scale(t) for t in (*op.inputs, *op.outputs) if t is not None]
    if op.name != "LEAKY_RELU" or len(ends) != 2 or not ends[0] or not ends[1]:
        return False
    ratio = ends[0] / ends[1]
    slope = ratio * float(op.options.alpha)
    return not (2.0**-8 <= ratio <= 128 and 2.0**-8 <= abs(slope) <= 128)


def _bad_pool(op: OpView) -> bool:
    if op.name not in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        return False
    o = op.options
    return o.strideW > o.filterWidth or o.strideH > o.filterHeight


def _bad_slice(op: OpView) -> bool:
    o = op.options
    return op.name == "STRIDED_SLICE" and bool(o.ellipsisMask or o.newAxisMask or o.shrinkAxisMask)


def _offset_matmul(op: OpView) -> bool:
    """An 8-bit product of two activations whose second one has a zero point."""
    if op.name != "BATCH_MATMUL" or "int8" not in op.activations:
        return False
    quantization = op.inputs[1].quantization
    points = None if quantization is None else quantization.zeroPoint
    return points is not None and len(points) > 0 and int(points[0]) != 0


def _rank(tensor: Any) -> int:
    return 0 if tensor.shape is None else len(tensor.shape)


RULES: dict[str, Callable[[OpView], bool]] = {
    "int16 activations are never delegated": lambda op: "int16" in op.activations,
    "XNNPACK has no such op": lambda op: op.name not in FLOAT_OR_INT8 | FLOAT_ONLY,
    "XNNPACK has this op for floats only": lambda op: (
        op.name in FLOAT_ONLY and bool({"int8", "uint8"} & set(op.activations))
    ),
    "its shape is known only at run time": lambda op: any(
        not op.fixed(i) for i in _SHAPE_INPUT.get(op.name, ())
    ),
    "XNNPACK does not compute on integers that are no codes, nor on booleans or text": lambda op: (
        bool({"int32", "int64", "uint32", "bool", "string"} & set(op.activations))
    ),
    "dynamic-range depthwise convolution is not delegated": lambda op: (
        op.name == "DEPTHWISE_CONV_2D"
        and "float32" in op.activations
        and op.dtype(1) in ("int8", "int4")
    ),
    "its weights or bias are not constant": lambda op: (
        op.name in _WEIGHTED and not (op.fixed(1) and op.fixed(2))
    ),
    "it has no bias": lambda op: (
        op.name in ("CONV_2D", "DEPTHWISE_CONV_2D") and (len(op.inputs) < 3 or op.inputs[2] is None)
    ),
    "int4 or int2 weights are delegated for FULLY_CONNECTED only": lambda op: (
        op.name != "FULLY_CONNECTED" and op.dtype(1) in ("int4", "int2")
    ),
    "int4 weights need an even number of input channels": lambda op: (
        op.name == "FULLY_CONNECTED"
        and op.dtype(1) == "int4"
        and bool(int(op.inputs[1].shape[-1]) % 2)
    ),
    "int2 weights need a multiple of 4 input channels": lambda op: (
        op.name == "FULLY_CONNECTED"
        and op.dtype(1) == "int2"
        and bool(int(op.inputs[1].shape[-1]) % 4)
    ),
    "a strided slice that adds or drops axes is not delegated": _bad_slice,
    "the second factor's zero point is not 0": _offset_matmul,
    f"it joins more than {_MAX_CONCAT} tensors": lambda op: (
        op.name == "CONCATENATION" and len(op.inputs) > _MAX_CONCAT
    ),
    f"it splits into fewer than 2 or more than {_MAX_SPLIT}": lambda op: (
        op.name == "SPLIT" and not 2 <= len(op.outputs) <= _MAX_SPLIT
    ),
    f"it has more than {_MAX_RANK} axes": lambda op: any(
        _rank(t) > _MAX_RANK for t in (*op.inputs, *op.outputs) if t is not None
    ),
    "a fused TANH or SIGN_BIT activation is not delegated": lambda op: (
        getattr(op.options, "fusedActivationFunction", 0) in _FUSED_REFUSED
    ),
    "pooling with a stride wider than its window is not delegated": _bad_pool,
    "its input and output scales are too far apart": _bad_ratio,
    "its slope or scales are outside LEAKY_RELU's range": _bad_leaky_slope,
    "a softmax with beta other than 1 is not delegated": lambda op: (
        op.name == "SOFTMAX" and float(getattr(op.options, "beta", 1.0)) != 1.0
    ),
}
"""Reason -> condition; the first that holds explains the op."""


def why_not(op: OpView) -> str:
    """The reason why XNNPACK leaves an op out, or `UNKNOWN`."""
    return next((reason for reason, holds in RULES.items() if holds(op)), UNKNOWN)


def views(model: Any) -> Iterator[OpView]:
    """Gathers what the rules look at, for the main subgraph's ops in execution order.

    Args:
        model: What `flatbuffer.read` gave.
    """
    graph = model.subgraphs[0]
    fixed = {-1}
    for t, tensor in enumerate(graph.tensors):
        raw = model.buffers[tensor.buffer].data
        if raw is not None and len(raw):
            fixed.add(t)
    for op in graph.operators or []:
        found = _view(model, graph, op, fixed)
        if found.name in ("DEQUANTIZE", "DENSIFY") and all(found.static):
            fixed.update(int(t) for t in op.outputs)
        yield found


def _view(model: Any, graph: Any, op: Any, fixed: set[int]) -> OpView:
    return OpView(
        name=flatbuffer.op_name(model, op),
        inputs=tuple(graph.tensors[int(t)] if t >= 0 else None for t in op.inputs),
        outputs=tuple(graph.tensors[int(t)] for t in op.outputs if t >= 0),
        options=op.builtinOptions,
        static=tuple(int(t) in fixed for t in op.inputs),
    )

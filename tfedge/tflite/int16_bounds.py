"""How large the codes and sums of a 16-bit file can become, from the file alone.

Ranges are closed intervals of codes. A tensor that nothing is known of has all of int16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.tflite.flatbuffer import op_name, schema, tensor_data, tensor_dtype

Range = tuple[int, int]

_BLOCK = 64
"""Channels looked at together: bounds the memory that wide integers need."""

LOWEST, HIGHEST = -32768, 32767
WHOLE: Range = (LOWEST, HIGHEST)

_MOVED = frozenset(
    "BATCH_TO_SPACE_ND BROADCAST_TO DEPTH_TO_SPACE EXPAND_DIMS GATHER GATHER_ND RESHAPE "
    "RESIZE_NEAREST_NEIGHBOR REVERSE_V2 SLICE SPACE_TO_DEPTH SPLIT SPLIT_V SQUEEZE STRIDED_SLICE "
    "TILE TRANSPOSE UNPACK".split()
)
"""Ops whose output holds codes of their data input only."""

_WITH_ZERO = frozenset("MIRROR_PAD PAD SPACE_TO_BATCH_ND".split())
"""Ops whose output holds codes of their first input, and zeros."""

_BETWEEN = frozenset(
    "AVERAGE_POOL_2D MAX_POOL_2D MEAN QUANTIZE REDUCE_MAX REDUCE_MIN RESIZE_BILINEAR".split()
)
"""Ops whose output lies, in real values, within the range of their first input."""

_ONE_OF_ALL = frozenset("CONCATENATION MAXIMUM MINIMUM PACK".split())
"""Ops whose output lies, in real values, within the ranges of their inputs together."""

_NEVER_NEGATIVE = frozenset(
    "ABS EXP LOGISTIC RELU RELU6 RELU_0_TO_1 RSQRT SOFTMAX SQRT SQUARE SQUARED_DIFFERENCE".split()
)
"""Ops whose output is at least 0."""

_SIGN_KEPT = frozenset("ADD LEAKY_RELU MUL PRELU SUM".split())
"""Ops whose output is at least 0 where all their inputs are."""

_CLAMPING = frozenset(
    "ADD AVERAGE_POOL_2D CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED MAX_POOL_2D MUL SUB "
    "TRANSPOSE_CONV".split()
)
"""Ops whose 16-bit kernels clamp to their fused activation's range."""

_LIMITS = {
    schema.ActivationFunctionType.RELU: (0.0, math.inf),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
}
_OP_LIMITS = {"RELU6": (0.0, 6.0), "RELU_0_TO_1": (0.0, 1.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def code_ranges(model: schema.ModelT, graph: schema.SubGraphT) -> dict[int, Range]:
    """Bounds the codes of every int16 tensor of a subgraph, by the ops that make them.

    Args:
        model: The file.
        graph: One of its subgraphs; nothing is taken for known of its inputs.

    Returns:
        (lowest, highest) code by tensor number, for int16 tensors that an op makes or that are
        constant.
    """
    found: dict[int, Range] = {}
    for index, tensor in enumerate(graph.tensors or []):
        if tensor_dtype(tensor) == "int16":
            values = tensor_data(model, tensor)
            if values is not None and values.size:
                found[index] = int(values.min()), int(values.max())
    for op in graph.operators or []:
        for output in [int(i) for i in op.outputs if i >= 0]:
            if tensor_dtype(graph.tensors[output]) == "int16":
                found[output] = _of(_Op(op_name(model, op), op, graph, output), found)
    return found


@dataclass(frozen=True)
class _Op:
    name: str
    op: Any
    graph: Any
    output: int

    def inputs(self, known: Mapping[int, Range]) -> Iterator[Range]:
        """The ranges of the data inputs (not of sizes and axes), in codes of the output."""
        for index in [int(i) for i in self.op.inputs if i >= 0]:
            dtype = tensor_dtype(self.graph.tensors[index])
            ratio = self._ratio(index) if dtype == "int16" else None
            if ratio is not None:
                yield _scaled(known.get(index, WHOLE), ratio)
            elif dtype not in ("int32", "int64"):
                yield WHOLE

    def _ratio(self, index: int) -> float | None:
        ends = [scale_of(self.graph.tensors[i]) for i in (index, self.output)]
        return None if ends[0] is None or not ends[1] else ends[0] / ends[1]


def scale_of(tensor: Any) -> float | None:
    """A tensor's one scale; None where it has none, several, or a zero point."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return None
    points = quantization.zeroPoint
    if points is not None and len(points) and int(points[0]) != 0:
        return None
    return float(quantization.scale[0])


def _scaled(codes: Range, ratio: float) -> Range:
    """Codes of another scale; a step is added at each end that is not 0, for rounding."""
    if ratio == 1.0:
        return codes
    low, high = codes[0] * ratio, codes[1] * ratio
    return _inside(
        (
            0 if low >= 0 else math.floor(max(low, LOWEST)) - 1,
            0 if high <= 0 else math.ceil(min(high, HIGHEST)) + 1,
        )
    )


def _inside(codes: Range) -> Range:
    low, high = (min(max(c, LOWEST), HIGHEST) for c in codes)
    return low, high


def _hull(ranges: Sequence[Range]) -> Range:
    return min(r[0] for r in ranges), max(r[1] for r in ranges)


def _of(op: _Op, known: Mapping[int, Range]) -> Range:
    """The range of an op's output, with what its activation leaves of it."""
    low, high = _unclamped(op, known)
    options = op.op.builtinOptions
    kind = int(getattr(options, "fusedActivationFunction", 0) or 0)
    limits = _LIMITS.get(kind) if op.name in _CLAMPING else _OP_LIMITS.get(op.name)
    scale = scale_of(op.graph.tensors[op.output])
    if limits is None or not scale:
        return low, high
    # A step of slack: how a kernel rounds the limit is its own affair.
    if limits[0] > -math.inf:
        low = max(low, math.floor(limits[0] / scale) - (limits[0] != 0))
    if limits[1] < math.inf:
        high = min(high, math.ceil(limits[1] / scale) + 1)
    return _inside((low, max(low, high)))


def _unclamped(op: _Op, known: Mapping[int, Range]) -> Range:
    ranges = list(op.inputs(known))
    if op.name in _NEVER_NEGATIVE:
        return 0, HIGHEST
    if not ranges:
        return WHOLE
    rule = _RULES.get(op.name)
    return WHOLE if rule is None else rule(ranges)


def _same_sign(ranges: Sequence[Range]) -> Range:
    return (0, HIGHEST) if all(low >= 0 for low, _ in ranges) else WHOLE


_RULES: dict[str, Callable[[Sequence[Range]], Range]] = {
    **dict.fromkeys(_MOVED | _BETWEEN, lambda ranges: ranges[0]),
    **dict.fromkeys(_WITH_ZERO, lambda ranges: _hull([ranges[0], (0, 0)])),
    **dict.fromkeys(_ONE_OF_ALL, _hull),
    **dict.fromkeys(_SIGN_KEPT, _same_sign),
}


def largest_sums(
    weights: np.ndarray, low: np.ndarray, high: np.ndarray, bias: np.ndarray | None
) -> np.ndarray:
    """Bounds every partial sum of products with codes in given ranges, in whatever order.

    A partial sum takes some of the products, perhaps the bias. It is at most the sum of all that
    can be positive, and at least the sum of all that can be negative:
    max(sum max(w*x, 0) + max(b, 0), -sum min(w*x, 0) - min(b, 0)) over x in [low, high].

    Args:
        weights: Integer codes [channels, positions, inputs].
        low: Lowest code of each input, [inputs] or [1]; taken as at most 0 (padding).
        high: Highest code, likewise; taken as at least 0.
        bias: Codes [channels], or None.

    Returns:
        int64 [channels].
    """
    low = np.minimum(np.asarray(low, np.int64), 0)
    high = np.maximum(np.asarray(high, np.int64), 0)
    bounds = [
        _bounds(weights[start : start + _BLOCK], low, high)
        for start in range(0, len(weights), _BLOCK)
    ]
    up, down = np.concatenate(bounds, axis=1)
    if bias is not None:
        up = up + np.maximum(bias.astype(np.int64), 0)
        down = down + np.maximum(-bias.astype(np.int64), 0)
    return np.maximum(up, down)


def _bounds(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What sums of products can reach upwards and downwards, int64 [2, channels]."""
    positive = np.maximum(weights, 0).sum(1, dtype=np.int64)
    negative = np.minimum(weights, 0).sum(1, dtype=np.int64)
    up = (positive * high + negative * low).sum(1)
    down = -(negative * high + positive * low).sum(1)
    return np.stack([up, down])

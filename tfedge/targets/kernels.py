"""Which op of a file each of XNNPACK's kernels computes, by their names and order.

XNNPACK runs what the file has, in its order, leaves some out (a reshape) and puts some in (a
conversion); its profile has names of its own and no places in the file.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfedge.targets.op_table import OpRow, OpTable
from tfedge.tflite import flatbuffer
from tfedge.tflite.layers import op_layers
from tfedge.tflite.op_times import OpTimes

MICROSECONDS = "us"
_ABOUT = (
    "Means of the quickest quarter of the runs, one thread, under the runtime's profiler, which "
    "takes time itself. An op without a place was folded into others; a row without an op is "
    "XNNPACK's own."
)
_ALONE = "Ops inside XNNPACK were not timed."

_NAMES: dict[str, tuple[str, ...]] = {
    "AVERAGE_POOL_2D": ("averagepooling", "globalaverage", "mean"),
    "BATCH_MATMUL": ("batchmatrixmultiply",),
    "CONCATENATION": ("concatenate", "copy"),
    "CONV_2D": ("convolution", "fullyconnected"),
    "DEPTHWISE_CONV_2D": ("convolution",),
    "DEQUANTIZE": ("convert",),
    "EXPAND_DIMS": ("staticreshape", "copy"),
    "FULLY_CONNECTED": ("fullyconnected", "dynamicfullyconnected"),
    "HARD_SWISH": ("hardswish",),
    "LOGISTIC": ("sigmoid",),
    "MAX_POOL_2D": ("maxpooling",),
    "MUL": ("multiply",),
    "NEG": ("negate",),
    "PAD": ("constantpad",),
    "PADV2": ("constantpad",),
    "POW": ("power",),
    "QUANTIZE": ("convert",),
    "RELU": ("clamp", "relu"),
    "RELU6": ("clamp",),
    "RESHAPE": ("staticreshape", "copy"),
    "RSQRT": ("reciprocalsquareroot",),
    "SLICE": ("slice",),
    "SPLIT": ("slice", "copy"),
    "SQRT": ("squareroot",),
    "SQUEEZE": ("staticreshape", "copy"),
    "STRIDED_SLICE": ("slice", "stridedslice"),
    "SUB": ("subtract",),
    "TRANSPOSE_CONV": ("deconvolution",),
}
"""Beginnings of XNNPACK's names, letters only; an op that is not here has its own name there."""

_TABLE = "invalidunaryop"
_BY_TABLE = frozenset(
    ("ABS", "COS", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "RSQRT")
    + ("SIN", "SQRT", "SQUARE", "TANH")
)
"""Functions that XNNPACK looks up in a table for 8-bit codes; it has no name for that kernel."""


def align(ops: Sequence[str], kernels: Sequence[str]) -> list[int | None]:
    """The op that each of XNNPACK's kernels computes: the most pairs that keep both orders.

    Args:
        ops: Builtin operator names, in order.
        kernels: XNNPACK's names, in order.

    Returns:
        For each kernel a position in `ops`, or None where it is XNNPACK's own.
    """
    n, m = len(ops), len(kernels)
    best = [[0] * (m + 1) for _ in range(n + 1)]
    same = [[_same(op, kernel) for kernel in kernels] for op in ops]
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            both = best[i + 1][j + 1] + 1 if same[i][j] else 0
            best[i][j] = max(both, best[i + 1][j], best[i][j + 1])
    places: list[int | None] = [None] * m
    i = j = 0
    while i < n and j < m:
        if same[i][j] and best[i][j] == best[i + 1][j + 1] + 1:
            places[j] = i
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return places


def _same(op: str, kernel: str) -> bool:
    letters = "".join(c for c in kernel.partition("(")[0].lower() if c.isalpha())
    begins = _NAMES.get(op, (op.replace("_", "").lower(),))
    return letters.startswith(begins) or (op in _BY_TABLE and letters.startswith(_TABLE))


def timed_ops(target: str, data: bytes, times: OpTimes) -> OpTable:
    """Measured times as a table: the file's ops in order, then what only XNNPACK has.

    Args:
        target: Name of the target.
        data: The whole file.
        times: What a profile of it gave.

    Raises:
        InputError: It is no TFLite file.
    """
    model = flatbuffer.read(data)
    names = [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators or []]
    layers = op_layers(model, flatbuffer.get_metadata(data).get("layers", ()))
    own = [i for i in range(len(names)) if i not in times.ops]
    places = align([names[i] for i in own], [name for name, _ in times.kernels])
    inside: dict[int, tuple[str, float]] = {}
    rest: list[OpRow] = []
    for (kernel, us), place in zip(times.kernels, places, strict=True):
        if place is None:
            rest.append(OpRow(None, "", "", "XNNPACK", (round(us, 2),), kernel))
        else:
            inside[own[place]] = (kernel, us)
    rows = []
    for i, (name, layer) in enumerate(zip(names, layers, strict=True)):
        if i in times.ops:
            rows.append(OpRow(i, name, layer, "LiteRT", (round(times.ops[i], 2),)))
        else:
            kernel, us = inside.get(i, ("", 0.0))
            rows.append(OpRow(i, name, layer, "XNNPACK" if kernel else "", (round(us, 2),), kernel))
    notes = (_ABOUT, times.note) if times.kernels or not times.note else (times.note, _ALONE)
    return OpTable(target, "measured", (MICROSECONDS,), (*rows, *rest), MICROSECONDS,
                   notes=tuple(n for n in notes if n))  # fmt: skip

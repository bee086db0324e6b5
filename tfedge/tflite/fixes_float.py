"""The rewrite that a full-integer file pays for: 8-bit ops without a kernel, computed in float."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.tflite.delegation import broken_rule, views
from tfedge.tflite.editing import Editor, Only

_EIGHT = ("int8", "uint8")
_DOMAIN = ("LOG", "RSQRT", "SQRT")  # Codes below zero are errors there: nothing to prove it on.


def float_islands(model: Any, only: Only = None) -> int:
    """An 8-bit op that XNNPACK has for floats only is computed in float.

    Its inputs are unpacked, its output is packed again: within one step, because the float result
    is rounded once. The file is no longer integer only: NPUs and microcontrollers will not take it,
    which is why this is done on request only.
    """
    refused = [broken_rule(view) in ("float_only", "offset_matmul") for view in views(model)]
    edit, count = Editor(model, only), 0
    wanted = {id(op) for op, no in zip(edit.ops, refused, strict=True) if no}
    for op in edit.candidates:
        if id(op) in wanted and edit.name(op) not in _DOMAIN and _packed(edit, op):
            edit.replace(op, _island(edit, op))
            count += 1
    return count


def _packed(edit: Editor, op: Any) -> bool:
    """True where all 8-bit ends have one scale and shapes are known."""
    ends = [int(t) for t in (*op.inputs, *op.outputs) if t >= 0]
    eight = [t for t in ends if edit.dtype(t) in _EIGHT]
    known = all(edit.quantization(t) is not None and edit.shape(t) is not None for t in eight)
    return known and len(op.outputs) == 1 and int(op.outputs[0]) in eight


def _island(edit: Editor, op: Any) -> list[Any]:
    unpack: dict[int, Any] = {}
    floats: dict[int, int] = {}
    for t in dict.fromkeys(int(t) for t in op.inputs if t >= 0 and edit.dtype(int(t)) in _EIGHT):
        values, quant = edit.constant(t), edit.quantization(t)
        if values is not None and quant is not None:
            real = (values.astype(np.float64) - quant[1]) * quant[0]
            floats[t] = edit.add_constant(real.astype(np.float32), "real")
        else:
            floats[t] = edit.add_float(t)
            unpack[t] = edit.op("DEQUANTIZE", [t], [floats[t]])
    out = int(op.outputs[0])
    real_out = edit.add_float(out)
    op.inputs = np.array([floats.get(int(t), int(t)) for t in op.inputs], np.int32)
    op.outputs = np.array([real_out], np.int32)
    return [*unpack.values(), op, edit.op("QUANTIZE", [real_out], [out])]

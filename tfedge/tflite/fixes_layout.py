"""Rewrites that move elements and compute nothing: resizes, concatenations, padding, slices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.tflite.doctor_rules import MAX_CONCAT
from tfedge.tflite.editing import NONE, Editor, Only
from tfedge.tflite.flatbuffer import schema

_MAX_SPLIT = 4
_MAX_FACTOR = 4
_EIGHT = ("int8", "uint8")


def nearest_resize(model: Any, only: Only = None) -> int:
    """RESIZE_NEAREST_NEIGHBOR by a whole factor is written as concatenations of its input.

    Joining [N, H, W, C] with itself along C and reading it as [N, H, 2W, C] repeats each column;
    rows likewise. The elements are copies, so the result is the same. Factors 2 to 4, corners not
    aligned.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) != "RESIZE_NEAREST_NEIGHBOR":
            continue
        x, y = int(op.inputs[0]), int(op.outputs[0])
        shape, out = edit.shape(x), edit.shape(y)
        if shape is None or out is None or len(shape) != 4 or not all(shape):
            continue
        exact = edit.same_codes(x, y) and not op.builtinOptions.alignCorners
        factors = (out[1] // shape[1], out[2] // shape[2])
        whole = (shape[1] * factors[0], shape[2] * factors[1]) == out[1:3]
        if exact and whole and 1 < max(factors) <= _MAX_FACTOR and edit.dtype(x) in _MOVABLE:
            edit.replace(op, _repeat(edit, x, y, factors))
            count += 1
    return count


def _repeat(edit: Editor, x: int, y: int, factors: tuple[int, int]) -> list[Any]:
    n, h, w, c = edit.shape(x) or ()
    rows, columns = factors
    wide = edit.add_tensor(x, (n, h, w, columns * c), "columns")
    lines = edit.add_tensor(x, (n, h, 1, w * columns * c), "lines")
    tall = edit.add_tensor(x, (n, h, 1, rows * w * columns * c), "rows")
    return [
        _concat(edit, [x] * columns, wide, 3),
        reshape(edit, wide, lines),
        _concat(edit, [lines] * rows, tall, 3),
        reshape(edit, tall, y),
    ]


def reshape(edit: Editor, x: int, y: int) -> Any:
    """A RESHAPE to the shape of `y`."""
    shape = [int(d) for d in edit.tensor(y).shape]
    op = edit.op("RESHAPE", [x, edit.add_constant(np.array(shape, np.int32), "shape")], [y])
    op.builtinOptions.newShape = shape
    return op


def _concat(edit: Editor, inputs: list[int], output: int, axis: int) -> Any:
    op = edit.op("CONCATENATION", inputs, [output])
    op.builtinOptions.axis = axis
    return op


def wide_concat(model: Any, only: Only = None) -> int:
    """A CONCATENATION of more than XNNPACK takes (5) becomes a tree of at most 5 each.

    All inputs must have the output's scale and zero point, so that elements are copied as they are.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) != "CONCATENATION" or len(op.inputs) <= MAX_CONCAT:
            continue
        inputs, y = [int(t) for t in op.inputs], int(op.outputs[0])
        known = all(edit.shape(t) for t in (*inputs, y)) and edit.dtype(y) in _MOVABLE
        if known and edit.fused(op) == NONE and all(edit.same_codes(t, y) for t in inputs):
            edit.replace(op, _tree(edit, inputs, y, int(op.builtinOptions.axis)))
            count += 1
    return count


def _tree(edit: Editor, inputs: list[int], y: int, axis: int) -> list[Any]:
    """Joins neighbours until few enough are left; the smallest, because parts are copied twice."""
    ops: list[Any] = []
    inputs = list(inputs)
    while len(inputs) > MAX_CONCAT:
        width = min(MAX_CONCAT, len(inputs) - MAX_CONCAT + 1)
        sizes = [int(np.prod(edit.shape(t) or ())) for t in inputs]
        starts = range(len(inputs) - width + 1)
        start = min(starts, key=lambda i: sum(sizes[i : i + width]))
        joined = inputs[start : start + width]
        part = _part(edit, joined, y, axis)
        ops.append(_concat(edit, joined, part, axis))
        inputs[start : start + width] = [part]
    return [*ops, _concat(edit, inputs, y, axis)]


def _part(edit: Editor, inputs: list[int], y: int, axis: int) -> int:
    shapes = [edit.shape(t) or () for t in inputs]
    shape = list(shapes[0])
    shape[axis] = sum(s[axis] for s in shapes)
    return edit.add_tensor(y, shape, "part")


def padding(model: Any, only: Only = None) -> int:
    """Zero padding becomes part of the convolution, where SAME padding is exactly that.

    SAME puts total // 2 before and the rest behind, total = (out-1)*stride + window - in; a PAD of
    other amounts stays. A PADV2 that pads with zero is a PAD, which XNNPACK has.
    """
    edit = Editor(model, only)
    count = sum(_plain_pad(edit, op) for op in edit.candidates if edit.name(op) == "PADV2")
    return count + sum(_fold(edit, op) for op in edit.candidates if edit.name(op) in _KERNELS)


_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_MOVABLE = (*_EIGHT, "float32")


def _plain_pad(edit: Editor, op: Any) -> bool:
    x, amounts, value = (int(t) for t in op.inputs)
    y, filling = int(op.outputs[0]), edit.constant(value)
    if edit.constant(amounts) is None or filling is None or not edit.same_codes(x, y):
        return False
    quant = edit.quantization(x)
    if edit.dtype(x) == "float32":
        zero = filling.size == 1 and float(filling.ravel()[0]) == 0.0
    elif edit.dtype(x) in _EIGHT and quant is not None and edit.same_codes(x, value):
        zero = filling.size == 1 and int(filling.ravel()[0]) == quant[1]
    else:
        return False
    if zero:
        edit.replace(op, [edit.op("PAD", [x, amounts], [y])])
    return zero


def _fold(edit: Editor, op: Any) -> bool:
    x = int(op.inputs[0])
    pad, o = edit.maker(x), op.builtinOptions
    if pad is None or edit.name(pad) != "PAD" or o.padding != schema.Padding.VALID:
        return False
    source = int(pad.inputs[0])
    amounts, kernel = edit.constant(int(pad.inputs[1])), edit.shape(int(op.inputs[1]))
    shape, out = edit.shape(source), edit.shape(int(op.outputs[0]))
    if amounts is None or kernel is None or shape is None or out is None or len(shape) != 4:
        return False
    if edit.tensor(source).isVariable:
        return False
    if amounts.shape != (4, 2) or np.any(amounts[[0, 3]]) or not edit.same_codes(x, source):
        return False
    for axis, stride, dilation in (
        (1, o.strideH, o.dilationHFactor),
        (2, o.strideW, o.dilationWFactor),
    ):
        window = (kernel[axis] - 1) * dilation + 1
        total = max(0, (out[axis] - 1) * stride + window - shape[axis])
        same = out[axis] == -(-shape[axis] // stride)
        if not same or amounts[axis].tolist() != [total // 2, total - total // 2]:
            return False
    edit.write_to(op, 0, source)
    o.padding = schema.Padding.SAME
    if not edit.readers(x) and not edit.is_end(x):
        edit.replace(pad, [])
    return True


def slices(model: Any, only: Only = None) -> int:
    """Splits, stacks and slices that drop an axis are written as SLICE, CONCATENATION and RESHAPE.

    SPLIT into more than 4, SPLIT_V and UNPACK become one SLICE for each part; PACK becomes a
    CONCATENATION; x[:, 3] becomes x[:, 3:4] and a RESHAPE. The elements are copied as they are.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        make = _SLICED.get(edit.name(op))
        tensors = [int(t) for t in (*op.inputs, *op.outputs) if t >= 0]
        if make is None or any(edit.shape(t) is None for t in tensors):
            continue
        moved = [int(t) for t in op.outputs]
        if all(edit.dtype(t) in _MOVABLE for t in moved):
            new = make(edit, op)
            if new:
                edit.replace(op, new)
                count += 1
    return count


def _split(edit: Editor, op: Any) -> list[Any]:
    plain = edit.name(op) == "SPLIT"
    x, axis = (int(op.inputs[i]) for i in ((1, 0) if plain else (0, 2)))
    at = edit.constant(axis)
    if at is None or (plain and 2 <= len(op.outputs) <= _MAX_SPLIT):
        return []
    return _parts(edit, x, int(at.ravel()[0]), [int(t) for t in op.outputs])


def _parts(edit: Editor, x: int, axis: int, outputs: list[int]) -> list[Any]:
    """SLICE ops that cut `x` along an axis into `outputs`, one after the other."""
    begin = [0] * len(edit.shape(x) or ())
    ops = []
    for y in outputs:
        size = list(edit.shape(y) or ())
        if not edit.same_codes(x, y):
            return []
        ends = [edit.add_constant(np.array(v, np.int32), "part") for v in (begin, size)]
        ops.append(edit.op("SLICE", [x, *ends], [y]))
        begin[axis] += size[axis]
    return ops


def _unpack(edit: Editor, op: Any) -> list[Any]:
    x, axis, outputs = int(op.inputs[0]), int(op.builtinOptions.axis), [int(t) for t in op.outputs]
    shape = list(edit.shape(x) or ())
    if any(not edit.same_codes(x, y) for y in outputs):
        return []
    shape[axis] = 1
    kept = [edit.add_tensor(x, shape, "kept") for _ in outputs]
    cut = _parts(edit, x, axis, kept)
    flat = [reshape(edit, k, y) for k, y in zip(kept, outputs, strict=True)]
    return [op for pair in zip(cut, flat, strict=True) for op in pair]


def _pack(edit: Editor, op: Any) -> list[Any]:
    inputs, y = [int(t) for t in op.inputs], int(op.outputs[0])
    if any(not edit.same_codes(t, y) or edit.constant(t) is not None for t in inputs):
        return []
    axis, shape = int(op.builtinOptions.axis), list(edit.shape(y) or ())
    shape[axis] = 1
    longer = [edit.add_tensor(t, shape, "longer") for t in inputs]
    ops = [reshape(edit, t, k) for t, k in zip(inputs, longer, strict=True)]
    return [*ops, *_tree(edit, longer, y, axis % len(shape))]


def _drop_axis(edit: Editor, op: Any) -> list[Any]:
    x, y, o = int(op.inputs[0]), int(op.outputs[0]), op.builtinOptions
    shape = edit.shape(x) or ()
    begin, end, strides = (edit.constant(int(t)) for t in op.inputs[1:4])
    if begin is None or end is None or strides is None or not edit.same_codes(x, y):
        return []
    if not o.shrinkAxisMask or o.ellipsisMask or o.newAxisMask or np.any(strides != 1):
        return []
    if len(begin) != len(shape) or getattr(o, "offset", False):
        return []
    starts, size = [], []
    for axis, length in enumerate(shape):
        one = bool(o.shrinkAxisMask >> axis & 1)
        first = 0 if o.beginMask >> axis & 1 and not one else _inside(int(begin[axis]), length)
        last = length if o.endMask >> axis & 1 else _inside(int(end[axis]), length)
        starts.append(first)
        size.append(1 if one else last - first)
    if min(size) < 1:
        return []
    kept = edit.add_tensor(x, size, "kept")
    ends = [edit.add_constant(np.array(v, np.int32), "part") for v in (starts, size)]
    return [edit.op("SLICE", [x, *ends], [kept]), reshape(edit, kept, y)]


def _inside(position: int, length: int) -> int:
    """A position that may count from the end, as one within 0..length."""
    return min(max(position + length if position < 0 else position, 0), length)


_SLICED = {
    "SPLIT": _split, "SPLIT_V": _split, "UNPACK": _unpack, "PACK": _pack,
    "STRIDED_SLICE": _drop_axis,
}  # fmt: skip

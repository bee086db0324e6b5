"""Rewrites of arithmetic: biases, activations, requantizations, squared differences, pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.tflite.editing import NONE, Editor, Only
from tfedge.tflite.flatbuffer import schema

_EIGHT = ("int8", "uint8")
_REQUANTIZABLE = (2.0**-8, 2.0**7)
_Fused = schema.ActivationFunctionType
_ACTIVATIONS: dict[str, tuple[int, float, float]] = {
    "RELU": (_Fused.RELU, 0.0, np.inf),
    "RELU6": (_Fused.RELU6, 0.0, 6.0),
    "RELU_N1_TO_1": (_Fused.RELU_N1_TO_1, -1.0, 1.0),
}
_TAKE_ACTIVATION = frozenset(
    "ADD AVERAGE_POOL_2D CONV_2D DEPTHWISE_CONV_2D DIV FULLY_CONNECTED MAX_POOL_2D MUL SUB".split()
)


def quantize_pairs(model: Any, only: Only = None) -> int:
    """Codes that are unpacked and packed again, or packed as they are already, are left alone.

    DEQUANTIZE then QUANTIZE with the same scale and zero point gives the codes back: both go. With
    another scale they are one QUANTIZE from codes to codes (within one step: it rounds once).
    A QUANTIZE from codes to the same codes goes.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) != "QUANTIZE":
            continue
        out = int(op.outputs[0])
        source = _codes_behind(edit, op)
        if source is None:
            continue
        if edit.same_codes(source, out):
            if edit.is_end(out):
                if source == int(op.inputs[0]):
                    continue  # The file's output keeps its own tensor, and a QUANTIZE to fill it.
                edit.write_to(op, 0, source)
            else:
                edit.redirect(out, source)
                edit.replace(op, [])
        elif source != int(op.inputs[0]) and _close(edit, source, out):
            edit.write_to(op, 0, source)
        else:
            continue
        count += 1
    _drop_unread(edit, "DEQUANTIZE")
    return count


def _codes_behind(edit: Editor, op: Any) -> int | None:
    """The 8-bit tensor that a QUANTIZE packs again, or None."""
    source = int(op.inputs[0])
    maker = edit.maker(source)
    if maker is not None and edit.name(maker) == "DEQUANTIZE":
        source = int(maker.inputs[0])
    out = int(op.outputs[0])
    if edit.tensor(source).isVariable or edit.dtype(source) != edit.dtype(out):
        return None
    return source if edit.quantization(source) and edit.quantization(out) else None


def _close(edit: Editor, a: int, b: int) -> bool:
    first, second = edit.quantization(a), edit.quantization(b)
    if first is None or second is None or edit.dtype(a) not in _EIGHT:
        return False
    return _REQUANTIZABLE[0] <= first[0] / second[0] <= _REQUANTIZABLE[1]


def _drop_unread(edit: Editor, name: str) -> None:
    for op in edit.ops:
        if edit.name(op) == name:
            out = int(op.outputs[0])
            if not edit.is_end(out) and not edit.readers(out):
                edit.replace(op, [])


def quantized_axis(model: Any, only: Only = None) -> int:
    """Scales that run along an axis which a vector does not have run along its only one.

    Older converters gave biases the axis of their weights; LiteRT 2.3 refuses such a file. The
    kernels never read it: scale i belongs to element i.
    """
    tensors = [] if only is not None else model.subgraphs[0].tensors or []
    count = 0
    for tensor in tensors:
        quant, shape = tensor.quantization, [] if tensor.shape is None else list(tensor.shape)
        if quant is None or quant.scale is None or len(shape) != 1:
            continue
        if len(quant.scale) == int(shape[0]) and quant.quantizedDimension > 0:
            quant.quantizedDimension = 0
            count += 1
    return count


def missing_bias(model: Any, only: Only = None) -> int:
    """A convolution without a bias gets one of zeros, which changes nothing.

    LiteRT 2.3 does not run one without. In 8 bits they are int32 with the scale that a bias must
    have, scale(input) * scale(weights).
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) not in ("CONV_2D", "DEPTHWISE_CONV_2D") or len(op.inputs) < 2:
            continue
        if len(op.inputs) > 2 and int(op.inputs[2]) >= 0:
            continue
        x, w = int(op.inputs[0]), int(op.inputs[1])
        channels = edit.shape(int(op.outputs[0])) or edit.tensor(int(op.outputs[0])).shape
        kind = edit.dtype(x)
        if channels is None or len(channels) != 4 or kind not in (*_EIGHT, "float32"):
            continue
        dtype = np.float32 if kind == "float32" else np.int32
        bias = edit.add_constant(np.zeros(int(channels[-1]), dtype), "zero_bias")
        if dtype is np.int32 and not _scale_bias(edit, bias, x, w):
            continue
        edit.write_to(op, 2, bias)
        count += 1
    return count


def _scale_bias(edit: Editor, bias: int, x: int, w: int) -> bool:
    inputs, quant = edit.quantization(x), edit.tensor(w).quantization
    if inputs is None or quant is None or quant.scale is None or not len(quant.scale):
        return False
    edit.quantize(bias, np.float32(inputs[0]) * np.asarray(quant.scale, np.float32))
    return True


def unfused_activations(model: Any, only: Only = None) -> int:
    """RELU, RELU6 or RELU_N1_TO_1 becomes part of the op before it, which alone it serves.

    Codes must have one scale and zero point at both sides, so that the clipping is the same. Else,
    in 8 bits, it becomes an op that XNNPACK has: a QUANTIZE, where the output's range ends where
    the activation clips; or a MUL by 1 with the activation fused.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) not in _ACTIVATIONS:
            continue
        fused, low, high = _ACTIVATIONS[edit.name(op)]
        x, y = int(op.inputs[0]), int(op.outputs[0])
        maker = edit.maker(x)
        if (
            maker is not None
            and edit.name(maker) in _TAKE_ACTIVATION
            and edit.fused(maker) == NONE
            and edit.private(x)
            and edit.same_codes(x, y)
        ):
            maker.builtinOptions.fusedActivationFunction = fused
            edit.write_to(maker, 0, y, output=True)
            edit.replace(op, [])
            count += 1
        elif _clips_by_itself(edit, x, y, (low, high)):
            edit.replace(op, [edit.op("QUANTIZE", [x], [y])])
            count += 1
        elif edit.dtype(x) == edit.dtype(y) and _close(edit, x, y):
            edit.replace(op, [_clip(edit, x, y, fused)])
            count += 1
    return count


def _clip(edit: Editor, x: int, y: int, activation: int) -> Any:
    one = edit.add_constant(np.ones([1] * len(edit.tensor(y).shape), edit.dtype(x)), "one")
    edit.quantize(one, 1.0)
    new = edit.op("MUL", [x, one], [y])
    new.builtinOptions.fusedActivationFunction = activation
    return new


def _clips_by_itself(edit: Editor, x: int, y: int, ends: tuple[float, float]) -> bool:
    out = edit.quantization(y)
    if out is None or edit.dtype(x) != edit.dtype(y) or not _close(edit, x, y):
        return False
    scale, zero = out
    limits = np.iinfo(edit.dtype(y))
    low, high = (np.rint(end / scale) + zero for end in ends)
    return bool(low <= limits.min and high >= limits.max)


def squared_difference(model: Any, only: Only = None) -> int:
    """An 8-bit SQUARED_DIFFERENCE is written as SUB and MUL, which XNNPACK has in 8 bits.

    (a-b)^2 = max(a-b, 0)^2 + max(b-a, 0)^2. Each half starts at 0, so that its 255 steps reach
    from there to the largest difference that the output can hold: then the result is within one
    step (one 8-bit difference of both signs would have half as many steps, and be two off). Both
    ways are tried on all pairs of codes, and the shorter is taken where it is within one step too.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) == "SQUARED_DIFFERENCE" and edit.dtype(int(op.outputs[0])) == "int8":
            new = _as_products(edit, op)
            if new:
                edit.replace(op, new)
                count += 1
    return count


def _as_products(edit: Editor, op: Any) -> list[Any]:
    a, b, out = int(op.inputs[0]), int(op.inputs[1]), int(op.outputs[0])
    quants = [edit.quantization(t) for t in (a, b, out)]
    shape = edit.shape(out)
    if None in quants or shape is None or {edit.dtype(a), edit.dtype(b)} != {"int8"}:
        return []
    first, second, last = (_real(q) for q in quants if q is not None)
    far = float(max(first.max() - second.min(), second.max() - first.min()))
    far = min(far, float(np.sqrt(max(last.max(), 0.0))))
    ratio = [q[0] * 255 / far if far > 0 else 0.0 for q in quants[:2] if q is not None]
    if not far > 0 or not all(2.0**-10 <= r <= 2.0**7 for r in ratio):
        return []
    square = _square_difference(edit, a, b, out)
    if _steps(quants, 2 * far / 255, both=False) <= 1:
        d = edit.add_tensor(a, shape, "difference")
        edit.quantize(d, 2 * far / 255)
        return [edit.op("SUB", [a, b], [d]), edit.op("MUL", [d, d], [out])]
    return square(far / 255, shape) if _steps(quants, far / 255, both=True) <= 1 else []


def _square_difference(edit: Editor, a: int, b: int, out: int) -> Any:
    def write(scale: float, shape: tuple[int, ...]) -> list[Any]:
        ops, squares = [], []
        for left, right in ((a, b), (b, a)):
            half = edit.add_tensor(a, shape, "half")
            edit.quantize(half, scale, -128)
            squares.append(edit.add_tensor(out, shape, "square"))
            ops.append(edit.op("SUB", [left, right], [half]))
            ops.append(edit.op("MUL", [half, half], [squares[-1]]))
        return [*ops, edit.op("ADD", squares, [out])]

    return write


def _real(quant: tuple[float, int]) -> np.ndarray:
    """Real values of all int8 codes."""
    return quant[0] * (np.arange(-128, 128) - float(quant[1]))


def _steps(quants: Any, scale: float, *, both: bool) -> float:
    """Largest difference in output codes over all pairs of input codes."""
    first, second, (step, zero) = _real(quants[0])[:, None], _real(quants[1])[None], quants[2]

    def codes(real: np.ndarray, width: float, point: int) -> np.ndarray:
        return np.clip(np.rint(real / width) + point, -128, 127)

    want = codes((first - second) ** 2, step, zero)
    if not both:
        d = codes(first - second, scale, 0) * scale
        return float(np.abs(codes(d * d, step, zero) - want).max())
    parts = [(codes(d, scale, -128) + 128) * scale for d in (first - second, second - first)]
    squares = [(codes(p * p, step, zero) - zero) * step for p in parts]
    return float(np.abs(codes(squares[0] + squares[1], step, zero) - want).max())


def whole_average(model: Any, only: Only = None) -> int:
    """An 8-bit AVERAGE_POOL_2D over the whole image is a MEAN, which XNNPACK has in 8 bits.

    Both divide the same sum by the same count and round once (within one step where they break a
    tie differently).
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) != "AVERAGE_POOL_2D":
            continue
        x, y = int(op.inputs[0]), int(op.outputs[0])
        shape, out, o = edit.shape(x), edit.shape(y), op.builtinOptions
        whole = shape is not None and out is not None and out[1:3] == (1, 1)
        if not whole or shape is None or edit.dtype(x) not in _EIGHT:
            continue
        if (o.filterHeight, o.filterWidth) != shape[1:3] or edit.fused(op) != NONE:
            continue
        axes = edit.add_constant(np.array([1, 2], np.int32), "axes")
        mean = edit.op("MEAN", [x, axes], [y])
        mean.builtinOptions.keepDims = True
        edit.replace(op, [mean])
        count += 1
    return count


def subsampling(model: Any, only: Only = None) -> int:
    """Pooling with a window of one pixel and a wider stride is a depthwise convolution with ones.

    Each output is one input, times 1 plus 0; XNNPACK takes no pooling whose stride leaves gaps.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) not in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
            continue
        x, y, o = int(op.inputs[0]), int(op.outputs[0]), op.builtinOptions
        shape, kind = edit.shape(x), edit.dtype(x)
        gaps = (o.filterHeight, o.filterWidth) == (1, 1) and max(o.strideH, o.strideW) > 1
        if not gaps or shape is None or not edit.same_codes(x, y) or kind == "int16":
            continue
        if kind != "float32" and edit.quantization(x) is None:
            continue
        edit.replace(op, [_pick(edit, op, shape[-1])])
        count += 1
    return count


def _pick(edit: Editor, op: Any, channels: int) -> Any:
    x, y, o = int(op.inputs[0]), int(op.outputs[0]), op.builtinOptions
    codes = edit.dtype(x) != "float32"
    ones = edit.add_constant(np.ones((1, 1, 1, channels), edit.dtype(x)), "ones")
    zeros = edit.add_constant(np.zeros(channels, np.int32 if codes else np.float32), "zeros")
    quant = edit.quantization(x)
    if codes and quant is not None:
        edit.quantize(ones, 1.0)
        edit.quantize(zeros, quant[0])
    new = edit.op("DEPTHWISE_CONV_2D", [x, ones, zeros], [y])
    settings = new.builtinOptions
    settings.strideH, settings.strideW, settings.padding = o.strideH, o.strideW, o.padding
    settings.dilationHFactor = settings.dilationWFactor = settings.depthMultiplier = 1
    settings.fusedActivationFunction = o.fusedActivationFunction
    return new


def hard_swish(model: Any, only: Only = None) -> int:
    """An 8-bit HARD_SWISH is written as MUL, ADD and MUL, which XNNPACK has in 8 bits.

    x * relu6(x + 3) / 6 = x * (clip(x / 6, -1/2, 1/2) + 1/2). With steps of 1/254 the product with
    1/6 saturates at the two ends by itself, and a half is 127 of them. It is tried on all 256 codes
    and done where it is within one step on each.
    """
    edit, count = Editor(model, only), 0
    for op in edit.candidates:
        if edit.name(op) != "HARD_SWISH":
            continue
        x, y = int(op.inputs[0]), int(op.outputs[0])
        quants, shape = (edit.quantization(x), edit.quantization(y)), edit.shape(y)
        if None in quants or shape is None or {edit.dtype(x), edit.dtype(y)} != {"int8"}:
            continue
        if _hard_swish_steps(quants) <= 1:
            edit.replace(op, _as_gate(edit, x, y, shape))
            count += 1
    return count


_GATE_STEP = 1 / 254


def _as_gate(edit: Editor, x: int, y: int, shape: tuple[int, ...]) -> list[Any]:
    sixth, half = (_real_constant(edit, x, value) for value in (1 / 6, 0.5))
    clipped, gate = (edit.add_tensor(x, shape, name) for name in ("clipped", "gate"))
    edit.quantize(clipped, _GATE_STEP, 0)
    edit.quantize(gate, _GATE_STEP, -128)
    return [
        edit.op("MUL", [x, sixth], [clipped]),
        edit.op("ADD", [clipped, half], [gate]),
        edit.op("MUL", [x, gate], [y]),
    ]


def _real_constant(edit: Editor, like: int, value: float) -> int:
    """A constant of one element: code 127 and the scale that makes it `value`."""
    index = edit.add_constant(np.full([1] * len(edit.shape(like) or ()), 127, np.int8), "constant")
    edit.quantize(index, value / 127)
    return index


def _hard_swish_steps(quants: Any) -> float:
    """Largest difference in output codes over all input codes."""
    x, (step, zero) = _real(quants[0]), quants[1]
    if not 2.0**-14 <= quants[0][0] <= 2.0**6:  # What XNNPACK takes as a product's scale.
        return np.inf

    def codes(real: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(real / step) + zero, -128, 127)

    clipped = np.clip(np.rint(x / 6 / _GATE_STEP), -128, 127)
    gate = np.clip(clipped + 127, 0, 255) * _GATE_STEP
    want = x * np.clip(x + 3, 0, 6) / 6
    return float(np.abs(codes(x * gate) - codes(want)).max())

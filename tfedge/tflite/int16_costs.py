"""Which form of a 16-bit depthwise or grouped convolution to take: an estimate of time and bytes.

The constants are fitted to times measured on one x86 core with AVX2 (thread time, least of many
runs in turn; shapes 3x3 to 48x48, 48 to 960 channels, 3x3 and 5x5), which they give to about a
fifth. There the runtime packs 16-bit inputs value by value, and that is what costs; it has a fast
packing for AVX-512 only, where blocks of CONV_2D gain more (2.4 times the op itself was measured)
than this estimate says. It was not fitted there: a form that it takes is one that gains with AVX2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfedge.tflite.flatbuffer import schema
from tfedge.tflite.int16_depthwise import Grouped, transposable

GROWTH = 0.5
"""The forms chosen may together make a file larger by at most this share of its constants ..."""

FREE = 32 * 1024
"""... or by so many bytes, where that is more."""

SIZES = (4, 8, 16, 32)
"""Input channels in a block that are tried."""

_OP = 2000.0  # ns: calling a convolution
_LOOP = 2.3  # ns: one product of the plain depthwise loop
_GROUP_LOOP = 1.0  # ns: one product of the plain loop of a grouped CONV_2D
_PACK = 4.2  # ns: packing one input of a matrix product
_PRODUCT = 1 / 36  # ns: one product of a matrix product
_TAP, _SPREAD = 4.0, 0.4  # ns: adding one position's outputs to the sums, and one output of it
_MOVE = 0.28  # ns: splitting or joining one value


@dataclass(frozen=True)
class Form:
    """A pure-integer form (`int16_depthwise.to_blocks`).

    Attributes:
        size: Groups in a block.
        transposed: True for TRANSPOSE_CONV.
        time: Estimated microseconds.
        extra: Bytes of weights that it has more than the op itself.
    """

    size: int
    transposed: bool
    time: float
    extra: int


def stock_time(grouped: Grouped) -> float:
    """Estimated microseconds of the op as it is."""
    groups, outside, height, width, inside = grouped.weights.shape
    each = _LOOP if grouped.depthwise else _GROUP_LOOP
    return (_OP + each * grouped.pixels * groups * outside * height * width * inside) / 1e3


def forms(grouped: Grouped) -> list[Form]:
    """The pure-integer forms of an op that are looked at, with their estimates."""
    groups, _, _, _, inside = grouped.weights.shape
    sizes = {max(1, min(groups, size // inside)) for size in SIZES}
    kinds = (False, True) if transposable(grouped) else (False,)
    return [_form(grouped, size, kind) for size in sorted(sizes) for kind in kinds]


def _form(grouped: Grouped, size: int, transposed: bool) -> Form:
    groups, outside, _, _, inside = grouped.weights.shape
    counts = [min(size, groups - start) for start in range(0, groups, size)]
    pixels, taps = grouped.pixels, grouped.taps
    total = 0.0
    for count in counts:
        ins, outs = count * inside, count * outside
        products = taps * ins * outs * _PRODUCT
        if transposed:
            each = _PACK * ins + taps * (_TAP + _SPREAD * outs) + products
        else:
            each = taps * _PACK * ins + products
        total += _OP + pixels * each
    if len(counts) > 1:
        total += _MOVE * (_values(grouped) + pixels * groups * outside)
    weights = sum(taps * n * n * inside * outside for n in counts)
    return Form(size, transposed, total / 1e3, weights - int(grouped.weights.size))


def _values(grouped: Grouped) -> int:
    found = grouped.found
    size = 1
    for dim in found.graph.tensors[found.source].shape:
        size *= max(int(dim), 1)
    return size


def choose_forms(model: schema.ModelT, grouped: Sequence[Grouped]) -> dict[int, Form]:
    """Chooses a form for each op that gains from one, the best gains by byte first.

    Args:
        model: The file, whose constants the limit of bytes refers to.
        grouped: Ops of `int16_depthwise.grouped_ops`.

    Returns:
        Form by the op's position; ops that are best left alone are not in it.
    """
    room = max(GROWTH * sum(_size(b) for b in model.buffers), FREE)
    best: list[tuple[float, int, Form]] = []
    for op in grouped:
        before = stock_time(op)
        form = min(forms(op), key=lambda f: f.time)
        if form.time < before:
            best.append(((before - form.time) / max(form.extra, 1), op.found.index, form))
    chosen = {}
    for _, index, form in sorted(best, key=lambda b: -b[0]):
        if form.extra <= room:
            room -= form.extra
            chosen[index] = form
    return chosen


def _size(buffer: Any) -> int:
    return 0 if buffer.data is None else len(buffer.data)

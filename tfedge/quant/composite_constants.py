"""Operations of a tensor and a constant that is no single number and no number a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.graph.arguments import is_dynamic
from tfedge.graph.canonical import symbol_of
from tfedge.graph.rewrite import Piece, activation_name
from tfedge.graph.trace import Ref
from tfedge.quant.masks import masked_scores
from tfedge.quant.sketch import Sketch

_L = keras.layers
_HIDDEN = -1e3
"""What is added to a score that must not be seen is below this."""


def added(s: Sketch) -> list[Piece]:
    """X + constant: a mask of scores, or (with 16 bits, whose ADD takes no constant) an affine."""
    value = _constant(s)
    if value is None:
        return []
    if _is_mask(value) and _feeds_softmax(s):
        return s.piece(masked_scores(s, s.inputs[0], value == 0))
    return _by_position(s, 1.0, value)


def subtracted(s: Sketch) -> list[Piece]:
    """X - constant or constant - x, with 16 bits."""
    value = _constant(s)
    if value is None:
        return []
    return _by_position(s, 1.0, -value) if _is_first(s) else _by_position(s, -1.0, value)


def multiplied(s: Sketch) -> list[Piece]:
    """X * constant, with 16 bits."""
    value = _constant(s)
    return [] if value is None else _by_position(s, value, None)


def _is_first(s: Sketch) -> bool:
    return bool(s.call.args) and isinstance(s.call.args[0], Ref)


def _constant(s: Sketch) -> np.ndarray | None:
    """The constant, of several numbers along the axes before the last; None where there is none."""
    values = [*s.call.args, *(v for k, v in s.call.kwargs.items() if k in ("x", "y"))]
    given = [v for v in values if not isinstance(v, Ref)]
    if len(s.inputs) != 1 or len(given) != 1 or is_dynamic(given[0]):
        return None
    value, shape = np.asarray(given[0]), s.inputs[0].shape
    if value.dtype == object or value.ndim < 2 or value.ndim > len(shape):
        return None
    if None in shape[1:] or (value.ndim == len(shape) and value.shape[0] != 1):
        return None
    whole = tuple(shape[1:])
    value = value.reshape(value.shape[1:]) if value.ndim == len(shape) else value
    fits = np.broadcast_shapes(value.shape, whole) == whole
    return value.astype(np.float32) if fits and value.ndim > 1 else None


def _is_mask(value: np.ndarray) -> bool:
    hidden = value <= _HIDDEN
    return bool(hidden.any()) and bool(np.all(hidden | (value == 0)))


def _feeds_softmax(s: Sketch) -> bool:
    """Whether nothing but softmaxes over the last axis reads the sum."""
    (number,) = s.call.outputs
    readers = s.site.readers.get(number, [])
    return number not in s.site.outputs and bool(readers) and all(map(_is_softmax, readers))


def _is_softmax(call: Any) -> bool:
    rank_end = (-1, None)
    if symbol_of(call.layer) == "nn.softmax":
        return call.kwargs.get("axis") in rank_end and len(call.args) < 2
    if isinstance(call.layer, _L.Softmax):
        return call.layer.axis in rank_end
    return isinstance(call.layer, _L.Activation) and activation_name(call.layer) == "softmax"


def _by_position(s: Sketch, gain: Any, offset: Any) -> list[Piece]:
    """Gain * x + offset, both of any shape, as one channel a position; nothing with 8 bits."""
    if s.bits != 16:
        return []
    (x,) = s.inputs
    shape = s.known(x)
    count = int(np.prod(shape))
    flat = s.reshape(x, (1, 1, count), "positions")
    gain, offset = (
        None if v is None else np.broadcast_to(v, shape).reshape(-1) for v in (gain, offset)
    )
    y = s.per_channel(flat, gain, offset, "by_position", trainable=False)
    return s.piece(s.reshape(y, shape, "result"))


CONSTANT_OPS: dict[str, Callable[[Sketch], list[Piece]]] = {
    **dict.fromkeys(("math.add", "__operators__.add", "__operators__.radd"), added),
    **dict.fromkeys(("math.subtract", "__operators__.sub"), subtracted),
    **dict.fromkeys(("math.multiply", "__operators__.mul"), multiplied),
}
"""By the function of an operation (see `canonical.symbol_of`)."""

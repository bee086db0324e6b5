"""Softmax with a mask that is known beforehand, in numbers that 8 bits can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.graph.arguments import parameters
from tfedge.graph.trace import Ref
from tfedge.quant.sketch import NoForm, Sketch

_MARGIN = {8: 12.0, 16: 16.0}
"""How far below its row's least score a masked one stands, by activation bits.

exp(-12) is a six-hundredth of an 8-bit step of the softmax, exp(-16) a two-hundredth of a 16-bit
one; a larger margin widens the range that 8 bits share.
"""


def masked_scores(s: Sketch, scores: Any, mask: np.ndarray | None) -> Any:
    """Scores whose softmax is 0 where a mask says False, in a range that 8 bits can hold.

    A large negative number would take all codes. A softmax does not change with a constant for a
    row: each row less its least score is at least 0, so that what may be seen is raised by a
    margin, and what may not becomes 0. The least is over all scores of the row, so that hidden
    ones still move roundings, by a few steps of the result.

    Args:
        s: The sketch.
        scores: [batch, ..., queries, keys].
        mask: Of the last axes; True where a key may be seen. None: no mask.
    """
    if mask is None:
        return scores
    shape = s.known(scores)
    if mask.ndim > 1 + len(shape) or (mask.ndim == 1 + len(shape) and mask.shape[0] != 1):
        raise NoForm("its mask differs from sample to sample")
    mask = mask.reshape(mask.shape[-len(shape) :])
    negative = s.affine(scores, -1.0, suffix="negative")
    least = s.op(tf.math.reduce_max, "least", negative, axis=[-1], keepdims=True)
    above = s.minus(least, negative, "above_least")
    alike = int(np.prod(mask.shape[:-2])) == 1  # for all heads
    inner = shape[-2:] if alike else shape
    flags = np.broadcast_to(mask[(0,) * (mask.ndim - 2)] if alike else mask, inner)
    flags = flags.astype(np.float32).reshape(-1)
    flat = s.reshape(above, (int(np.prod(shape)) // flags.size, 1, flags.size), "positions")
    seen = s.per_channel(flat, flags, flags * _MARGIN[s.bits], "seen", trainable=False)
    return s.reshape(seen, shape, "masked")


def mask_of(s: Sketch, name: str) -> np.ndarray | None:
    """The mask of all samples' scores: a constant argument, the causal one, or both.

    Raises:
        NoForm: Masks are computed while the model runs.
    """
    given = {k: p.value for k, p in parameters(s.layer, s.call).items()}
    constant = given.get(name)
    if s.masked or isinstance(constant, (Ref, list, tuple)):
        raise NoForm("its mask is computed from data while the model runs; only a causal mask, or "
                     "a constant one of the scores, has an integer form")  # fmt: skip
    mask = None if constant is None else np.asarray(constant).astype(bool)
    if given.get("use_causal_mask") or getattr(s.layer, "causal", False):
        query, value = s.inputs[0], s.inputs[min(1, len(s.inputs) - 1)]
        if query.shape[1] is None or value.shape[1] is None:
            raise NoForm("a causal mask of free size has no integer form; declare the steps")
        causal = np.tri(int(query.shape[1]), int(value.shape[1]), dtype=bool)
        mask = causal if mask is None else mask & causal
    return mask

"""Calibration: the float path of a quantize-aware model, watched by its own quantizers.

While a `Watcher` is active every quantizer hands its input through unchanged and reports it. So
the ranges are those of the float network at exactly the places where the file will quantize, also
before an activation and over all calls of a shared layer.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tfedge._keras import tf

_ACTIVE: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("watcher", default=None)


@dataclass
class _Seen:
    low_variable: Any
    high_variable: Any
    bits: int
    low: float
    high: float


class Watcher:
    """Collects the smallest and largest value at every quantizer."""

    def __init__(self) -> None:
        self.seen: dict[int, _Seen] = {}

    def activation(self, low: Any, high: Any, bits: int, values: Any) -> None:
        """Takes one batch of what reaches a quantizer.

        Args:
            low: The quantizer's min variable.
            high: Its max variable.
            bits: 8 or 16.
            values: float32 tensor, any shape, eager.
        """
        least, most = float(tf.reduce_min(values)), float(tf.reduce_max(values))
        entry = self.seen.setdefault(id(low), _Seen(low, high, bits, 0.0, 0.0))
        entry.low, entry.high = min(entry.low, least), max(entry.high, most)


@contextlib.contextmanager
def watching() -> Iterator[Watcher]:
    """Makes a new Watcher the active one within the block (this thread only)."""
    watcher = Watcher()
    token = _ACTIVE.set(watcher)
    try:
        yield watcher
    finally:
        _ACTIVE.reset(token)


def active() -> Watcher | None:
    """The Watcher of the present block, or None."""
    return _ACTIVE.get()

"""Calibration: the float path of a quantize-aware model, watched by its own quantizers.

While a `Watcher` is active every quantizer hands its input through unchanged and reports it. So
the ranges are those of the float network at exactly the places where the file will quantize, also
before an activation and over all calls of a shared layer.

A `Visitor` sees what the kernels of wrapped layers read and give, in the float path or in the
quantized one, and may change the latter.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tfedge._keras import tf

_ACTIVE: contextvars.ContextVar[Any] = contextvars.ContextVar("watcher", default=None)


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


class Silent:
    """A watcher that keeps nothing: the float path runs."""

    def activation(self, low: Any, high: Any, bits: int, values: Any) -> None:
        """Nothing."""


class Visitor(Protocol):
    """Looks into wrapped layers with a kernel and an activation while a model runs eagerly."""

    def reads(self, wrapper: Any, inputs: Any) -> None:
        """Takes what the layer reads, float32."""

    def gives(self, wrapper: Any, values: Any) -> Any:
        """Takes what the layer computes before its activation; returns what is to go on."""


_VISITOR: contextvars.ContextVar[Visitor | None] = contextvars.ContextVar("visitor", default=None)


@contextlib.contextmanager
def visiting(visitor: Visitor) -> Iterator[None]:
    """Makes a visitor the active one within the block (this thread only)."""
    token = _VISITOR.set(visitor)
    try:
        yield
    finally:
        _VISITOR.reset(token)


def visitor() -> Visitor | None:
    """The Visitor of the present block, or None."""
    return _VISITOR.get()


@contextlib.contextmanager
def watching(watcher: Any = None) -> Iterator[Any]:
    """Makes a watcher the active one within the block (this thread only).

    Args:
        watcher: Has the method `activation` of `Watcher`; None: a new Watcher.
    """
    watcher = Watcher() if watcher is None else watcher
    token = _ACTIVE.set(watcher)
    try:
        yield watcher
    finally:
        _ACTIVE.reset(token)


def active() -> Any:
    """The Watcher of the present block, or None."""
    return _ACTIVE.get()

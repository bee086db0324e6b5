"""Building graphs without the garbage collector's full passes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pauses Python's cyclic garbage collector; also a decorator.

    Layers and tensors are made by the hundred thousand objects and none of them is garbage, while
    the collections that they set off walk TensorFlow's whole heap: 0.12 s each, a fifth of the time
    in which MobileNetV2 is cut. Only for work whose objects all stay.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

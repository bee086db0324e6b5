"""How long the cut of MobileNetV2 and ResNet50 takes, beside what building such a network takes.

    python benchmarks/prune_time.py

One row a Keras and model, in a fresh process on an otherwise idle machine: seconds of the first
`shrink(model, 0.5, round_to=1)`, the least of four more, and, for MobileNetV2, of the Keras's own
constructor of a network of half the width, first and least of four more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import prune_zoo
import rows

NAMES = ("MobileNetV2", "ResNet50")
AGAIN = 4


def measure(row: str) -> dict[str, Any]:
    """The columns of one model."""
    from tfedge._keras import library
    from tfedge.prune import shrink

    kind, _, name = row.partition(":")
    model = prune_zoo.build(row)
    columns = _timed("cut", lambda: shrink(model, 0.5, round_to=1))
    if name == "MobileNetV2":
        builder = getattr(library(kind).applications, name)
        shape = tuple(model.inputs[0].shape[1:])
        columns |= _timed(
            "constructor",
            lambda: builder(weights=None, input_shape=shape, classes=10, alpha=0.5),
        )
    return columns


def _timed(name: str, run: Callable[[], Any]) -> dict[str, float]:
    seconds = []
    for _ in range(AGAIN + 1):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return {f"{name}, first": round(seconds[0], 2), f"{name}, again": round(min(seconds[1:]), 2)}


if __name__ == "__main__":
    names = [f"{kind}:{name}" for kind in ("keras3", "tf_keras") for name in NAMES]
    rows.main("prune_time", names, measure, __doc__ or "")

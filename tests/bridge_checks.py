"""What the tests of the bridge compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import tf


def outputs(model: Any, x: Any) -> list[np.ndarray]:
    """All outputs in inference, flat."""
    return [np.asarray(t) for t in tf.nest.flatten(model(x, training=False))]


def relative(a: Any, b: Any) -> float:
    """Largest difference over the largest finite magnitude of `b`; the same NaNs are equal."""
    a, b = np.asarray(a).astype("float64"), np.asarray(b).astype("float64")
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return np.inf
    held = np.isfinite(b)
    difference = np.abs(a[held] - b[held]).max(initial=0)
    return float(difference / max(np.abs(b[held]).max(initial=0), 1e-6))


def worst(got: list, want: list) -> float:
    """`relative` over all outputs."""
    return max(relative(a, b) for a, b in zip(got, want, strict=True))


def layers_by_name(model: Any) -> dict[str, Any]:
    """Layers without inputs, op layers and what the bridge adds."""
    skipped = ("InputLayer", "TFOpLambda", "SlicingOpLambda", "KerasOp", "PassMask")
    return {x.name: x for x in model.layers if type(x).__name__ not in skipped}

"""Makes every model of keras.applications and tf_keras.applications quantize-aware and converts it.

    python benchmarks/qat_zoo.py [--only tf_keras:MobileNetV2] [--force]

One row a model (random weights, batch statistics set from one batch, small images): seconds to wrap
it (without calibration), of the calibration, of the first training step, and for w8a8 and w8a16 of
the conversion; the layers that do not get the scheme, with the reason; what computes in float in
the file ("clean": nothing); and the share of logits within two steps of the simulation, which says
little of a deep untrained network: it multiplies each difference of one step.
"""

from __future__ import annotations

import resource
import time
import warnings
from typing import Any

import numpy as np
import rows
from prune_zoo import build, names, settle


def measure(row: str) -> dict[str, Any]:
    """The columns of one model."""
    model = build(row)
    x = settle(model)
    want = np.asarray(model(x, training=False))
    columns: dict[str, Any] = {}
    for scheme in ("w8a8", "w8a16"):
        columns |= {f"{scheme} {k}": v for k, v in _judged(model, x, want, scheme).items()}
    columns["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return columns


def _judged(model: Any, x: np.ndarray, want: np.ndarray, scheme: str) -> dict[str, Any]:
    import tfedge
    from tests.run_file import float_ops, steps_apart
    from tfedge import quant
    from tfedge.quant.ranges import calibrate

    clock = _Clock()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        aware = quant.quantize_aware(model, scheme)
    out: dict[str, Any] = {"wrap s": clock()}
    said = [str(c.message) for c in caught if c.category is quant.QuantizationWarning]
    calibrate(aware, x)
    out["calibrate s"] = clock()
    file = tfedge.convert(aware, scheme)
    out["convert s"] = clock()
    left = sorted(set(float_ops(file.data)))
    out["file"] = " ".join(left) or "clean"
    apart = steps_apart(aware, file.data, {aware.input_names[0]: x})
    out["within 2"] = f"{np.mean(apart <= 2.01):.0%}"
    if said:
        out["instead"] = said[0][:400]
    clock()
    if scheme == "w8a8":
        aware.compile("sgd", "mse")
        loss = aware.train_on_batch(x, np.zeros_like(want))
        out["first step s"] = clock() if np.isfinite(np.ravel(loss)[0]) else "not finite"
    return out


class _Clock:
    """Seconds since the call before, rounded."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()

    def __call__(self) -> float:
        now = time.perf_counter()
        passed, self._begin = round(now - self._begin, 1), now
        return passed


if __name__ == "__main__":
    rows.main("qat_zoo", [*names("keras3"), *names("tf_keras")], measure, __doc__ or "")

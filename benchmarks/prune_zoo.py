"""Prunes 50 % of the channels of every model of keras.applications and tf_keras.applications.

    python benchmarks/prune_zoo.py [--only keras3:ResNet50] [--force]

One row a model: exact or not (largest relative difference of the logits to the network in which the
channels do not exist, batch statistics set from one batch), the cut's effect (the same to the
network as it was), parameters and MACs before and after, whether the
pruned model saves, reloads, trains a step and converts to float TFLite, seconds, peak memory.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rows

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/reference.py is the judge

# Small inputs that every network takes; the classifier sizes do not matter.
SIZES = {"NASNetLarge": 96, "NASNetMobile": 96, "Xception": 96, "InceptionV3": 96}
SIZES |= {"InceptionResNetV2": 96, "VGG16": 48, "VGG19": 48}


def names(kind: str) -> list[str]:
    """All model builders of one Keras."""
    from tfedge._keras import library

    found = library(kind).applications
    return [f"{kind}:{n}" for n in sorted(dir(found)) if n[0].isupper()]


def build(row: str) -> Any:
    """The model of a row with random weights."""
    from tfedge._keras import library

    kind, _, name = row.partition(":")
    size = SIZES.get(name, 64)
    builder = getattr(library(kind).applications, name)
    # Logits: a softmax of untrained logits is nearly the same whatever was cut.
    return builder(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )


def settle(model: Any) -> np.ndarray:
    """Sets batch statistics from one batch of random images; returns the images."""
    from tests import reference

    shape = (4, *model.inputs[0].shape[1:])
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    reference.settle(model, [x])
    return x


def measure(row: str) -> dict[str, Any]:
    """The columns of one model."""
    from tests.reference import Reference, difference
    from tfedge._keras import tf
    from tfedge.graph import analyse
    from tfedge.prune import shrink

    model = build(row)
    x = settle(model)
    begin = time.perf_counter()
    done = shrink(model, 0.5, round_to=1)
    seconds = time.perf_counter() - begin
    analysis = analyse(model)
    want = Reference(analysis, done.plan.cuts())([x])
    got = [np.asarray(t) for t in tf.nest.flatten(done.model(x, training=False))]
    error = difference(got, want)
    blocked = [g.name for g in analysis.groups if g.blocked and "output" not in g.blocked]
    columns = (
        {"error": f"not exact: {error:.1e}"} if error > 1e-4 else {"difference": f"{error:.1e}"}
    )
    columns |= {
        "effect": f"{difference(got, [np.asarray(model(x, training=False))]):.1e}",
        "params": f"{done.report.params[0]:,} -> {done.report.params[1]:,}",
        "params left": f"{done.report.params[1] / done.report.params[0]:.1%}",
        "MACs left": f"{done.report.macs[1] / done.report.macs[0]:.1%}",
        "blocked groups": len(blocked),
        "seconds": round(seconds, 2),
        **uses(done.model, x),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    return columns


def uses(model: Any, x: np.ndarray) -> dict[str, str]:
    """Whether the model saves, reloads with equal outputs, trains a step and converts."""
    import tfedge
    from tfedge.saving import custom_objects_of

    out: dict[str, str] = {}
    before = np.asarray(model(x, training=False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.keras"
        model.save(path)
        again = tfedge.load_model(path, custom_objects_of(model))
        equal = np.allclose(np.asarray(again(x, training=False)), before, atol=1e-5)
        out["reloads"] = "yes" if equal else "no"
    model.compile("sgd", "mse")
    loss = model.train_on_batch(x, np.zeros_like(before))
    out["trains"] = "yes" if np.isfinite(np.ravel(loss)[0]) else "no"
    out["converts"] = f"{len(tfedge.convert(again, 'float32').data) / 1e6:.1f} MB"
    return out


if __name__ == "__main__":
    rows.main("prune_zoo", [*names("keras3"), *names("tf_keras")], measure, __doc__ or "")

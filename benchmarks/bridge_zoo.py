"""Carries every model of keras.applications into tf_keras and back.

    python benchmarks/bridge_zoo.py [--only ResNet50] [--force]

One row a model: the largest difference of a layer's output relative to its largest value, end to
end into tf_keras and back in Keras 3 (batch statistics set from one batch), the names, seconds.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import rows
from prune_zoo import build, names, settle


def relative(a: Any, b: Any) -> float:
    """Largest difference over the largest magnitude."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))


def measure(row: str) -> dict[str, Any]:
    """The columns of one model."""
    from tfedge.bridge import to_keras3, to_tf_keras

    model = build(f"keras3:{row}")
    x = settle(model)
    begin = time.perf_counter()
    crossed = to_tf_keras(model)
    there = time.perf_counter() - begin
    back = to_keras3(crossed)
    want = model(x, training=False)
    ends = relative(crossed(x, training=False), want), relative(back(x, training=False), want)
    names_kept = {x.name for x in model.layers} <= {x.name for x in back.layers}
    columns: dict[str, Any] = {
        "into tf_keras": f"{ends[0]:.1e}",
        "and back": f"{ends[1]:.1e}",
        "names": "kept" if names_kept else "nested models written out",
        "layer by layer": f"{worst_layer(model, crossed, x):.1e}",
        "seconds": round(there, 2),
    }
    return {"error": "differs", **columns} if max(ends) > 1e-4 else columns


def worst_layer(model: Any, crossed: Any, x: np.ndarray) -> float:
    """Each layer of both models on the same input, that of the Keras 3 model."""
    from tfedge._keras import tf
    from tfedge.graph.trace import flatten, map_structure, trace

    graph, other = trace(model), trace(crossed)
    twins = {c.name: c.layer for c in other.calls}
    values: dict[int, Any] = {graph.inputs[0]: tf.constant(x)}
    worst = 0.0
    for call in graph.calls:
        args = map_structure(
            lambda v: values[v.index] if type(v).__name__ == "Ref" else v, call.args
        )
        result = call.layer(*args)
        if call.name in twins and hasattr(call.layer, "trainable"):
            worst = max(worst, relative(twins[call.name](*args), result))
        values.update(zip(call.outputs, flatten(result), strict=True))
    return worst


if __name__ == "__main__":
    every = [n.partition(":")[2] for n in names("keras3")]
    rows.main("bridge_zoo", every, measure, __doc__ or "")

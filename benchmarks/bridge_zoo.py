"""Carries models into tf_keras and back: keras.applications, and groups of layers and operations.

    python benchmarks/bridge_zoo.py [--only ResNet50] [--only ops:arithmetic] [--force]

One row a model of keras.applications: the largest difference of a layer's output relative to its
largest value, end to end into tf_keras and back in Keras 3 (batch statistics set from one batch),
the names, seconds. One row a group of the cases in tests/bridge_layers.py and tests/bridge_ops.py,
from Keras 3 ("layers:", "ops:") and from tf_keras ("tf_layers:", "tf_ops:"): the largest difference
of any case there, back, and after the crossed model was saved and loaded.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rows
from prune_zoo import build, names, settle

sys.path.append(str(Path(__file__).parents[1]))  # for the cases of the tests

GROUPS = {
    "layers": "dense lambda conv pool activation norm random recurrent tokens merge attention "
    "preprocessing keras3",
    "tf_layers": "dense lambda conv pool activation norm random recurrent tokens merge attention "
    "preprocessing",
    "ops": "arithmetic comparison elementwise reduction shapes joining indexing products images",
    "tf_ops": "arithmetic indexing elementwise binary reduction shapes products",
}
HALF = ("float16", "bfloat16")


def relative(a: Any, b: Any) -> float:
    """Largest difference over the largest magnitude."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))


def measure(row: str) -> dict[str, Any]:
    """The columns of one model or group."""
    kind, _, group = row.partition(":")
    return measure_group(kind, group) if group else measure_application(row)


def measure_application(row: str) -> dict[str, Any]:
    """The columns of one model of keras.applications."""
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
        "there": f"{ends[0]:.1e}",
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


def measure_group(kind: str, group: str) -> dict[str, Any]:
    """The columns of one group of cases, built side by side into one model."""
    import tfedge
    from tests.bridge_checks import outputs
    from tests.bridge_checks import relative as difference
    from tests.bridge_layers import cube_root
    from tfedge.bridge import to_keras3, to_tf_keras

    forth, back = (to_keras3, to_tf_keras) if kind[:3] == "tf_" else (to_tf_keras, to_keras3)
    model, x, case_names = build_group(kind, group)
    want = outputs(model, x)
    begin = time.perf_counter()
    crossed = forth(model)
    seconds = time.perf_counter() - begin
    models = {"there": crossed, "and back": back(crossed)}
    if group != "lambda":  # a file's bytecode is not run
        with tempfile.TemporaryDirectory() as folder:
            crossed.save(Path(folder) / "m.keras")
            models["saved"] = tfedge.load_model(Path(folder) / "m.keras", {"cube_root": cube_root})
    columns: dict[str, Any] = {"cases": len(set(case_names))}
    wrong: set[str] = set()
    for column, found in models.items():
        errors = [difference(a, b) for a, b in zip(outputs(found, x), want, strict=True)]
        exact = [e for e, w in zip(errors, want, strict=True) if w.dtype.name not in HALF]
        columns[column] = f"{max(exact):.1e}"
        limits = [2e-2 if w.dtype.name in HALF else 1e-5 for w in want]
        wrong |= {n for n, e, most in zip(case_names, errors, limits, strict=True) if e > most}
    columns["seconds"] = round(seconds, 2)
    return {"error": f"differs: {', '.join(sorted(wrong))}", **columns} if wrong else columns


def build_group(kind: str, group: str) -> tuple[Any, Any, list[str]]:
    """The model of a group, its inputs, and the name of the case of each output."""
    from tests.bridge_layers import LAYERS, build_cases
    from tests.bridge_ops import OPS, TF_OPS, build_ops
    from tfedge._keras import keras3, library, tf

    flavour = "tf_keras" if kind.startswith("tf_") else "keras3"
    if kind.endswith("layers"):
        cases = {n: c for n, c in LAYERS[group].items() if c.only in ("", flavour)}
        return build_cases(library(flavour), cases)
    if flavour == "keras3":
        return build_ops(keras3(), keras3().ops, OPS[group])
    return build_ops(library(flavour), tf, TF_OPS[group])


if __name__ == "__main__":
    every = [n.partition(":")[2] for n in names("keras3")]
    groups = [f"{kind}:{name}" for kind, found in GROUPS.items() for name in found.split()]
    rows.main("bridge_zoo", [*every, *groups], measure, __doc__ or "")

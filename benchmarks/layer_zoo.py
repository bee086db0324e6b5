"""Every layer kind under quantization-aware training: integer, or what stays float and why.

    python benchmarks/layer_zoo.py [--only LayerNormalization] [--force]

One row a layer kind (tests/qat_layers.py), alone and between two convolutions or dense layers, in
w8a8 and in w8a16: "integer" or the reasons; the largest distance, in steps of the output, between
the quantize-aware model and its file under XNNPACK / the builtin kernels / the reference kernels on
64 random inputs that calibrated it; and the largest difference between the layer and what it was
rewritten to, both in float, relative to the output's size.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import rows

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/qat_layers.py has the layers

from tests.qat_layers import CASES  # noqa: E402


def measure(row: str) -> dict[str, Any]:
    """The columns of one layer kind."""
    case = CASES[row]
    columns: dict[str, Any] = {}
    for place, build in (("alone", case.alone), ("inside", case.inside)):
        model, data = build(), case.data()
        columns[f"{place} rewritten"] = _rewriting(model, data)
        for scheme in ("w8a8", "w8a16"):
            columns |= {f"{place} {k}": v for k, v in _judged(model, data, scheme).items()}
    return columns


def _rewriting(model: Any, data: dict) -> str:
    from tests.reference import difference
    from tfedge._keras import tf
    from tfedge.graph.trace import trace
    from tfedge.quant.divisors import divisor_bounds
    from tfedge.quant.normalise import normalise

    graph = trace(model)
    equal = normalise(graph, bounds=divisor_bounds(graph, data)).model
    flat = [tf.constant(data[n]) for n in model.input_names]
    results = [tf.nest.flatten(m(flat, training=False)) for m in (equal, model)]
    return f"{difference(*[[t.numpy() for t in r] for r in results]):.0e}"


def _judged(model: Any, data: dict, scheme: str) -> dict[str, str]:
    """What one scheme makes of a model."""
    import tfedge
    from tests.run_file import RESOLVERS, float_ops
    from tfedge import quant

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            aware = quant.quantize_aware(model, scheme, data)
            file = tfedge.convert(aware, scheme)
        except (tfedge.errors.TfedgeError, ValueError, TypeError) as error:
            fails = f"FAILS: {type(error).__name__}: {error}"[:250]
            return {scheme: _reasons(caught) or fails}
    left = sorted(set(float_ops(file.data)))
    verdict = _reasons(caught) or "integer"
    if left and verdict == "integer":
        verdict = f"FLOAT OPS: {' '.join(left)}"
    apart = [_steps(aware, file.data, data, r) for r in RESOLVERS]
    return {scheme: verdict, f"{scheme} steps": " / ".join(apart)}


def _reasons(caught: list[Any]) -> str:
    from tfedge import quant

    said = [str(c.message) for c in caught if c.category is quant.QuantizationWarning]
    return "; ".join(m.split(": ", 1)[1] for m in said)


def _steps(aware: Any, file: bytes, data: dict, resolver: Any) -> str:
    """The largest distance; "none" where these kernels do not know an op of the file."""
    from tests.run_file import steps_apart

    try:
        return f"{steps_apart(aware, file, data, resolver).max():.1f}"
    except ValueError as error:
        if "Didn't find op" not in str(error):
            raise
        return "none"


if __name__ == "__main__":
    rows.main("layer_zoo", list(CASES), measure, __doc__ or "", together=12)

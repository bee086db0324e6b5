"""What the divisors of a model are on calibration data, which decides how a division is written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tfedge._keras import tf
from tfedge.data import as_batches
from tfedge.graph.arguments import parameters
from tfedge.graph.canonical import symbol_of
from tfedge.graph.rewrite import Rewriter, as_is
from tfedge.graph.trace import Call, Graph, Ref
from tfedge.quant.ranges import filled, input_specs

DIVISIONS = ("math.truediv", "math.divide", "math.divide_no_nan", "math.reciprocal")
"""Operations that divide, by function (see `canonical.symbol_of`)."""

_BATCH = 32


def divisor_of(call: Call) -> int | None:
    """The tensor that a call divides by; None where it does not, or divides by a constant."""
    if symbol_of(call.layer) not in DIVISIONS:
        return None
    if symbol_of(call.layer) == "math.reciprocal":
        return call.inputs[0]
    given = parameters(call.layer, call)
    value = next((given[k].value for k in ("y", "denominator") if k in given), None)
    return value.index if isinstance(value, Ref) else None


def divisors(graph: Graph) -> dict[str, int]:
    """The divisors of a traced model: tensor numbers by name of the dividing call."""
    found = {c.name: divisor_of(c) for c in graph.calls}
    return {name: number for name, number in found.items() if number is not None}


def divisor_bounds(graph: Graph, data: Any) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each divisor in the float model.

    Args:
        graph: A traced tf_keras model.
        data: As `tfedge.data.as_batches` takes them; None gives no bounds.

    Returns:
        (low, high) by name of the dividing call.

    Raises:
        InputError: The data do not fit the model's inputs.
    """
    found = divisors(graph)
    if data is None or not found:
        return {}
    part = replace(graph, outputs=[Ref(i) for i in found.values()], model=None)
    model = Rewriter(part, as_is).run()
    bounds = dict.fromkeys(found, (math.inf, -math.inf))
    specs = input_specs(model)
    batch = specs[0].shape[0] or _BATCH
    for arrays in as_batches(data, specs, batch=batch, role="calibration data"):
        flat = [tf.constant(filled(arrays[s.name], s.shape[0])) for s in specs]
        results = model(tf.nest.pack_sequence_as(model._nested_inputs, flat), training=False)
        for name, values in zip(found, tf.nest.flatten(results), strict=True):
            low, high = bounds[name]
            least, most = float(tf.reduce_min(values)), float(tf.reduce_max(values))
            bounds[name] = (min(low, least), max(high, most))
    return bounds

"""Setting the ranges of a quantize-aware model: from data, or from a model of other bits."""

from __future__ import annotations

import math
from typing import Any

from tfedge._keras import tf
from tfedge.data import InputSpec, as_batches
from tfedge.errors import ModelError
from tfedge.quant import observe
from tfedge.quant.quantizers import INT16_RATIO, set_range
from tfedge.quantized import UNSET, ranges

_BATCH = 32


def input_specs(model: Any) -> list[InputSpec]:
    """Name, shape (batch first) and dtype of each input of a functional model, in order."""
    return [
        InputSpec(name, tuple(t.shape), t.dtype.name)
        for name, t in zip(model.input_names, model.inputs, strict=True)
    ]


def calibrate(model: Any, data: Any) -> None:
    """Sets every range to the smallest and largest value that the float network shows there.

    Also sets the kernels' ranges to their present values, so that the model can be converted
    without training.

    Args:
        model: A quantize-aware model made by `quantize_aware`; its ranges are changed.
        data: As `tfedge.data.as_batches` takes them.

    Raises:
        InputError: The data do not fit the model's inputs, or hold NaN.
        ModelError: An activation is not finite on these data.
    """
    specs = input_specs(model)
    batch = specs[0].shape[0] or _BATCH
    with observe.watching() as watcher:
        for arrays in as_batches(data, specs, batch=batch, role="calibration data"):
            flat = [tf.constant(_filled(arrays[s.name], s.shape[0])) for s in specs]
            model(tf.nest.pack_sequence_as(model._nested_inputs, flat), training=False)
    for entry in watcher.seen.values():
        if not (math.isfinite(entry.low) and math.isfinite(entry.high)):
            found = f"[{entry.low}, {entry.high}] at {entry.low_variable.name}"
            raise ModelError("an activation is not finite on the calibration data", found)
        low, high = nice_range(entry.low, entry.high, entry.bits)
        set_range(entry.low_variable, entry.high_variable, low, high)


def _filled(array: Any, batch: int | None) -> Any:
    """Repeats samples up to a fixed batch size, which changes no minimum or maximum."""
    if batch is None or len(array) == batch:
        return array
    return tf.gather(array, [i % len(array) for i in range(batch)])


def nice_range(low: float, high: float, bits: int) -> tuple[float, float]:
    """The range that a quantizer gets for values in [low, high].

    Args:
        low: Smallest value seen.
        high: Largest value seen.
        bits: 8: [min(low, 0), max(high, 0)]. 16: max = m, min = -m*32768/32767 (zero point 0).

    Returns:
        (min, max) with 0 inside and max > min (an activation that is always 0 gets [0, 1]); never
        exactly the range that means "unset".
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = 1.0
    if bits == 16:
        high = max(-low, high)
        high = _after(high) if high == UNSET[1] else high
        return -high * INT16_RATIO, high
    if (low, high) == UNSET:
        high = _after(high)
    return low, high


def _after(value: float) -> float:
    """A little more, also in float32."""
    return value * (1.0 + 2.0**-20)


def copy_ranges(source: Any, target: Any) -> None:
    """Copies weights and ranges between two models of one structure, whatever their bits.

    Args:
        source: A quantize-aware model with its ranges set.
        target: One with layers of the same names; its activation bits decide the form of
            the ranges.
    """
    for layer in source.layers:
        target.get_layer(layer.name).set_weights(layer.get_weights())
    for row in ranges(target):
        if row.role != "weight":
            low, high = float(row.low.numpy()), float(row.high.numpy())
            low, high = nice_range(low, high, row.bits)
            set_range(row.low, row.high, low, high)

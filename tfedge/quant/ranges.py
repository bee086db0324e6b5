"""Setting the ranges of a quantize-aware model: from data, or from a model of other bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.data import InputSpec, as_batches
from tfedge.errors import InputError, ModelError
from tfedge.quant import observe
from tfedge.quant.configs import InputQuantizer, TfedgeQuantizeWrapper
from tfedge.quant.ends import INT16_RATIO, Derived, above_unset, check_mode, set_range
from tfedge.quant.preserving import check_kind, find_clusters
from tfedge.quant.quantizers import WeightQuantizer
from tfedge.quantized import UNSET, ranges

_BATCH = 32
_LIMITS = np.linspace(0.3, 1.0, 36)  # Shares of a kernel's largest magnitude that are tried.


def check_simulation(mode: str, preserve: str, calibration: Any) -> dict[str, str]:
    """The arguments of `quantize_aware` as fields of `configs.Simulation`.

    Args:
        mode: How activation ranges come about.
        preserve: What stays in kernels.
        calibration: Data, or None.

    Raises:
        InputError: A value that does not exist, or fixed ranges without data to set them.
    """
    if check_mode(mode) == "fixed" and calibration is None:
        raise InputError(
            "fixed ranges must come from calibration data", "calibration=None",
            "Pass 100 or more typical inputs, or ranges='moving_average'",
        )  # fmt: skip
    return {"ranges": mode, "preserve": check_kind(preserve)}


def prepare_kernels(model: Any) -> None:
    """Takes from the kernels what their quantizers start from: learned limits, and clusters.

    Args:
        model: A quantize-aware model with the weights of its float model.

    Raises:
        InputError: Zeros or clusters are to be preserved, and no kernel has any.
    """
    kinds, found = set(), False
    for kernel, quantizer, variables in _kernels(model):
        kinds.add(quantizer.preserve)
        values = kernel.numpy()
        if quantizer.preserve == "sparsity":
            found = found or not values.all()
        elif quantizer.preserve == "clusters":
            clusters = find_clusters(values)
            if clusters is not None:
                variables["clusters"].assign(clusters)
                found = True
    if kinds - {""} and not found:
        kind = (kinds - {""}).pop()
        raise InputError(
            "there is nothing to preserve", f"preserve='{kind}': no kernel has "
            + ("a weight that is 0" if kind == "sparsity" else "256 different values or fewer"),
            "Prune or cluster the model first, or leave preserve out",
        )  # fmt: skip
    start_limits(model)


def start_limits(model: Any) -> None:
    """Sets the learned limits of kernels to those of the least mean squared error.

    Args:
        model: A quantize-aware model; without learned ranges nothing changes.
    """
    for kernel, quantizer, variables in _kernels(model):
        if quantizer.ranges == "learned":
            variables["max_var"].assign(_best_limit(kernel, quantizer))


def _best_limit(kernel: Any, quantizer: WeightQuantizer) -> np.ndarray:
    """Per scale, the share of the largest magnitude that quantizes the kernel best."""
    largest = np.asarray(quantizer.largest(kernel))
    values = np.asarray(quantizer.grouped(kernel.numpy()))
    axes = tuple(range(values.ndim - 1)) if largest.ndim else None
    top = 2 ** (quantizer.num_bits - 1) - 1
    best, least = largest, np.full(largest.shape, np.inf)
    for share in _LIMITS:
        step = share * largest / top
        codes = np.clip(np.round(values / step), -top, top)
        error = np.mean((codes * step - values) ** 2, axis=axes)
        best = np.where(error < least, share * largest, best)
        least = np.minimum(error, least)
    return best


def _kernels(model: Any) -> list[tuple[Any, WeightQuantizer, dict[str, Any]]]:
    """Every quantized kernel with its quantizer and that one's variables."""
    wrappers = [x for x in model.layers if isinstance(x, TfedgeQuantizeWrapper)]
    return [row for wrapper in wrappers for row in wrapper._weight_vars]


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
    watcher = watched(model, data)
    for entry in watcher.seen.values():
        if not (math.isfinite(entry.low) and math.isfinite(entry.high)):
            found = f"[{entry.low}, {entry.high}] at {entry.low_variable.name}"
            raise ModelError("an activation is not finite on the calibration data", found)
        low, high = nice_range(entry.low, entry.high, entry.bits)
        set_range(entry.low_variable, entry.high_variable, low, high)


def watched(model: Any, data: Any) -> Any:
    """What reaches every quantizer while the float path runs over data; a `Watcher`."""
    with observe.watching() as watcher:
        run_over(model, data)
    return watcher


def run_over(model: Any, data: Any) -> None:
    """Runs a model eagerly over data of any form, batch by batch.

    Args:
        model: A quantize-aware model.
        data: As `tfedge.data.as_batches` takes them.

    Raises:
        InputError: The data do not fit the model's inputs, or hold NaN.
    """
    specs = input_specs(model)
    batch = specs[0].shape[0] or _BATCH
    for arrays in as_batches(data, specs, batch=batch, role="calibration data"):
        flat = [tf.constant(filled(arrays[s.name], s.shape[0])) for s in specs]
        model(tf.nest.pack_sequence_as(model._nested_inputs, flat), training=False)


def filled(array: Any, batch: int | None) -> Any:
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
        high = above_unset(high) if high == UNSET[1] else high
        return -high * INT16_RATIO, high
    if (low, high) == UNSET:
        high = above_unset(high)
    return low, high


def copy_ranges(source: Any, target: Any) -> None:
    """Copies weights and ranges between two models of one structure, whatever their bits.

    Args:
        source: A quantize-aware model with its ranges set.
        target: One with layers of the same names; its activation bits decide the form of
            the ranges.
    """
    for layer in source.layers:
        other = target.get_layer(layer.name)
        if isinstance(layer, TfedgeQuantizeWrapper):
            layer, other = layer.layer, other.layer
        elif isinstance(layer, InputQuantizer):
            continue
        other.set_weights(layer.get_weights())
    for (*_, variables), (*_, others) in zip(_kernels(source), _kernels(target), strict=True):
        for key, value in variables.items():
            if not isinstance(value, Derived):
                others[key].assign(value)
    for old, new in zip(ranges(source), ranges(target), strict=True):
        if new.role != "weight":
            low, high = float(old.low.numpy()), float(old.high.numpy())
            set_range(new.low, new.high, *nice_range(low, high, new.bits))

"""Quantization-aware training: a float model in, the same model simulating integers out.

`quantize_aware` never trains: the result is an ordinary tf_keras model for `compile` and `fit`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfedge._keras import flavour, keras, tf
from tfedge.bridge import to_float32
from tfedge.bridge.precision import float32_policy
from tfedge.data import repeatable
from tfedge.errors import InputError, ModelError
from tfedge.graph.trace import flatten, functional_of, trace
from tfedge.quant.divisors import divisor_bounds, divisors
from tfedge.quant.normalise import normalise
from tfedge.quant.ranges import calibrate, check_simulation, prepare_kernels
from tfedge.quant.treatment import QAT_SCHEMES
from tfedge.quant.twins import without_twins
from tfedge.quant.wiring import wired
from tfedge.quantized import (
    Range,
    is_quantized,
    name_outputs,
    output_names,
    qat_scheme,
    ranges,
    unset_ranges,
)
from tfedge.schemes import get_scheme

_NOTES: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = weakref.WeakKeyDictionary()
_ORIGINS: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class QatReport:
    """What is quantized in a quantize-aware model.

    Attributes:
        scheme: "w8a8" or "w8a16".
        ranges: Every quantizer with its variables.
        unset: Layers whose range neither calibration nor training has set yet.
        notes: What was rewritten, and why; empty for a model that was loaded from a file.
    """

    scheme: str
    ranges: tuple[Range, ...]
    unset: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """A few readable lines."""
        weights = sum(r.role == "weight" for r in self.ranges)
        lines = [
            f"{self.scheme}: {weights} kernels and {len(self.ranges) - weights} activations "
            "quantized"
        ]
        if self.unset:
            lines.append(f"no range yet (train, or give calibration data): {_few(self.unset)}")
        return "\n".join([*lines, *self.notes])


class QuantizationWarning(UserWarning):
    """Some layers of a model do not get the scheme that was asked for, or train otherwise."""


@float32_policy()
def quantize_aware(
    model: Any,
    scheme: str = "w8a8",
    calibration: Any = None,
    *,
    overrides: Mapping[str, str] | None = None,
    strict: bool = False,
    ranges: str = "moving_average",
    preserve: str = "",
) -> Any:
    """Makes a copy of a model that simulates integer arithmetic in training and inference.

    Kernels are fake-quantized to symmetric int8 or int4 (per output channel for convolutions),
    activations to int8 (asymmetric) or int16 (symmetric), at the places where the TFLite file will
    quantize. The gradient passes straight through (Jacob et al. 2018, "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference").

    A layer without an integer form stays float, between a dequantize and a quantize; one without a
    kernel for 16-bit activations, or for 4-bit weights, is quantized as w8a8. Both are listed in a
    `QuantizationWarning` and in `report(model).notes`, with the reason.

    Args:
        model: A float Functional or Sequential model; it is not changed. A Keras 3 model is carried
            into tf_keras first (`tfedge.bridge.to_tf_keras`).
        scheme: "w8a8", "w8a16" or "w4a8" (4-bit kernels of Dense and Conv2D: XNNPACK computes with
            those of Dense; those of convolutions are unpacked at each inference: a smaller file,
            no faster one).
        calibration: Data as `tfedge.data.as_batches` takes them (array, dict by input name,
            iterable, tf.data); labels are left out. The ranges start at what the float model shows
            on them; 100 to 500 samples serve. None: each range starts at the first training batch,
            and the model cannot be converted before it was trained.
        overrides: Scheme by layer name or regular expression (of the whole name): one of
            `LAYER_SCHEMES`, "float" among them. Batch norm and relu go with the convolution before
            them; layers that only move values about have the scheme of what they move.
        strict: True makes a layer that does not get its scheme an error.
        ranges: How activation ranges come about in training. "moving_average": they follow the
            batches' minima and maxima, 0.001 of the way at each step (Jacob et al. 2018).
            "fixed": they stay as calibrated, the cheapest. "learned": gradients train them, and
            the limits of kernels too (LSQ and LSQ+; see `quant.fake_quant.learned`), which pays
            with few bits. Learned ranges are trainable variables: keep weight decay off them with
            `optimizer.exclude_from_weight_decay(var_names=list(tfedge.quant.RANGE_NAMES))`; with
            Adam their steps have the size of the learning rate, so that it should be small beside
            the ranges (1e-4 is usual).
        preserve: "": nothing. "sparsity": weights that are 0 stay 0. "clusters": weights of a
            kernel that are equal stay equal, and zeros stay 0 (kernels of up to 256 different
            values; one that batch norm was folded into beforehand has more). Both hold with
            every optimizer that works element by element.

    Returns:
        A new tf_keras Functional model with the same inputs and outputs, uncompiled. Its layers
        are named "quant_<layer>". Save it as `.h5` or `.keras`, and load it with
        `custom_objects=tfedge.quant.custom_objects()`.

    Raises:
        ModelError: The model is no float Functional or Sequential model, is quantized
            already, has no layer that can be quantized, or (`strict`) has
            layers that do not get their scheme (all of them are listed).
        InputError: The scheme cannot be trained, an override fits no layer, the calibration data do
            not fit (or are missing, for fixed ranges), or there is nothing to preserve.
    """
    simulation = check_simulation(ranges, preserve, calibration)
    model = to_float32(model)
    _check(model, scheme)
    graph = trace(model)
    if divisors(graph):
        calibration = repeatable(calibration)
    bounds = divisor_bounds(graph, calibration)
    rewritten = normalise(graph, scheme, overrides, strict, bounds)
    if rewritten.refused:
        warnings.warn(_listed(rewritten.refused), QuantizationWarning, stacklevel=2)
    if rewritten.caveats:
        said = "layers that train otherwise than in the float model: "
        warnings.warn(said + "; ".join(rewritten.caveats), QuantizationWarning, stacklevel=2)
    equal = _with_output_names(rewritten.model, output_names(functional_of(model)))
    added = {x.name for x in equal.layers} - rewritten.schemes.keys()
    schemes = {**dict.fromkeys(added, scheme), **rewritten.schemes}
    single, twins = without_twins(trace(equal), schemes)
    result = wired(single, schemes, simulation)
    if not is_quantized(result):
        raise ModelError(
            "the model has nothing to quantize: every layer stays float",
            _listed(rewritten.refused) if rewritten.refused else "overrides that say so",
            "Convert it with scheme='float32' or 'float16', or replace these layers",
        )
    name_outputs(result)
    prepare_kernels(result)
    _ORIGINS[result] = rewritten.origin
    notes = [*rewritten.notes.values(), *twins.values()]
    _NOTES[result] = (*rewritten.refused, *rewritten.caveats, *notes)
    if calibration is not None:
        calibrate(result, calibration)
    return result


def _listed(refused: list[str]) -> str:
    shown = "; ".join(refused[:8])
    more = f"; and {len(refused) - 8} more" if len(refused) > 8 else ""
    return f"{len(refused)} layers do not get the scheme that was asked for: {shown}{more}"


def _check(model: Any, scheme: str) -> None:
    """The errors that need no look at the layers."""
    get_scheme(scheme)
    if scheme not in QAT_SCHEMES:
        raise InputError(
            "this scheme has no quantization-aware training", f"'{scheme}'",
            f"Choose one of: {', '.join(QAT_SCHEMES)}",
        )  # fmt: skip
    if flavour(model) != "tf_keras":
        raise ModelError(
            "quantization-aware training takes Keras models", type(model).__name__,
            "Load the model with tfedge.load_model",
        )  # fmt: skip
    if is_quantized(model):
        raise ModelError("the model is quantize-aware already", f"'{model.name}'")
    mixed = [x.name for x in model.layers if x.compute_dtype not in ("float32", None)]
    mixed = [n for n in mixed if not isinstance(model.get_layer(n), keras.layers.InputLayer)]
    if mixed:
        raise ModelError(
            "fake quantization needs float32 arithmetic",
            f"{model.get_layer(mixed[0]).compute_dtype} in {_few(mixed)}",
            "Rebuild the model under the policy 'float32'",
        )


def _with_output_names(model: Any, names: list[str]) -> Any:
    """The model with its outputs under other names, by a layer that does nothing behind each.

    Needed where the output of a nested model bears that model's name: its layers stand alone now.
    """
    taken = {layer.name for layer in model.layers}
    have = output_names(model)
    if have == names:
        return model
    flat = [
        tensor
        if was == name or name in taken
        else keras.layers.Activation("linear", name=name)(tensor)
        for tensor, was, name in zip(flatten(model._nested_outputs), have, names, strict=True)
    ]
    packed = tf.nest.pack_sequence_as(model._nested_outputs, flat)
    return keras.Model(model._nested_inputs, packed, name=model.name)


def _few(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def origins(model: Any) -> dict[str, str]:
    """Which layers of the float model those of its quantize-aware form came from.

    Args:
        model: What `quantize_aware` returned, in the same process.

    Returns:
        Name of a layer without the "quant_" -> name of the layer in the float model; empty for
        models that were loaded from a file.
    """
    return dict(_ORIGINS.get(model, {}))


def copy_notes(source: Any, target: Any) -> None:
    """Gives a model that was rebuilt from another the notes of that."""
    _NOTES[target] = _NOTES.get(source, ())


def report(model: Any) -> QatReport:
    """What is quantized in a quantize-aware model, and what was rewritten to get there.

    Raises:
        ModelError: The model is not quantize-aware.
    """
    scheme = qat_scheme(model)
    notes = _NOTES.get(model, ())
    return QatReport(scheme, tuple(ranges(model)), tuple(unset_ranges(model)), notes)

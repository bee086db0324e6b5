"""Post-training quantization: a float model and a few unlabelled samples, no training.

A row of named steps, each of which must gain: after every step the simulated integer network is
compared with the float one on samples that the step has not seen, and a step that made the outputs
worse is undone. What each gained is in the report.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.bridge import to_float32
from tfedge.bridge.precision import float32_policy
from tfedge.data import repeatable, stack
from tfedge.errors import InputError, did_you_mean
from tfedge.graph import canonical
from tfedge.quant import bias_correction, rounding
from tfedge.quant.absorb import absorbed
from tfedge.quant.clipping import RANGE_METHODS, clip, histograms_of
from tfedge.quant.equalise import equalised
from tfedge.quant.qat import QuantizationWarning, quantize_aware
from tfedge.quant.ranges import input_specs, run_over, watched
from tfedge.schemes import get_scheme

_HELD, _LEARN = 32, 64
DEFAULT_STEPS = ("equalise", "absorb", "ranges", "bias")
"""What `post_training` does where nothing else is said."""


@dataclass(frozen=True)
class PtqStep:
    """One step of `post_training`.

    Attributes:
        name: One of `PTQ_STEPS`, or "min_max" for the start.
        sqnr_db: Signal-to-noise ratio of the outputs after it, in dB, on held-out samples; the
            lowest of all outputs.
        gained_db: The difference that it made; 0 where it was undone.
        kept: False where it was undone.
        seconds: What it took.
        note: What was done.
    """

    name: str
    sqnr_db: float
    gained_db: float
    kept: bool
    seconds: float
    note: str

    def facts(self) -> dict[str, Any]:
        """The fields, rounded, as JSON values; an infinite ratio is None."""
        exact = not math.isfinite(self.sqnr_db)
        return {
            "step": self.name,
            "sqnr_db": None if exact else round(self.sqnr_db, 2),
            "gained_db": round(self.gained_db, 2),
            "kept": self.kept,
            "seconds": round(self.seconds, 2),
            "note": self.note,
        }


def step_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Steps as `post_training` takes them.

    Args:
        given: "default", names separated by commas, or names.

    Raises:
        InputError: An unknown step, or both gptq and adaround.
    """
    if isinstance(given, str):
        given = DEFAULT_STEPS if given == "default" else [n.strip() for n in given.split(",")]
    for name in given:
        if name not in PTQ_STEPS:
            raise InputError("unknown step", repr(name), did_you_mean(str(name), PTQ_STEPS))
    if {"gptq", "adaround"} <= set(given):
        raise InputError(
            "gptq and adaround both decide how each weight is rounded", "both",
            "Choose one of them",
        )  # fmt: skip
    return tuple(given)


class _Run:
    """The state between steps.

    Args:
        source: The float model, batch norms folded.
        options: Scheme and overrides, for `quantize_aware`.
        data: Calibration data of any form.
        samples: The first of them, in memory: arrays by input.
    """

    def __init__(
        self, source: Any, options: dict[str, Any], data: Any, samples: list[np.ndarray]
    ) -> None:
        self.source, self.options, self.data = source, options, data
        held = max(1, min(_HELD, len(samples[0]) // 4))
        self.held = [tf.constant(s[:held]) for s in samples]
        rest = samples if len(samples[0]) == held else [s[held:] for s in samples]
        self.learn = [tf.constant(s[:_LEARN]) for s in rest]
        self.wanted = _outputs(source, self.held)
        self.warned = False
        self.model = self.quantized(source)
        self.steps: list[PtqStep] = []

    def quantized(self, source: Any) -> Any:
        """The quantize-aware form of a float model, ranges from the smallest and largest values."""
        with warnings.catch_warnings():
            if self.warned:
                warnings.simplefilter("ignore", QuantizationWarning)
            self.warned = True
            return quantize_aware(source, calibration=self.data, **self.options)

    def sqnr(self, model: Any) -> float:
        """How near the outputs are to the float model's, in dB."""
        found = []
        for got, want in zip(_outputs(model, self.held), self.wanted, strict=True):
            noise = float(np.mean(np.square(got - want)))
            signal = float(np.mean(np.square(want)))
            found.append(10 * math.log10(signal / noise) if noise and signal else math.inf)
        return min(found)


def _outputs(model: Any, samples: list[Any]) -> list[np.ndarray]:
    packed = tf.nest.pack_sequence_as(model._nested_inputs, samples)
    return [np.asarray(t, np.float64) for t in tf.nest.flatten(model(packed, training=False))]


Step = Callable[[_Run], tuple[Any, str]]


def _equalise(run: _Run) -> tuple[Any, str]:
    """Cross-layer equalisation; see `equalise`."""
    source, count = equalised(run.source, run.learn)
    if not count:
        return run.model, "no group of channels that scales pass through"
    run.source = source
    return run.quantized(source), f"{count} groups of channels scaled"


def _absorb(run: _Run) -> tuple[Any, str]:
    """High-bias absorption; see `absorb`."""
    source, count = absorbed(run.source, run.learn)
    if not count:
        return run.model, "no channel that is above 0 throughout before a layer without padding"
    run.source = source
    return run.quantized(source), f"{count} channels shifted"


def _ranges(run: _Run) -> tuple[Any, str]:
    """The best of several ways to clip activations; see `clipping`."""
    model = run.model
    start = model.get_weights()
    ends = watched(model, run.data)
    histograms = histograms_of(lambda: run_over(model, run.data), ends)
    best, name, weights = run.sqnr(model), "min_max", start
    for method in RANGE_METHODS:
        clip(ends, histograms, method)
        found = run.sqnr(model)
        if found > best:
            best, name, weights = found, method, model.get_weights()
    model.set_weights(weights)
    return model, f"{name} chosen among {', '.join(RANGE_METHODS)}"


def _bias(run: _Run) -> tuple[Any, str]:
    """Empirical bias correction; see `bias_correction`."""
    return run.model, f"{bias_correction.correct(run.model, run.learn)} layers corrected"


def _analytic_bias(run: _Run) -> tuple[Any, str]:
    """Analytic bias correction; see `bias_correction`."""
    return run.model, f"{bias_correction.correct_expected(run.model, run.learn)} layers corrected"


def _gptq(run: _Run) -> tuple[Any, str]:
    """GPTQ; see `rounding.gptq`."""
    return run.model, f"{rounding.gptq(run.model, run.learn)} layers rounded"


def _adaround(run: _Run) -> tuple[Any, str]:
    """AdaRound; see `rounding.adaround`."""
    return run.model, f"{rounding.adaround(run.model, run.learn)} layers rounded"


PTQ_STEPS: dict[str, Step] = {
    "equalise": _equalise,
    "absorb": _absorb,
    "ranges": _ranges,
    "gptq": _gptq,
    "adaround": _adaround,
    "analytic_bias": _analytic_bias,
    "bias": _bias,
}
"""The steps by name, in the order in which they run."""


@float32_policy()
def post_training(
    model: Any,
    scheme: str = "w8a8",
    calibration: Any = None,
    *,
    steps: str | Sequence[str] = DEFAULT_STEPS,
    overrides: Mapping[str, str] | None = None,
) -> tuple[Any, tuple[PtqStep, ...]]:
    """Quantizes a trained float model without training it.

    Args:
        model: As for `quantize_aware`.
        scheme: "w8a8", "w8a16" or "w4a8".
        calibration: Typical inputs without labels, in any form that `tfedge.data.as_batches` takes;
            read twice, batch by batch, so that their number is free. 100 to 500 serve. The first
            up to 96 are kept in memory: 32 to judge by, 64 for the steps that learn.
        steps: Names in `PTQ_STEPS`, or "default"; they run in the order of that table. "gptq" and
            "adaround" take seconds to minutes; one of them at most.
        overrides: As for `quantize_aware`.

    Returns:
        A quantize-aware model that is ready to be converted (or trained further), and what each
        step gained.

    Raises:
        InputError: An unknown step, both gptq and adaround, no calibration data or such that do not
            fit.
        ModelError: As `quantize_aware`.
    """
    steps = step_names(steps)
    if calibration is None:
        raise InputError(
            "post-training quantization needs calibration data", "none",
            "Pass calibration=... (100 or more typical inputs)",
        )  # fmt: skip
    began = time.monotonic()
    model = to_float32(model)
    source = canonical(model, fold_batch_norm=True)
    options: dict[str, Any] = {"scheme": scheme, "overrides": overrides}
    if get_scheme(scheme).weight_bits < 8:
        options["ranges"] = "learned"  # their limits start at the least squared error
    calibration = repeatable(calibration)
    samples = list(stack(calibration, input_specs(source), limit=_HELD + _LEARN).values())
    run = _Run(source, options, calibration, samples)
    before = run.sqnr(run.model)
    report = [PtqStep("min_max", before, 0.0, True, time.monotonic() - began, "the start")]
    for name in (n for n in PTQ_STEPS if n in steps):
        report.append(_taken(run, name))
    return run.model, tuple(report)


def _taken(run: _Run, name: str) -> PtqStep:
    """Does one step, and undoes it where the outputs got worse."""
    began = time.monotonic()
    old, weights, before = run.model, run.model.get_weights(), run.sqnr(run.model)
    source = run.source
    run.model, note = PTQ_STEPS[name](run)
    after = run.sqnr(run.model)
    kept = after >= before
    if not kept:
        run.model, run.source = old, source
        old.set_weights(weights)
    seconds = time.monotonic() - began
    gained = after - before if kept and math.isfinite(after) else 0.0
    return PtqStep(name, after, gained, kept, seconds, note)

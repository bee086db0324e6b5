"""Mixed precision within a budget: noise and costs are measured, an integer programme decides."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.bridge.precision import float32_policy
from tfedge.calibration import made_up
from tfedge.errors import InputError, did_you_mean
from tfedge.mixed.solver import NOISE, Link, Option, Solution, solve
from tfedge.mixed.survey import CANDIDATES, Survey, float_model
from tfedge.mixed.units import Network, network_of
from tfedge.tflite import TFLiteModel

BUDGETS = ("bytes", "latency_us", "sqnr_db")
"""What a budget may limit: the file's size, its time on the target, or its noise from above."""

KEEP = ("first", "last", "residual")
"""Words of `keep` that stand for layers."""

_ROUNDS = 4  # Of solving again with what the real file has besides constants.
_SPARE_DB = 0.05
_FRONT = 12
_AS_GOOD = 10**0.01  # 0.1 dB of noise.


@dataclass(frozen=True)
class Choice:
    """One unit of the answer.

    Attributes:
        unit: Name of its first layer.
        layers: All of its layers.
        scheme: What it gets.
        noise: Its share of the outputs' noise, relative to their power.
        bytes: Of its constants.
        latency_us: Of its ops on the target, microseconds.
    """

    unit: str
    layers: tuple[str, ...]
    scheme: str
    noise: float
    bytes: int
    latency_us: float


@dataclass(frozen=True)
class Point:
    """One point of the front: the best that is predicted for a budget.

    Attributes:
        quality: Predicted signal-to-noise ratio of the outputs, dB; under "kl" minus the
            divergence.
        bytes: Predicted size of the file.
        latency_us: Predicted time.
        schemes: Scheme by unit.
    """

    quality: float
    bytes: int
    latency_us: float
    schemes: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Allocation:
    """What `allocate` found.

    Attributes:
        file: The file, verified to run.
        overrides: Scheme by layer of the float model; with "float16" where weights are so stored.
        choices: One row a unit, in execution order.
        predicted: "sqnr_db" ("kl" under that measure), "bytes" and "latency_us".
        measured: The same of the file itself (noise on held-out samples, which choose nothing but
            for a quality that was missed at first).
        uniform: The same as `measured` of the whole network under each scheme.
        dropped: Schemes that were left out, and why.
        seconds: Of the solver, all rounds.
        gap: What a better solution could gain at most (relative).
        target: Where the times hold.
        source: "measured", or "simulated" where they are estimates.
        missed: Limits that the file does not keep, with what it has; "" where it keeps all.
    """

    file: TFLiteModel
    overrides: dict[str, str]
    choices: tuple[Choice, ...]
    predicted: dict[str, float]
    measured: dict[str, float]
    uniform: dict[str, dict[str, float]]
    dropped: dict[str, str]
    seconds: float
    gap: float
    target: str
    source: str
    missed: str
    _front: Callable[[str, int], list[Point]] = field(repr=False)

    def front(self, cost: str = "bytes", points: int = _FRONT) -> list[Point]:
        """The best signal-to-noise ratios for budgets between the least and the most of a cost.

        Args:
            cost: "bytes" or "latency_us".
            points: How many budgets are tried; equal answers count once.

        Raises:
            InputError: Another cost, or one that was not measured.
        """
        return self._front(cost, points)


@float32_policy()
def allocate(
    model: Any,
    calibration: Any,
    budget: Mapping[str, float],
    *,
    target: str = "host",
    candidates: Sequence[str] = CANDIDATES,
    keep: Mapping[str, str] | None = None,
    measure: str = "sqnr",
) -> Allocation:
    """Gives each part of a network the scheme that serves best within a budget.

    A part is a layer with what is fused into it. Its noise under each scheme is measured alone (see
    `mixed.sensitivity`), its bytes and time in real files, and what a quantize op costs where
    schemes meet is counted; an integer programme (`mixed.solver`) finds the least noise within the
    budget, or the least cost for a given quality. The answer is one real file.

    Args:
        model: A float Keras model of either flavour, or a path.
        calibration: Typical inputs without labels, in any form that `tfedge.data.as_batches` takes,
            or "synthetic:128" (see `quant.synthesize`). 100 or more: all set
            ranges, 32 measure noise, up to 64 of the others judge the file.
        budget: Upper limits "bytes" (of the file) and "latency_us" (one inference, one thread, CPU
            time on the target), and a lower limit "sqnr_db" (signal-to-noise ratio of the outputs);
            some of them. With "sqnr_db" the cost that has no limit is minimised ("latency_us"
            first), else the noise.
        target: Where time is measured: "host", a board ("ssh:..."), or estimated ("sim:..."), or a
            device file of one of them.
        candidates: Some of `mixed.CANDIDATES`. float16 has float32's time and half of its bytes.
        keep: Scheme of parts that are not free, by layer name, regular expression (of the whole
            name) or word: "first" and "last" (layers with weights), "residual" (sums).
        measure: "sqnr", "kl" or "hessian".

    Returns:
        The `Allocation`.

    Raises:
        InputError: A bad argument, or a budget that nothing meets; the error says what is possible.
        ModelError: A model that cannot be quantized.
        ConversionError: The file cannot be made.
    """
    limits = _checked_budget(budget)
    if "sqnr_db" in limits and measure == "kl":
        raise InputError("a budget of sqnr_db needs another measure", "'kl'", "Use 'sqnr'")
    source = float_model(model)
    network = network_of(source)
    pinned = _pinned(network, source, keep or {}, candidates)
    samples = made_up(source, calibration, {})
    found = Survey(source, network, samples, candidates, (measure, target))
    options = found.options(pinned)
    dropped = drop_dominated(options, found.links)
    solution, file, seconds = _reaching(found, options, limits)
    choices = tuple(
        _choice(found.network, unit, solution.schemes[unit], options[unit])
        for unit in found.network.layers
    )
    measured = found.measured({**found.files, "mixed": file})
    own = measured.pop("mixed")
    return Allocation(
        file, found.overrides(solution.schemes), choices, found.prediction(solution),
        own, measured, dropped, seconds, solution.gap,
        found.timer.name, found.timer.source, _missed(limits, own),
        lambda cost, points: _front(found, options, cost, points),
    )  # fmt: skip


def _checked_budget(budget: Mapping[str, float]) -> dict[str, float]:
    for name, value in budget.items():
        if name not in BUDGETS:
            raise InputError("unknown budget", f"'{name}'", did_you_mean(name, BUDGETS))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not np.isfinite(value) or value <= 0:
            raise InputError(f"the budget '{name}' must be a number above 0", repr(value))
    if not budget:
        raise InputError("there is no budget", "{}", f"Give some of: {', '.join(BUDGETS)}")
    return dict(budget)


def _reaching(
    found: Survey, options: dict[str, dict[str, Option]], limits: dict[str, float]
) -> tuple[Solution, TFLiteModel, float]:
    """As `_fitting`; solved again with a higher limit where the file itself misses the quality."""
    wanted, best, seconds = dict(limits), None, 0.0
    for _ in range(_ROUNDS):
        try:
            solution, file, took = _fitting(found, options, wanted)
        except InputError:
            if best is None:
                raise
            break  # No choice is predicted to reach so much: the nearest has to do.
        seconds += took
        if "sqnr_db" not in limits:
            return solution, file, seconds
        got = found.quality(file)
        if best is None or got > best[0]:
            best = got, solution, file
        if got >= limits["sqnr_db"]:
            break
        wanted["sqnr_db"] += limits["sqnr_db"] - got + _SPARE_DB
    return best[1], best[2], seconds


def _missed(limits: Mapping[str, float], measured: Mapping[str, float]) -> str:
    """What of the budget the file does not keep."""
    found = []
    for name, limit in limits.items():
        value = measured[name]
        if value < limit if name == "sqnr_db" else value > limit:
            found.append(f"{name} {value:,.1f} instead of {limit:,.1f}")
    return ", ".join(found)


def _fitting(
    found: Survey, options: dict[str, dict[str, Option]], limits: dict[str, float]
) -> tuple[Solution, TFLiteModel, float]:
    """The best solution whose real file is within the budget of bytes, and the solver's seconds."""
    allowed = {k: v for k, v in limits.items() if k != "sqnr_db"}
    goal = NOISE
    if "sqnr_db" in limits:
        allowed[NOISE] = len(found.model.outputs) * 10 ** (-limits["sqnr_db"] / 10)
        goal = "bytes" if "latency_us" in limits else "latency_us"
    most = limits.get("bytes", math.inf)
    best: tuple[Solution, TFLiteModel] | None = None
    seconds, seen = 0.0, set()
    while True:
        began = time.monotonic()
        solution = _solved(found, options, allowed, goal)
        seconds += time.monotonic() - began
        if (chosen := tuple(solution.schemes.values())) in seen:
            # The frame has settled; or, as nothing fits yet, it must be taken for larger still.
            if best is not None:
                return *best, seconds
            found.enlarge_frame(options, 64)
            continue
        seen.add(chosen)
        file = found.build(solution.schemes)
        if len(file.data) <= most and (
            best is None or _value(solution, goal) < _value(best[0], goal)
        ):
            best = solution, file
        if best is not None and (most == math.inf or len(seen) >= _ROUNDS):
            return *best, seconds
        found.enlarge_frame(options, len(file.data) - solution.costs["bytes"])


def _value(solution: Solution, goal: str) -> float:
    return solution.noise if goal == NOISE else solution.costs[goal]


def _solved(
    found: Survey, options: dict[str, dict[str, Option]], allowed: dict[str, float], goal: str
) -> Solution:
    """The best solution; of those that are as good but for 0.1 dB, the quickest."""
    best = solve(options, found.links, allowed, goal)
    if goal != NOISE:
        return best
    near = {**allowed, NOISE: best.noise * _AS_GOOD}
    quick = solve(options, found.links, near, "latency_us")
    return replace(quick, gap=max(best.gap, quick.gap))


def drop_dominated(options: dict[str, dict[str, Option]], links: Sequence[Link]) -> dict[str, str]:
    """Takes out schemes that another beats in noise and every cost, in every unit that may have it.

    The other counts with the ops that seams on all sides would need, so that no best solution is
    lost.

    Args:
        options: By scheme, by unit; changed in place.
        links: Tensors between units.

    Returns:
        Why, by scheme.
    """
    seams: dict[str, dict[str, float]] = {unit: {} for unit in options}
    for link in links:
        for cost, pairs in link.costs.items():
            for unit in {link.maker, *link.readers}:
                worst = 2 * max(pairs.values(), default=0.0)
                seams[unit][cost] = seams[unit].get(cost, 0.0) + worst
    dropped: dict[str, str] = {}
    for scheme in sorted({s for found in options.values() for s in found}):
        having = [u for u, found in options.items() if scheme in found and len(found) > 1]
        better = [_better(options[u], scheme, seams[u], dropped) for u in having]
        alone = any(list(found) == [scheme] for found in options.values())
        if having and all(better) and not alone:
            names = ", ".join(sorted(set(better)))
            dropped[scheme] = f"{names} is at least as exact and as cheap in every part"
    for found in options.values():
        for scheme in set(dropped) & set(found):
            del found[scheme]
    return dropped


def _better(
    options: Mapping[str, Option], scheme: str, seams: Mapping[str, float], gone: Mapping[str, str]
) -> str:
    """A scheme that is no worse in anything, or ""."""
    own = options[scheme]
    for name, other in options.items():
        if name == scheme or name in gone or other.noise > own.noise:
            continue
        if all(other.costs[k] + seams.get(k, 0.0) <= v for k, v in own.costs.items()):
            return name
    return ""


def _pinned(
    network: Network, model: Any, keep: Mapping[str, str], candidates: Sequence[str]
) -> dict[str, str]:
    """Scheme by unit, of units that are not free."""
    found: dict[str, str] = {}
    for word, scheme in keep.items():
        if scheme not in candidates:
            raise InputError(
                f"keep gives '{word}' a scheme that is no candidate", f"'{scheme}'",
                did_you_mean(scheme, candidates),
            )  # fmt: skip
        found |= dict.fromkeys(_units_of(network, model, word), scheme)
    return found


def _units_of(network: Network, model: Any, word: str) -> list[str]:
    """Units that a word of `keep`, a layer name or an expression stands for."""
    units = list(network.layers)
    if word in ("first", "last"):
        with_kernel = [u for u in units if model.get_layer(u).weights] or units
        return [with_kernel[0 if word == "first" else -1]]
    if word == "residual":
        adds = (keras.layers.Add, keras.layers.Subtract)
        hits = [u for u in units if isinstance(model.get_layer(u), adds)]
    else:
        try:
            hits = [
                unit
                for unit, layers in network.layers.items()
                if word in layers or any(re.fullmatch(word, n) for n in layers)
            ]
        except re.error as error:
            raise InputError(f"keep: '{word}' is no expression", str(error)) from error
    if not hits:
        known = [*KEEP, *(n for layers in network.layers.values() for n in layers)]
        raise InputError("keep names no layer", f"'{word}'", did_you_mean(word, known))
    return hits


def _choice(network: Network, unit: str, scheme: str, options: Mapping[str, Option]) -> Choice:
    option = options[scheme]
    time_us = option.costs["latency_us"]
    size = int(option.costs["bytes"])
    return Choice(unit, network.layers[unit], scheme, option.noise, size, time_us)


def _front(
    found: Survey, options: dict[str, dict[str, Option]], cost: str, points: int
) -> list[Point]:
    if cost not in BUDGETS[:2]:
        raise InputError("there is no such cost", f"'{cost}'", did_you_mean(cost, BUDGETS[:2]))
    least = solve(options, found.links, {}, cost)
    most = solve(options, found.links, {}, NOISE)
    rows: list[Point] = []
    for limit in np.linspace(least.costs[cost], most.costs[cost], points):
        solution = _solved(found, options, {cost: float(limit) * (1 + 1e-9)}, NOISE)
        values = found.prediction(solution)
        quality = values.get("sqnr_db", -values.get("kl", 0.0))
        rows.append(Point(quality, int(values["bytes"]), values["latency_us"], solution.schemes))
    rows.sort(key=lambda p: (getattr(p, cost), -p.quality))
    return [p for i, p in enumerate(rows) if all(q.quality < p.quality for q in rows[:i])]

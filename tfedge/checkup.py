"""What `tfedge doctor` does: diagnose a file on a target, mend it, diagnose it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tfedge.data import InputSpec, load, stack
from tfedge.errors import InputError, TargetError
from tfedge.record import Timing
from tfedge.targets import Foreign, Profiler, Target, get_target
from tfedge.targets.device import behind
from tfedge.tflite.doctor import Diagnosis, diagnose
from tfedge.tflite.model import TFLiteModel
from tfedge.tflite.op_times import OpTimes
from tfedge.tflite.proof import MAX_STEPS
from tfedge.tflite.repair import FixReport, repair

_RUNS = 30
_SAMPLES = 32


@dataclass(frozen=True)
class Checkup:
    """What the doctor found and did.

    Attributes:
        before: The diagnosis of the file as given.
        after: That of the mended file; None without `fix`.
        fixes: What became of each fix that found a place.
        file: The mended file (the given one where nothing was kept); None without `fix`.
        timing: Whole inferences, measured in turn: the given file, and the mended one where it
            differs.
        steps: Largest move of an output in codes, mended file against given.
    """

    before: Diagnosis
    after: Diagnosis | None = None
    fixes: tuple[FixReport, ...] = ()
    file: TFLiteModel | None = field(default=None, repr=False)
    timing: tuple[Timing, ...] = ()
    steps: float | None = None


def check_up(
    file: TFLiteModel,
    fix: bool,
    target: str,
    data: Any = None,
    max_steps: float = MAX_STEPS,
    allow_float: bool = False,
) -> Checkup:
    """See `tfedge.api.doctor`."""
    place = get_target(target)
    if isinstance(behind(place), Foreign):
        fix = f"tfedge benchmark --ops --target={place.name} says what runs there, and why not"
        raise TargetError("the doctor looks for ops outside XNNPACK", f"{place.name} has none", fix)
    if not max_steps >= 0:
        raise InputError("max_steps must be 0 or more", str(max_steps))

    def clock(content: bytes) -> tuple[OpTimes, float]:
        if place.source == "emulated":
            fix = "tfedge benchmark --ops shows those of each op"
            raise TargetError(f"{place.name} counts instructions, which are no times", fix=fix)
        total = (place.time({"file": content}, _RUNS, 1)[0].min_ms or 0.0) * 1e3
        return _op_times(place, content), total

    before = diagnose(file.data, file.layers, clock)
    if not fix:
        return Checkup(before)
    samples = None if data is None or before.problem else _samples(file, data)
    pairs = partial(_ratio, place)
    fresh, reports = repair(file.data, samples, pairs, max_steps, allow_float)
    if fresh == file.data:
        return Checkup(before, before, tuple(reports), file)
    timing = _in_turn(place, {"before": file.data, "after": fresh})
    steps = [r.steps for r in reports if r.kept and r.steps is not None]
    mended = TFLiteModel.from_bytes(fresh)
    after = diagnose(fresh, file.layers, clock)
    return Checkup(before, after, tuple(reports), mended, timing, max(steps, default=0.0))


def _op_times(place: Target, content: bytes) -> OpTimes:
    if not isinstance(place, Profiler):
        return OpTimes(note=f"The target {place.name} does not measure single ops.")
    try:
        return place.profile(content)
    except TargetError as error:
        return OpTimes(note=f"Single ops were not measured. {error}")


def _in_turn(place: Target, files: Mapping[str, bytes]) -> tuple[Timing, ...]:
    try:
        return tuple(place.time(files, _RUNS, 1))
    except TargetError:  # Said already in the diagnosis' notes.
        return ()


def _ratio(place: Target, before: bytes, after: bytes) -> float:
    """Quotient of the minima; of wall or CPU time, whichever was disturbed less."""
    first, second = place.time({"before": before, "after": after}, _RUNS, 1)
    if first.cycles and second.cycles:
        return second.cycles / first.cycles
    if first.instructions and second.instructions:
        return second.instructions / first.instructions
    ratios = [second.min_ms / first.min_ms]
    if first.cpu_min_ms and second.cpu_min_ms:
        ratios.append(second.cpu_min_ms / first.cpu_min_ms)
    return min(ratios)


def _samples(file: TFLiteModel, data: Any) -> dict[str, np.ndarray]:
    """Real inputs by name, of data in any form; the file is known to run."""
    specs = [
        InputSpec(s.name, (None, *s.shape[1:]), "float32" if s.quantized else s.dtype)
        for s in file.inputs
    ]
    given = load(data, specs) if isinstance(data, str) else data
    return stack(given, specs, limit=_SAMPLES)

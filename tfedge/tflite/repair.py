"""Applies fixes to a file one after the other; each must prove itself on this very file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfedge.errors import ConversionError, TargetError
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import check_runs
from tfedge.tflite.editing import Only
from tfedge.tflite.fixes import FIXES, ON_REQUEST, TO_RUN, find
from tfedge.tflite.interpreter import OpInfo
from tfedge.tflite.pieces import Change, attempt, pieces
from tfedge.tflite.proof import MAX_STEPS, Proof, prove
from tfedge.tflite.rewrite import compact

SLOWER = 1.03
"""Quotient of times from which on a file counts as slower: less is noise."""

_TRIALS = 16
"""Trials of a part of a fix's places, where all of them together do not hold."""

Pairs = Callable[[bytes, bytes], float]
"""Gives time(second) / time(first) of two files, measured in turn."""


@dataclass(frozen=True)
class FixReport:
    """What became of one fix.

    Attributes:
        name: Its name in `fixes.FIXES`.
        places: Places that it changed, or would have changed.
        found: Places that it found.
        kept: False where it was undone.
        said: Why it was undone, or what it gained.
        steps: Largest move of an output of the file, in codes, against the file as it was given.
        piece_steps: Largest move of an output of the rewritten ops alone, on random codes.
        outside: Ops outside XNNPACK before and after.
        partitions: XNNPACK's partitions before and after.
        ratio: Time after / time before, measured in turn; None if not measured.
    """

    name: str
    places: int
    found: int
    kept: bool
    said: str
    steps: float | None = None
    piece_steps: float | None = None
    outside: tuple[int, int] | None = None
    partitions: tuple[int, int] | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class _Trial:
    """A fix tried: the file after, its ops, the two proofs; or why it does not even run."""

    change: Change
    fresh: bytes = b""
    ops: tuple[OpInfo, ...] = ()
    ends: Proof | None = None
    piece: Proof | None = None
    error: str = ""


class _Patient:
    """The file while it is mended.

    Args:
        data: The file that all must agree with; it runs.
        samples: Real inputs.
        max_steps: Codes that an output of the file may move.
    """

    def __init__(
        self, data: bytes, samples: Mapping[str, np.ndarray] | None, max_steps: float
    ) -> None:
        self.given = self.current = data
        self.ops = tuple(check_runs(data))
        self._samples, self._max_steps = samples, max_steps

    def attempt(self, name: str, only: Only = None) -> _Trial:
        """Tries a fix and proves it; the patient stays as it is."""
        change = attempt(self.current, find(name), only)
        if not change.places:
            return _Trial(change)
        fresh = _compacted(change.data)
        try:
            ops = tuple(check_runs(fresh))
            piece = prove(*pieces(self.current, change))
            ends = prove(self.given, fresh, self._samples)
        except ConversionError as error:
            return _Trial(change, error=str(error))
        return _Trial(change, fresh, ops, ends, piece)

    def holds(self, trial: _Trial) -> bool:
        """True for a trial that runs and that both proofs hold for."""
        if trial.ends is None or trial.piece is None:
            return False
        return trial.piece.holds(MAX_STEPS) and trial.ends.holds(self._max_steps)

    def largest(self, name: str, places: Sequence[int]) -> _Trial | None:
        """The fix at as many of its places as hold together, the largest tensors first.

        Halves what does not hold, at most `_TRIALS` times.
        """
        graph = flatbuffer.read(self.current).subgraphs[0]

        def elements(i: int) -> int:
            shape = graph.tensors[int(graph.operators[i].outputs[0])].shape
            return -int(np.prod([] if shape is None else shape))

        best: _Trial | None = None
        kept: list[int] = []
        order = sorted(places, key=elements)
        waiting, left = [order[: len(order) // 2], order[len(order) // 2 :]], _TRIALS
        while waiting and left:
            group, left = waiting.pop(0), left - 1
            trial = self.attempt(name, {*kept, *group})
            if trial.change.places and self.holds(trial):
                kept, best = [*kept, *group], trial
            elif len(group) > 1:
                waiting[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
        return best


def repair(
    data: bytes,
    samples: Mapping[str, np.ndarray] | None = None,
    pairs: Pairs | None = None,
    max_steps: float = MAX_STEPS,
    allow_float: bool = False,
) -> tuple[bytes, list[FixReport]]:
    """Applies all fixes that hold.

    A fix is undone where the file no longer runs, where an output moves by more than `max_steps`
    or a float one beyond rounding, where the rewritten ops alone move by more than one step, or
    where the file is slower. Where a fix does not hold at all its places together, it is kept at as
    many as do.

    Args:
        data: The whole file.
        samples: Real inputs [N, ...] by name, besides the random ones.
        pairs: Measures two files in turn; None keeps a fix that was not measured.
        max_steps: Codes that an output of the file may move. An op that moves by one step may move
            what follows by more.
        allow_float: Also try the fixes of `fixes.ON_REQUEST`.

    Returns:
        The changed file (`data` itself where nothing was kept), and a report for each fix that
        found a place.

    Raises:
        InputError: The data is no TFLite file, or samples that do not fit.
        ConversionError: The file does not run, and no fix mends that.
    """
    data, reports = _running(data)
    patient = _Patient(data, samples, max_steps)
    for name in [*FIXES, *(ON_REQUEST if allow_float else ())]:
        trial = patient.attempt(name)
        found = trial.change.places
        if not found:
            continue
        if not patient.holds(trial) and found > 1:
            trial = patient.largest(name, trial.change.old) or trial
        report = _judge(name, found, trial, patient)
        if report.kept and pairs is not None:
            report = _measured(report, pairs, patient.current, trial.fresh)
        reports.append(report)
        if report.kept:
            patient.current, patient.ops = trial.fresh, trial.ops
    return patient.current, reports


def _running(data: bytes) -> tuple[bytes, list[FixReport]]:
    """The file, and the fixes that made it run if it did not before.

    There is nothing to compare with then; these fixes change no value.
    """
    reports: list[FixReport] = []
    for name in TO_RUN:
        try:
            check_runs(data)
            break
        except ConversionError:
            change = attempt(data, FIXES[name])
            if change.places:
                data, places = _compacted(change.data), change.places
                reports.append(FixReport(name, places, places, True, _TO_RUN))
    return data, reports


_TO_RUN = "the file did not run without"


def _compacted(data: bytes) -> bytes:
    model = flatbuffer.read(data)
    compact(model)
    return flatbuffer.write(model)


def _judge(name: str, found: int, trial: _Trial, patient: _Patient) -> FixReport:
    places = trial.change.places
    if trial.ends is None or trial.piece is None:
        return FixReport(name, places, found, False, f"undone: {trial.error}")
    outside = _outside(patient.ops), _outside(trial.ops)
    partitions = _partitions(patient.ops), _partitions(trial.ops)
    kept = patient.holds(trial)
    if kept:
        gained = outside[1] < outside[0] or partitions[1] < partitions[0]
        fewer = len(trial.ops) < len(patient.ops)
        said = "XNNPACK takes more" if gained else "fewer ops" if fewer else "no gain in ops"
        said += "; at the other places an output moved too far" * (places < found)
    else:
        ops_hold = trial.piece.holds(MAX_STEPS)
        what, proof = ("an output", trial.ends) if ops_hold else ("a rewritten op", trial.piece)
        said = f"undone: {what} moved by {_moved(proof)}"
    moved = (trial.ends.steps, trial.piece.steps)
    return FixReport(name, places, found, kept, said, *moved, outside, partitions)


def _moved(proof: Proof) -> str:
    if proof.steps > 0 and proof.steps != float("inf"):
        return f"{proof.steps:.3g} steps"
    return "another value" if proof.steps else f"{proof.relative:.2g} of its largest element"


def _outside(ops: Sequence[OpInfo]) -> int:
    return sum(not op.delegated for op in ops)


def _partitions(ops: Sequence[OpInfo]) -> int:
    return len({op.partition for op in ops if op.delegated})


def _measured(report: FixReport, pairs: Pairs, before: bytes, after: bytes) -> FixReport:
    try:
        ratio = pairs(before, after)
    except TargetError as error:
        return replace(report, said=f"{report.said}; not measured: {error}")
    if ratio > SLOWER:
        said = f"undone: slower ({ratio:.2f} of the time)"
        return replace(report, kept=False, said=said, ratio=ratio)
    said = report.said + "; no gain in time" * (ratio > 2 - SLOWER)
    return replace(report, said=said, ratio=ratio)

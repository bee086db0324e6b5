"""Applies fixes to a file one after the other; each must prove itself on this very file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfedge.errors import ConversionError, TargetError
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import check_runs
from tfedge.tflite.fixes import FIXES
from tfedge.tflite.interpreter import OpInfo
from tfedge.tflite.pieces import Change, attempt, pieces
from tfedge.tflite.proof import Proof, prove
from tfedge.tflite.rewrite import compact

SLOWER = 1.03
"""Quotient of times from which on a file counts as slower: less is noise."""

Pairs = Callable[[bytes, bytes], float]
"""Gives time(second) / time(first) of two files, measured in turn."""


@dataclass(frozen=True)
class FixReport:
    """What became of one fix.

    Attributes:
        name: Its name in `fixes.FIXES`.
        places: Places that it changed.
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
    kept: bool
    said: str
    steps: float | None = None
    piece_steps: float | None = None
    outside: tuple[int, int] | None = None
    partitions: tuple[int, int] | None = None
    ratio: float | None = None


def repair(
    data: bytes, samples: Mapping[str, np.ndarray] | None = None, pairs: Pairs | None = None
) -> tuple[bytes, list[FixReport]]:
    """Applies all fixes that hold.

    A fix is undone where the file no longer runs, where an output moves by more than one step or a
    float one beyond rounding, where the rewritten ops alone do, or where the file is slower.

    Args:
        data: The whole file.
        samples: Real inputs [N, ...] by name, besides the random ones.
        pairs: Measures two files in turn; None keeps a fix that was not measured.

    Returns:
        The changed file (`data` itself where nothing was kept), and a report for each fix that
        found a place.

    Raises:
        InputError: The data is no TFLite file, or samples that do not fit.
        ConversionError: The file does not run as it is.
    """
    current, ops = data, check_runs(data)
    reports = []
    for name, fix in FIXES.items():
        change = attempt(current, fix)
        if not change.places:
            continue
        fresh = _compacted(change.data)
        try:
            after = check_runs(fresh)
            ends = prove(data, fresh, samples)
            part = _piece(current, change)
        except ConversionError as error:
            reports.append(FixReport(name, change.places, False, f"undone: {error}"))
            continue
        report = _judge(name, change.places, (ends, part), (ops, after))
        if report.kept and pairs is not None:
            report = _measured(report, pairs, current, fresh)
        reports.append(report)
        if report.kept:
            current, ops = fresh, after
    return current, reports


def _compacted(data: bytes) -> bytes:
    model = flatbuffer.read(data)
    compact(model)
    return flatbuffer.write(model)


def _piece(current: bytes, change: Change) -> Proof:
    before, after = pieces(current, change)
    return prove(before, after)


def _judge(
    name: str,
    places: int,
    proofs: tuple[Proof, Proof],
    ops: tuple[list[OpInfo], list[OpInfo]],
) -> FixReport:
    ends, part = proofs
    outside, partitions = _pair(ops, _outside), _pair(ops, _partitions)
    kept = ends.holds and part.holds
    if kept:
        gained = outside[1] < outside[0] or partitions[1] < partitions[0]
        fewer = len(ops[1]) < len(ops[0])
        said = "XNNPACK takes more" if gained else "fewer ops" if fewer else "no gain in ops"
    else:
        what, proof = ("an output", ends) if not ends.holds else ("a rewritten op", part)
        said = f"undone: {what} moved by {_moved(proof)}"
    return FixReport(name, places, kept, said, ends.steps, part.steps, outside, partitions)


def _moved(proof: Proof) -> str:
    if proof.steps > 0 and proof.steps != float("inf"):
        return f"{proof.steps:.3g} steps"
    return "another value" if proof.steps else f"{proof.relative:.2g} of its largest element"


def _pair(
    ops: tuple[list[OpInfo], list[OpInfo]], count: Callable[[list[OpInfo]], int]
) -> tuple[int, int]:
    return count(ops[0]), count(ops[1])


def _outside(ops: list[OpInfo]) -> int:
    return sum(not op.delegated for op in ops)


def _partitions(ops: list[OpInfo]) -> int:
    return len({op.partition for op in ops if op.delegated})


def _measured(report: FixReport, pairs: Pairs, before: bytes, after: bytes) -> FixReport:
    try:
        ratio = pairs(before, after)
    except TargetError as error:
        return FixReport(**{**vars(report), "said": f"{report.said}; not measured: {error}"})
    values = {**vars(report), "ratio": ratio}
    if ratio > SLOWER:
        values |= {"kept": False, "said": f"undone: slower ({ratio:.2f} of the time)"}
    elif ratio > 2 - SLOWER:
        values["said"] = f"{report.said}; no gain in time"
    return FixReport(**values)

"""Measuring files against each other on a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfedge.errors import InputError, TargetError
from tfedge.record import Timing
from tfedge.targets import TARGETS, Counter, get_target
from tfedge.targets.arm64.costs import Costs
from tfedge.tflite import flatbuffer
from tfedge.tflite.model import TFLiteModel, read_file

Model = TFLiteModel | str | Path | bytes
"""A TFLite file: as an object, a path, or its bytes."""


def measure(
    models: Sequence[Model] | Model,
    *,
    target: str | Sequence[str] = "host",
    runs: int = 50,
    threads: int = 1,
) -> list[Timing]:
    """Times files in turn, in one process, and relates them to the first.

    Latencies of a loaded or throttled machine are off; the ratios hold better, since each round
    meets all files, and the minima best of all. The record keeps the load for that reason.

    Args:
        models: The files; the first is what the others' ratios refer to. A path's stem is the
            name in the result, for a `TFLiteModel` its `meta["label"]` or scheme; equal names get
            a number.
        target: One of `tfedge.targets.TARGETS`, or several: the files are measured on one after
            the other, and are compared within each only.
        runs: Samples of each file, at least 1; under about 20 the p90 and p99 say little.
        threads: Threads of the kernels, at least 1.

    Returns:
        One Timing per file, in order, for each target in turn; see
        `tfedge.targets.base.Target.time`.

    Raises:
        InputError: No model, `runs` or `threads` below 1, a path that is not there, or a file that
            is no TFLite file.
        TargetError: The target is unknown, or a file fails there (the message names it).
    """
    given = [models] if isinstance(models, (TFLiteModel, str, Path, bytes)) else list(models)
    for word, number in (("runs", runs), ("threads", threads)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{word} must be a whole number, at least 1", repr(number))
    if not given:
        raise InputError("there is no model to measure")
    names = [target] if isinstance(target, str) else list(dict.fromkeys(target))
    places = [get_target(name) for name in names]
    if not places:
        raise InputError("there is no target to measure on")
    files: dict[str, bytes] = {}
    for position, model in enumerate(given):
        name, data = _named(model, position)
        files[_free_name(name, files)] = data
    for place in places:
        place.prepare(threads)
    return [timing for place in places for timing in place.time(files, runs, threads)]


def _named(model: Model, position: int) -> tuple[str, bytes]:
    if isinstance(model, TFLiteModel):
        label = model.meta.get("label") or model.scheme or f"model {position}"
        return str(label), model.data
    if isinstance(model, bytes):
        if model[4:8] != flatbuffer.IDENTIFIER:
            raise InputError(f"model {position} is not a TFLite file", f"{len(model)} bytes")
        return f"model {position}", model
    if isinstance(model, (str, Path)):
        return Path(model).stem, read_file(model)
    found = type(model).__name__
    raise InputError(
        f"model {position} cannot be measured", found, "Give a TFLiteModel, a path or bytes"
    )


def _free_name(name: str, taken: dict[str, bytes]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def count_ops(models: Sequence[Model] | Model, target: str | Sequence[str]) -> list[Costs]:
    """Counts the instructions of each op of files.

    Args:
        models: As in `measure`.
        target: A target that counts, or several.

    Returns:
        Costs of each file, in order, for each target in turn.

    Raises:
        InputError: A path that is not there, or a file that is no TFLite file.
        TargetError: The target does not count instructions, or a file fails there.
    """
    given = [models] if isinstance(models, (TFLiteModel, str, Path, bytes)) else list(models)
    files = [_named(model, position)[1] for position, model in enumerate(given)]
    return [place.costs(data) for place in counters(target) for data in files]


def counters(target: str | Sequence[str]) -> list[Counter]:
    """The targets of these names, all of which count the instructions of each op.

    Raises:
        TargetError: One is unknown, or does not count them.
    """
    names = [target] if isinstance(target, str) else list(dict.fromkeys(target))
    found: list[Counter] = []
    for name in names:
        place = get_target(name)
        if not isinstance(place, Counter):
            known = ", ".join(n for n in TARGETS if n.startswith("arm64:"))
            fix = f"Use one of: {known}; tfedge doctor times ops on the host"
            raise TargetError("the target does not count the instructions of ops", name, fix)
        found.append(place)
    return found

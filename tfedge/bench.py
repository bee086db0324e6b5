"""Measuring files against each other on a target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.record import OutputMatch, Timing
from tfedge.targets import Counter, Foreign, Target, get_target
from tfedge.targets.arm64.costs import Costs
from tfedge.targets.device import behind, threads_on
from tfedge.targets.op_table import OpTable
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import random_inputs
from tfedge.tflite.ends import file_ends
from tfedge.tflite.model import TFLiteModel, read_file

Model = TFLiteModel | str | Path | bytes
"""A TFLite file: as an object, a path, or its bytes."""

_COMPARED = 4


def measure(
    models: Sequence[Model] | Model,
    *,
    target: str | Sequence[str] = "host",
    runs: int = 50,
    threads: int | None = None,
) -> list[Timing]:
    """Times files in turn, in one process, and relates them to the first.

    Latencies of a loaded or throttled machine are off; the ratios hold better, since each round
    meets all files, and the minima best of all. The record keeps the load for that reason.

    Args:
        models: The files; the first is what the others' ratios refer to. A path's stem is the
            name in the result, for a `TFLiteModel` its `meta["label"]` or scheme; equal names get
            a number.
        target: One of `tfedge.targets.TARGETS`, a name of one of `FAMILIES`, or a device file, or
            several: the files are measured on one after the other, and are compared within each
            only.
        runs: Samples of each file, at least 1; under about 20 the p90 and p99 say little.
        threads: Threads of the kernels, at least 1; None takes the device's own number, else 1.

    Returns:
        One Timing per file, in order, for each target in turn; see
        `tfedge.targets.base.Target.time`.

    Raises:
        InputError: No model, `runs` or `threads` below 1, a path that is not there, or a file that
            is no TFLite file.
        TargetError: The target is unknown, or a file fails there (the message names it).
    """
    found: list[Timing] = []
    for timings in measure_each(models, target=target, runs=runs, threads=threads):
        found += timings
    return found


def measure_each(
    models: Sequence[Model] | Model,
    *,
    target: str | Sequence[str] = "host",
    runs: int = 50,
    threads: int | None = None,
) -> Iterator[list[Timing]]:
    """As `measure`, with the timings of each target as soon as they are there.

    What a target gave is kept when a later one fails.

    Raises:
        InputError: As `measure`; before anything is measured.
        TargetError: As `measure`; what can be found out is, before anything is measured.
    """
    for word, number in (("runs", runs), ("threads", 1 if threads is None else threads)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{word} must be a whole number, at least 1", repr(number))
    places, files = places_of(target), files_of(models)
    for place in places:
        place.prepare(threads_on(place, threads))
    batches = _unlike_batches(files)
    for place in places:
        yield [
            replace(t, note="; ".join(filter(None, (batches.get(t.model), t.note))))
            for t in place.time(files, runs, threads_on(place, threads))
        ]


def _unlike_batches(files: Mapping[str, bytes]) -> dict[str, str]:
    """How many samples an inference is, where the files differ in that."""
    found = {}
    for name, data in files.items():
        try:
            inputs = file_ends(flatbuffer.read(data))[0]
        except ConversionError:
            return {}  # The target says what is wrong with the file.
        found[name] = inputs[0].shape[0] if inputs and inputs[0].shape else 1
    if len(set(found.values())) < 2:
        return {}
    return {n: f"An inference is {b} sample{'s' * (b != 1)}" for n, b in found.items()}


def places_of(target: str | Sequence[str]) -> list[Target]:
    """The targets of some names, each once.

    Raises:
        InputError: There is none, or two devices have the same name.
        TargetError: One is unknown.
    """
    names = [target] if isinstance(target, str) else list(dict.fromkeys(target))
    if not names:
        raise InputError("there is no target to measure on")
    places = [get_target(name) for name in names]
    shown = [place.name for place in places]
    for name in shown:
        if shown.count(name) > 1:
            fix = "Give one of the device files another name"
            raise InputError("two targets have the same name", f"'{name}'", fix)
    return places


def files_of(models: Sequence[Model] | Model) -> dict[str, bytes]:
    """Files by the names that results show.

    Raises:
        InputError: There is none, a path that is not there, or what is no TFLite file.
    """
    given = [models] if isinstance(models, (TFLiteModel, str, Path, bytes)) else list(models)
    if not given:
        raise InputError("there is no model to measure")
    files: dict[str, bytes] = {}
    for position, model in enumerate(given):
        name, data = _named(model, position)
        files[_free_name(name, files)] = data
    return files


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


def count_ops(
    models: Sequence[Model] | Model, target: str | Sequence[str]
) -> dict[str, list[Costs | OpTable]]:
    """Finds what each op of files costs: instructions, or what the target has.

    Args:
        models: As in `measure`.
        target: A target that counts, or several.

    Returns:
        Costs on each target, by the file's name.

    Raises:
        InputError: No model, a path that is not there, or a file that is no TFLite file.
        TargetError: The target does not tell, or a file fails there.
    """
    places = counters(target)
    return {n: [place.costs(data) for place in places] for n, data in files_of(models).items()}


def counters(target: str | Sequence[str]) -> list[Counter]:
    """The targets of these names, all of which tell what each op costs.

    Raises:
        InputError: There is none.
        TargetError: One is unknown, or does not tell.
    """
    found: list[Counter] = []
    for place in places_of(target):
        if not isinstance(place, Counter):
            fix = "Look at another target, for example host or arm64:cortex-a53"
            raise TargetError("the target does not tell what each op costs", place.name, fix)
        found.append(place)
    return found


def compare_outputs(
    models: Sequence[Model] | Model, target: str | Sequence[str]
) -> list[OutputMatch]:
    """Runs files on random inputs on a target and on this machine, and compares all bits.

    Args:
        models: As in `measure`.
        target: A target, or several; those that compute nothing are left out.

    Returns:
        One match per file, in order, for each other target in turn.

    Raises:
        InputError: No model, a path that is not there, a file that is no TFLite file, or one whose
            inputs have no batch axis.
        TargetError: A target is unknown or not set up, none computes anything, or a file fails
            there or here.
    """
    places, files = runners(target), files_of(models)
    for place in places:
        place.prepare()
    inputs = {name: _inputs(data) for name, data in files.items()}
    here = {name: get_target("host").run(data, inputs[name]) for name, data in files.items()}
    return [
        _match(name, place.name, here[name], place.run(data, inputs[name]))
        for place in places
        for name, data in files.items()
    ]


def runners(target: str | Sequence[str]) -> list[Target]:
    """Those of some targets that compute outputs.

    Raises:
        InputError: There is no target.
        TargetError: One is unknown, or none computes any.
    """
    places = places_of(target)
    found = [p for p in places if not isinstance(r := behind(p), Foreign) or r.executes]
    if not found:
        what = "the targets estimate costs and compute no outputs"
        names = ", ".join(place.name for place in places)
        raise TargetError(what, names, "Compare outputs on another target, or on tflm")
    return found


def _inputs(data: bytes) -> dict[str, np.ndarray]:
    specs = file_ends(flatbuffer.read(data))[0]
    runs = [random_inputs(specs, seed) for seed in range(_COMPARED)]
    return {spec.name: np.concatenate([run[spec.name] for run in runs]) for spec in specs}


def _match(
    model: str, target: str, here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]
) -> OutputMatch:
    values, different, largest = 0, 0, 0.0
    relative: float | None = None
    for name, first in here.items():
        second = there[name]
        if not first.size:
            continue
        # NaN equals NaN here, and 0 is not -0: it is bits that are compared.
        bits = [np.ascontiguousarray(a).view(np.uint8).reshape(a.size, -1) for a in (first, second)]
        unlike = (bits[0] != bits[1]).any(1)
        values, different = values + first.size, different + int(unlike.sum())
        gaps = np.abs(first.astype(np.float64) - second.astype(np.float64)).ravel()[unlike]
        gap = float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0))
        largest = max(largest, gap)
        if first.dtype.kind == "f":
            scale = float(np.abs(first[np.isfinite(first)]).max(initial=0.0))
            share = gap / scale if scale else math.inf
            relative = max(relative or 0.0, share if gap else 0.0)
    return OutputMatch(model, target, values, different, largest, relative)

"""Times of single ops on a target: of the network's own ops, and of those at seams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np

from tfedge.errors import InputError
from tfedge.targets import get_target
from tfedge.targets.device import behind
from tfedge.tflite import flatbuffer
from tfedge.tflite.single import requantization, single_op

DTYPES = {8: "int8", 16: "int16", 0: "float32"}
"""Dtype of an activation by its bits."""

_SIZES = (1 << 10, 1 << 15)  # Elements of the tensors that the seams' line goes through.


class OpTimer(Protocol):
    """A target that measures many small files at once."""

    def quick(self, models: Mapping[str, bytes], runs: int = 15) -> dict[str, float]:
        """Microseconds by name."""
        ...


def timer_of(target: str) -> OpTimer:
    """A target that can time single ops.

    Args:
        target: Name of a target.

    Raises:
        InputError: It cannot.
        TargetError: There is no such target.
    """
    found = behind(get_target(target))
    if not hasattr(found, "quick"):
        raise InputError("this target does not time single ops", f"'{target}'", "Use 'host'")
    return cast(OpTimer, found)


def op_times(timer: OpTimer, files: Sequence[bytes]) -> list[list[float]]:
    """Microseconds of every op of some files, all measured in turn.

    Each op is measured as a file of its own. The times of a file's ops are then scaled so that they
    add up to the time of the whole, which knows no boundaries between ops. An op that runs other
    subgraphs takes what the others leave of the whole.

    Args:
        timer: The target.
        files: Of whole networks.

    Returns:
        One list a file, in the order of its ops.
    """
    singles: dict[bytes, str] = {}
    names: list[list[str | None]] = []
    for data in files:
        model = flatbuffer.read(data)
        row: list[str | None] = []
        for position in range(len(model.subgraphs[0].operators)):
            try:
                single = single_op(model, position)
            except InputError:
                row.append(None)
                continue
            row.append(singles.setdefault(single, f"op {len(singles)}"))
        names.append(row)
    models = {name: data for data, name in singles.items()}
    models |= {f"file {i}": data for i, data in enumerate(files)}
    times = timer.quick(models)
    return [_scaled(row, times, times[f"file {i}"]) for i, row in enumerate(names)]


def _scaled(row: Sequence[str | None], times: Mapping[str, float], whole: float) -> list[float]:
    found = [0.0 if name is None else times[name] for name in row]
    open_places = row.count(None)
    if open_places:
        rest = max(0.0, whole - sum(found)) / open_places
        found = [rest if n is None else t for n, t in zip(row, found, strict=True)]
    factor = whole / sum(found) if sum(found) else 1.0
    return [t * factor for t in found]


def seam_times(timer: OpTimer) -> dict[tuple[int, int], tuple[float, float]]:
    """Time of the op between two forms as (microseconds, microseconds per element).

    The line through two sizes. Its constant part holds what an inference takes at the least, so
    that seams look a little dearer than they are in a larger file.

    Args:
        timer: The target.
    """
    pairs = [(a, b) for a in DTYPES for b in DTYPES if a != b]
    models = {
        f"{a}>{b} {n}": requantization(DTYPES[a], DTYPES[b], n) for a, b in pairs for n in _SIZES
    }
    times = timer.quick(models)
    found = {}
    for a, b in pairs:
        small, large = (times[f"{a}>{b} {n}"] for n in _SIZES)
        slope = max(0.0, (large - small) / (_SIZES[1] - _SIZES[0]))
        found[a, b] = (max(0.0, small - slope * _SIZES[0]), slope)
    return found


def seam_cost(line: tuple[float, float], elements: int) -> float:
    """Microseconds of the op at a seam.

    Args:
        line: Of `seam_times`.
        elements: Of the tensor.
    """
    return float(np.dot(line, (1, elements)))

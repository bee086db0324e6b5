"""Times of single ops on a target: of the network's own ops, and of those at seams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, cast

import numpy as np

from tfedge.errors import InputError
from tfedge.targets import Target, get_target
from tfedge.targets.arm64.costs import Costs
from tfedge.targets.device import behind
from tfedge.targets.sim.target import SimTarget
from tfedge.tflite import flatbuffer
from tfedge.tflite.single import requantization, single_op

DTYPES = {8: "int8", 16: "int16", 0: "float32"}
"""Dtype of an activation by its bits."""

_SIZES = (1 << 10, 1 << 15)  # Elements of the tensors that the seams' line goes through.


class Timer(Protocol):
    """Times of files and of their ops, in microseconds."""

    @property
    def name(self) -> str:
        """The target's."""
        ...

    @property
    def source(self) -> str:
        """Kind of its numbers, "measured" or "simulated"."""
        ...

    @property
    def cpu(self) -> str:
        """What files with 16-bit activations are to be written for; one of `schemes.CPUS`."""
        ...

    def files(self, models: Mapping[str, bytes]) -> dict[str, float]:
        """Time of an inference of each file, by name."""
        ...

    def ops(self, files: Sequence[bytes]) -> list[list[float]]:
        """Times of the ops of each file, in their order; they add up to the file's."""
        ...


class Quick(Target, Protocol):
    """A target that measures many small files at once."""

    def quick(self, models: Mapping[str, bytes], runs: int = 15) -> dict[str, float]:
        """Microseconds by name."""
        ...


@dataclass(frozen=True)
class Measured:
    """Times on hardware: each op as a file of its own, all in turn.

    The times of a file's ops are then scaled so that they add up to the time of the whole, which
    knows no boundaries between ops. An op that runs other subgraphs takes what the others leave of
    the whole.

    Attributes:
        target: Where.
    """

    target: Quick
    source: str = "measured"

    @property
    def name(self) -> str:
        """See `Timer`."""
        return self.target.name

    @cached_property
    def cpu(self) -> str:
        """See `Timer`."""
        tiny = {"seam": requantization(DTYPES[8], DTYPES[0], 8)}
        isa = self.target.time(tiny, 1, 1)[0].isa
        return "arm64" if isa.startswith(("aarch64", "arm64")) else "x86_64"

    def files(self, models: Mapping[str, bytes]) -> dict[str, float]:
        """See `Timer.files`."""
        return self.target.quick(models)

    def ops(self, files: Sequence[bytes]) -> list[list[float]]:
        """See `Timer.ops`."""
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
        times = self.target.quick(models)
        return [
            scaled([None if n is None else times[n] for n in row], times[f"file {i}"])
            for i, row in enumerate(names)
        ]


@dataclass(frozen=True)
class Estimated:
    """Times by a model of a core (`sim:...`), which tells those of a file's ops at once.

    Attributes:
        target: The model.
    """

    target: SimTarget
    source: str = "simulated"
    cpu: str = "arm64"
    _known: dict[bytes, Costs] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """See `Timer`."""
        return self.target.name

    def files(self, models: Mapping[str, bytes]) -> dict[str, float]:
        """See `Timer.files`."""
        return {name: 1e3 * (self._costs(data).ms or 0.0) for name, data in models.items()}

    def ops(self, files: Sequence[bytes]) -> list[list[float]]:
        """See `Timer.ops`."""
        return [self._ops(data) for data in files]

    def _ops(self, data: bytes) -> list[float]:
        found, costs = [0.0] * _count(data), self._costs(data)
        for op in costs.ops:
            if op.index is not None:
                found[op.index] += 1e3 * (op.ms or 0.0)
        return scaled(found, 1e3 * (costs.ms or 0.0))

    def _costs(self, data: bytes) -> Costs:
        if data not in self._known:
            self._known[data] = self.target.costs(data)
        return self._known[data]


def _count(data: bytes) -> int:
    return len(flatbuffer.read(data).subgraphs[0].operators)


def timer_of(target: str) -> Timer:
    """A target that tells the times of single ops.

    Args:
        target: Name of a target, or a device file.

    Raises:
        InputError: It cannot.
        TargetError: There is no such target, or it is not set up.
    """
    found = behind(get_target(target))
    if isinstance(found, SimTarget):
        found.prepare()
        return Estimated(found)
    if not hasattr(found, "quick"):
        fix = "Use 'host', a board (ssh:...), or an estimate (sim:...)"
        raise InputError("this target does not time single ops", f"'{target}'", fix)
    return Measured(cast(Quick, found))


def scaled(row: Sequence[float | None], whole: float) -> list[float]:
    """Times of ops so that they add up to that of the whole.

    Args:
        row: Times; those that are None share what the others leave of the whole.
        whole: Their sum.
    """
    rest = max(0.0, whole - sum(t for t in row if t is not None))
    found = [rest / row.count(None) if t is None else t for t in row]
    factor = whole / sum(found) if sum(found) else 1.0
    return [t * factor for t in found]


def seam_times(timer: Timer) -> dict[tuple[int, int], tuple[float, float]]:
    """Time of the op between two forms as (microseconds, microseconds per element).

    The line through two sizes. Its constant part holds what an inference takes at the least, so
    that seams look a little dearer than they are in a larger file.

    Args:
        timer: The target's.
    """
    pairs = [(a, b) for a in DTYPES for b in DTYPES if a != b]
    models = {
        f"{a}>{b} {n}": requantization(DTYPES[a], DTYPES[b], n) for a, b in pairs for n in _SIZES
    }
    times = timer.files(models)
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

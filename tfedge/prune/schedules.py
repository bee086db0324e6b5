"""Pruning schedules: how much of the final pruning is in force at a training step.

A schedule is a function `(step, total_steps) -> fraction` in [0, 1]: 0 nothing pruned yet, 1 the
whole of the requested sparsity. `total_steps` is the number of optimizer steps of the `fit` call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfedge.errors import InputError, did_you_mean

Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class PolynomialDecay:
    """Prunes fast at first and slower towards the end.

    fraction(t) = 1 - (1 - (t - begin) / (end - begin))^power, clipped to [0, 1] (Zhu & Gupta 2017,
    "To prune, or not to prune", with power 3).

    Attributes:
        begin: Share of the training at which pruning starts, 0 to 1.
        end: Share at which it is complete; the rest of the training recovers.
        power: The exponent.
    """

    begin: float = 0.0
    end: float = 0.5
    power: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= 1:
            raise InputError(
                "a schedule needs 0 <= begin < end <= 1", f"begin={self.begin}, end={self.end}"
            )

    def __call__(self, step: int, total_steps: int) -> float:
        """The fraction in force before step `step`."""
        begin, end = self.begin * total_steps, self.end * total_steps
        progress = min(1.0, max(0.0, (step - begin) / max(end - begin, 1e-9)))
        return 1.0 - (1.0 - progress) ** self.power


@dataclass(frozen=True)
class Constant:
    """Prunes all at once when `begin` (a share of the training) is reached."""

    begin: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.begin < 1:
            raise InputError("a schedule needs 0 <= begin < 1", f"begin={self.begin}")

    def __call__(self, step: int, total_steps: int) -> float:
        """The fraction in force before step `step`."""
        return 1.0 if step >= self.begin * total_steps else 0.0


@dataclass(frozen=True)
class Iterative:
    """Prunes in equal steps, with training in between (Han et al. 2015; Li et al. 2017).

    Attributes:
        steps: How many times channels are cut.
        begin: Share of the training at which the first step is taken.
        end: Share at which the last one is taken; the rest of the training recovers.
    """

    steps: int = 5
    begin: float = 0.0
    end: float = 0.6

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.begin < self.end <= 1:
            raise InputError(
                "an iterative schedule needs steps >= 1 and 0 <= begin < end <= 1",
                f"steps={self.steps}, begin={self.begin}, end={self.end}",
            )

    def __call__(self, step: int, total_steps: int) -> float:
        """The fraction in force before step `step`."""
        apart = (self.end - self.begin) * total_steps / max(self.steps - 1, 1)
        done = (step - self.begin * total_steps) / max(apart, 1e-9)
        return min(max(np.floor(done + 1e-9) + 1, 0), self.steps) / self.steps


@dataclass(frozen=True)
class OneShot:
    """Prunes all before the first step."""

    def __call__(self, step: int, total_steps: int) -> float:
        """Always 1."""
        return 1.0


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "polynomial": PolynomialDecay,
    "iterative": Iterative,
    "constant": Constant,
    "one_shot": OneShot,
}


def get_schedule(schedule: str | Schedule) -> Schedule:
    """Looks up a schedule by name, or takes a callable as it is.

    Raises:
        InputError: The name is unknown.
    """
    if callable(schedule):
        return schedule
    if schedule not in SCHEDULES:
        raise InputError(
            "unknown pruning schedule", f"'{schedule}'", did_you_mean(str(schedule), SCHEDULES)
        )
    return SCHEDULES[schedule]()

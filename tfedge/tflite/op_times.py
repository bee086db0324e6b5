"""What the ops of a file take."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class OpTimes:
    """Times of one inference.

    Attributes:
        ops: Microseconds by position in the main subgraph, of the ops outside the delegate. The
            time of a loop or branch holds its body's.
        delegated_us: Microseconds within XNNPACK's kernels; None where they were not measured.
        kernels: Name and microseconds of each of these kernels, in XNNPACK's order; empty where
            they were not told apart.
        note: What is to be said of the measurement, or "".
    """

    ops: dict[int, float] = field(default_factory=dict)
    delegated_us: float | None = None
    note: str = ""
    kernels: tuple[tuple[str, float], ...] = ()

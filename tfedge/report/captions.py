"""What stands below a table of timings: where, how, and what the numbers are not."""

from __future__ import annotations

from collections.abc import Sequence

from tfedge.record import Record, Timing
from tfedge.report import rows

LOWER_BOUND = (
    "an estimate, not a measurement, and a bound from below: boards took 1.4 to 2.0 times as long "
    "on the files tried (docs/TARGETS.md); differences below a third may be in the wrong order"
)


def timing_caption(records: Sequence[Record], key: rows.TimingKey, base: Record | None) -> str:
    """Where and how the timings under a key were taken.

    Args:
        records: Rows, some of which have timings under the key.
        key: What the timings share.
        base: The row that the others are compared with.
    """
    timings = [t for r in records if (t := rows.timing_of(r, key))]
    isa = next((t.isa for t in timings if t.isa), "")
    parts = [str(key), isa, *_kind(timings, key), _without_number(records, key, base)]
    return "; ".join(part for part in parts if part)


def _kind(timings: Sequence[Timing], key: rows.TimingKey) -> list[str]:
    runs = timings[0].runs
    if key.memory:
        return ["memory; nothing was timed"]
    if key.source == "emulated":
        return [f"{plural(runs, 'inference')} counted", "a cost, not a latency"]
    if key.source == "simulated":
        if any(map(rows.is_lower_bound, timings)):
            return [LOWER_BOUND]
        return ["an estimate, not a measurement"]
    return [f"{plural(runs, 'run')}, in pairs with the first row", load_text(timings)]


def _without_number(records: Sequence[Record], key: rows.TimingKey, base: Record | None) -> str:
    """Why no row has a quotient, where some have a number."""
    others = [r for r in records if r is not base]
    timing = rows.timing_of(base, key) if base is not None else None
    if not any(rows.speed_up(r, r, key) for r in others):
        return ""
    if base is not None and rows.speed_up(base, base, key):
        return ""
    kind = "only a bound, nothing" if timing and rows.latency_text(timing) else "no number"
    which = "the first file" if base is records[0] else "the baseline"
    return f"no comparison: {which} has {kind} to compare with"


def load_text(timings: Sequence[Timing]) -> str:
    """The loads of the machine before the measurements: "load 0.3 to 1.2"."""
    loads = [t.load for t in timings if t.load == t.load]
    if not loads:
        return ""
    least, most = f"{min(loads):.1f}", f"{max(loads):.1f}"
    return f"load {least}" if least == most else f"load {least} to {most}"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 run", "50 runs"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"

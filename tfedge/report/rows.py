"""What the table and the HTML report share: the baseline, the score, comparable timings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfedge.record import Record, Timing

# Scores that are fractions of samples: shown in percent, differences in points.
FRACTIONS = ("accuracy", "top5_accuracy", "auc", "f1", "map", "iou")


@dataclass(frozen=True, order=True)
class TimingKey:
    """What two timings must share to be compared.

    Attributes:
        target: Target name.
        source: "measured", "simulated" or "emulated".
        threads: Threads of the runtime.
        memory: True where the cost is an arena's bytes.
    """

    target: str
    source: str
    threads: int
    memory: bool = False

    def __str__(self) -> str:
        return f"{self.target}, {self.source}, {self.threads} thread{'s' * (self.threads != 1)}"

    @property
    def columns(self) -> tuple[str, str]:
        """Headings of the cost and of its quotient to the first row's."""
        if self.memory:
            return "arena", "times smaller"
        if self.source == "emulated":
            return "instructions", "times fewer"
        if self.source == "simulated":
            return "ms (estimate)", "speed-up"
        return "min / p50 / p90 ms", "speed-up"


def key_of(timing: Timing) -> TimingKey:
    """The comparison key of a timing."""
    # No other target gives memory; a file that it refuses has none.
    memory = timing.arena_bytes is not None or timing.delegate == "TFLM"
    return TimingKey(timing.target, timing.source, timing.threads, memory)


def timing_keys(records: Sequence[Record]) -> list[TimingKey]:
    """All keys that occur, in order of appearance."""
    return list(dict.fromkeys(key_of(t) for r in records for t in r.timing))


def timing_of(record: Record, key: TimingKey) -> Timing | None:
    """The latest timing of a record under a key."""
    found = [t for t in record.timing if key_of(t) == key]
    return found[-1] if found else None


def baseline_of(records: Sequence[Record]) -> Record | None:
    """The row that the others are compared with: the first float32 file, else the first row."""
    files = [r for r in records if r.scheme == "float32" and r.bytes]
    return files[0] if files else (records[0] if records else None)


def metric_of(records: Sequence[Record]) -> str:
    """Name of the score that is shown: "accuracy" where there is one, else the first; or ""."""
    names = list(dict.fromkeys(n for r in records for n in r.metrics))
    wanted = [n for n in names if n == "accuracy"] or [n for n in names if n != "loss"] or names
    return wanted[0] if wanted else ""


def is_fraction(metric: str) -> bool:
    """True for scores from 0 to 1 that are shown in percent."""
    return metric in FRACTIONS or metric.endswith("accuracy")


def score_text(record: Record, metric: str) -> str:
    """The score for people, or "" where the record has none."""
    value = record.metrics.get(metric)
    if value is None:
        return ""
    return f"{100 * value:.2f} %" if is_fraction(metric) else f"{value:.4g}"


def difference_text(record: Record, base: Record | None, metric: str) -> str:
    """Score minus the baseline's, in points for fractions; "" where one of them is missing."""
    if base is None or record is base:
        return ""
    mine, theirs = record.metrics.get(metric), base.metrics.get(metric)
    if mine is None or theirs is None:
        return ""
    return f"{100 * (mine - theirs):+.2f}" if is_fraction(metric) else f"{mine - theirs:+.3g}"


def smaller(record: Record, base: Record | None) -> float | None:
    """How many times smaller the file is than the baseline's."""
    if base is None or not record.bytes or not base.bytes:
        return None
    return base.bytes / record.bytes


def speed_up(record: Record, base: Record | None, key: TimingKey) -> float | None:
    """How many times faster than the baseline, from the paired ratio under one key.

    The paired ratio (median over rounds of time / time of the first model in the same round) is
    used where the benchmark gave one; unpaired p50 otherwise; None where either is missing. For
    emulated timings it is the ratio of instruction counts, or of arenas.
    """
    mine = timing_of(record, key)
    theirs = timing_of(base, key) if base is not None else None
    if mine is None or theirs is None:
        return None
    if mine.ratio_p50 and theirs.ratio_p50:
        return theirs.ratio_p50 / mine.ratio_p50
    if mine.p50_ms and theirs.p50_ms:
        return theirs.p50_ms / mine.p50_ms
    if mine.instructions and theirs.instructions:
        return theirs.instructions / mine.instructions
    if mine.arena_bytes and theirs.arena_bytes:
        return theirs.arena_bytes / mine.arena_bytes
    return None


def is_lower_bound(timing: Timing) -> bool:
    """True for a time by the model of an Arm core (`sim:`), which leaves out what it cannot see."""
    return timing.source == "simulated" and timing.delegate == "XNNPACK"


def shown(records: Sequence[Record]) -> list[Record]:
    """Rows worth showing: all files, and Keras models of stages that have no float32 file."""
    with_file = {r.stage for r in records if r.scheme == "float32" and r.bytes}
    return [r for r in records if r.scheme != "keras" or r.stage not in with_file]


def footnotes(records: Sequence[Record]) -> list[str]:
    """What a reader must know to read the rows right."""
    notes: list[str] = []
    for key in timing_keys(records):
        slow = [r for r in records if r.scheme == "w8a16" and _slower_than_float(r, records, key)]
        if slow:
            notes.append(
                f"16x8 (w8a16) is slower than float32 here ({key}): XNNPACK has no kernels for "
                "16-bit activations. It pays for accuracy, on Ethos-U and on microcontrollers."
            )
    keys = timing_keys(records)
    if len(keys) > 1:
        notes.append("Timings of different targets, sources or thread counts are not comparable.")
    if any(k.source == "emulated" and not k.memory for k in keys):
        notes.append("Emulated rows count instructions; that is a cost, never a latency.")
    if any(k.source == "simulated" for k in keys):
        notes.append("Simulated rows are estimates by a model of the device, not measurements.")
    notes += condition_notes(records)
    return notes + timing_notes([t for r in records for t in r.timing])


def timing_notes(timings: Sequence[Timing]) -> list[str]:
    """What timings say of their numbers, each once, with the files where it is not about all."""
    found: dict[tuple[str, str], list[str]] = {}
    for timing in timings:
        if timing.note:
            found.setdefault((timing.target, timing.note), []).append(timing.model)
    notes = []
    for (target, note), models in found.items():
        every = len(models) == sum(t.target == target for t in timings)
        about = target if every else ", ".join([target, *models])
        notes.append(f"{about}: {note.rstrip('.')}.")
    return notes


def notes_of(records: Sequence[Record]) -> list[str]:
    """What the stages noted, each with the row that it belongs to."""
    out = []
    for record in records:
        name = record.label if record.scheme == "keras" else f"{record.label}, {record.scheme}"
        out += [f"{name}: {note}" for note in record.notes]
    return out


def _slower_than_float(record: Record, records: Sequence[Record], key: TimingKey) -> bool:
    """True where a record is slower than the float32 file of the same network (by MACs)."""
    mine = timing_of(record, key)
    for other in records:
        theirs = timing_of(other, key)
        same = other.scheme == "float32" and other.macs == record.macs
        if same and mine and theirs and mine.p50_ms and theirs.p50_ms:
            return mine.p50_ms > theirs.p50_ms
    return False


def ops_heading(records: Sequence[Record], key: TimingKey | None) -> str:
    """Heading of `ops_text`: "XNNPACK ops", or whatever runs them on another target."""
    timings = [timing_of(r, key) for r in records] if key else []
    return f"{next((t.delegate for t in timings if t), 'XNNPACK')} ops"


SIMULATED_COLUMNS: dict[str, Callable[[Timing], float | None]] = {
    "cycles": lambda t: t.cycles,
    "SRAM peak": lambda t: t.sram_peak_bytes,
    "DRAM traffic": lambda t: t.dram_traffic_bytes,
    "flash traffic": lambda t: t.flash_traffic_bytes,
}
"""What a model of a device tells beside the time: heading and value (bytes but for cycles)."""


def simulated_columns(timings: Sequence[Timing]) -> list[str]:
    """Those of `SIMULATED_COLUMNS` that one of the timings has."""
    return [name for name, get in SIMULATED_COLUMNS.items() if any(get(t) for t in timings)]


def simulated_text(timing: Timing, column: str) -> str:
    """A cell of `SIMULATED_COLUMNS`; "" for a file of which the target estimates nothing."""
    value = SIMULATED_COLUMNS[column](timing)
    if value is None or (timing.min_ms is None and not timing.cycles):
        return ""
    return count_text(value) if column == "cycles" else bytes_text(round(value))


def bytes_text(count: int) -> str:
    """Bytes for people, in units of 1000 ("31.4 KB")."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= limit:
            return f"{_short(count / limit)} {unit}"
    return f"{count} B"


def count_text(count: float) -> str:
    """Large counts for people ("12.5 M"); "" for 0, which stands for unknown."""
    if not count:
        return ""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= limit:
            return f"{_short(count / limit)}{unit}"
    return f"{count:g}"


def digits_text(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, never as a power of ten."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{round(value, places):,.{max(places, 0)}f}"


def _short(value: float) -> str:
    """Three significant digits, without zeros at the end of a fraction."""
    text = digits_text(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def latency_text(timing: Timing) -> str:
    """Minimum, p50 and p90 in milliseconds, as "a / b / c"; instructions for an emulated timing.

    A simulated timing has one value, or a bound where a part of the work is not in it; a memory
    its bytes. A star stands behind times of a loaded or throttled machine; `condition_notes` says
    why.
    """
    if timing.arena_bytes is not None:
        return f"{timing.arena_bytes:,} B"
    if timing.p50_ms is None and timing.source == "simulated" and timing.min_ms:
        return f"> {digits_text(timing.min_ms)}"
    if timing.p50_ms is not None and timing.source == "simulated":
        return digits_text(timing.p50_ms)
    values = (timing.min_ms, timing.p50_ms, timing.p90_ms)
    if all(v is None for v in values):
        return f"{count_text(timing.instructions or 0)} instr." if timing.instructions else ""
    text = " / ".join("?" if v is None else digits_text(v) for v in values)
    return f"{text} *" if disturbances(timing) else text


def disturbances(timing: Timing) -> list[str]:
    """What made a measurement slower than the file is: throttling, other work, too few CPUs.

    A machine counts as loaded where its load before the start left fewer processors free than
    there were threads (or processors, if those are fewer), by a margin of a half.
    """
    if timing.source != "measured":
        return []
    found = [f"throttled ({timing.throttled})"] if timing.throttled else []
    cpus = f"{timing.cpus} CPU{'s' * (timing.cpus != 1)}"
    if timing.threads > timing.cpus > 0:
        found.append(f"{timing.threads} threads on {cpus}")
    free = timing.cpus - timing.load
    if timing.cpus and timing.load > 0.5 and free + 0.5 < min(timing.threads, timing.cpus):
        found.append(f"load {timing.load:.1f} on {cpus}")
    return found


def condition_notes(records: Sequence[Record]) -> list[str]:
    """What the timings say beside their times, a line for each target that says anything."""
    notes = []
    for key in timing_keys(records):
        timings = [(r.label, t) for r in records if (t := timing_of(r, key))]
        about = [t.device for _, t in timings[:1]] + _climate([t for _, t in timings])
        if any(about):
            notes.append(f"{key.target}: " + "; ".join(part for part in about if part) + ".")
        slowed = dict.fromkeys(why for _, t in timings for why in disturbances(t))
        if slowed:
            why = ", ".join(slowed)
            notes.append(
                f"* {key.target}: {why}: times may be too long; minima and ratios less so."
            )
        for label, timing in timings:
            if parts := _instruments(timing):
                notes.append(f"{label}, {key.target}: {', '.join(parts)} per inference.")
    return notes


def _climate(timings: Sequence[Timing]) -> list[str]:
    first, last = timings[0], timings[-1]
    out = [f"governor {first.governor}"] if first.governor else []
    if first.temperature_before is not None and last.temperature_after is not None:
        out.append(f"{first.temperature_before:.0f} to {last.temperature_after:.0f} °C")
    return out


def _instruments(timing: Timing) -> list[str]:
    """Counters and energy of a measured timing."""
    if timing.source != "measured":
        return []
    counts = {
        "instructions": timing.instructions,
        "cycles": timing.cycles,
        "cache misses": timing.cache_misses,
    }
    out = [f"{value:,} {name}" for name, value in counts.items() if value is not None]
    if timing.energy_mj is not None:
        out.append(f"{timing.energy_mj:.3g} mJ ({timing.power_sensor})")
    return out


def ops_text(record: Record, key: TimingKey | None) -> str:
    """Delegated over total ops, as measured under a key, else from the certificate."""
    timing = timing_of(record, key) if key else None
    if timing is not None and timing.total_ops:
        return f"{timing.delegated_ops}/{timing.total_ops}"
    if record.certificate:
        return f"{sum(r.delegated for r in record.certificate)}/{len(record.certificate)}"
    return ""

"""What benchmark_model prints, understood.

The tool of TensorFlow Lite and LiteRT (tools/benchmark) logs one fact a line, with or without
"INFO: " before it, by version. Times are microseconds. Since 2023 it prints the median too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LOG = re.compile(r"^\s*(?:(?:INFO|WARN|WARNING|ERROR|I tflite\s*):\s?)+")
_NUMBER = r"[-+0-9.eE]+"
_STATISTIC = re.compile(rf"(\w+)=({_NUMBER})")
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: ({_NUMBER}), First inference: ({_NUMBER}), "
    rf"Warmup \(avg\): ({_NUMBER}), Inference \(avg\): ({_NUMBER})"
)
# Older versions call the same growth of the resident set "Peak memory footprint".
_MEMORY = re.compile(
    rf"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init=({_NUMBER}) overall=({_NUMBER})"
)
_PROFILE, _ORDER = "Operator-wise Profiling Info for Regular Benchmark Runs", "Run Order"
_NODE = re.compile(r"\[.*\]:(\d+)\s*$")
_PLACED = re.compile(r"the model\s+graph will (not be|be completely|be partially)\s+executed")
_MEBI = 1024 * 1024 / 1e6


@dataclass(frozen=True)
class OpRow:
    """A row of the profile, in order of execution.

    Attributes:
        kind: Name of the op, or of a delegate ("TfLiteXNNPackDelegate").
        node: Its number: positions in the file for ops, larger ones for delegates' parts.
        us: Mean microseconds.
    """

    kind: str
    node: int
    us: float

    @property
    def delegate(self) -> bool:
        """True where it is a delegate's part."""
        return self.kind.startswith("TfLite") and "Delegate" in self.kind


@dataclass(frozen=True)
class Output:
    """One run of the tool. Times are microseconds, memory 10^6 bytes; None is not printed.

    Attributes:
        count: Inferences that were timed; 0 where it did not come so far.
        min: Quickest of them.
        max: Slowest.
        mean: Mean.
        std: Standard deviation.
        median: Median, of versions that print it.
        p95: 95 % quantile, likewise.
        init: Loading and preparing.
        first: First inference.
        peak_mb: Growth of the resident set's maximum since the tool's start.
        applied: True, False: whether XNNPACK took any op; None where it is not said.
        ops: The profile, where it was asked for.
        complaint: The line that says most of a failure, or "".
    """

    count: int = 0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    median: float | None = None
    p95: float | None = None
    init: float | None = None
    first: float | None = None
    peak_mb: float | None = None
    applied: bool | None = None
    ops: tuple[OpRow, ...] = field(default=())
    complaint: str = ""


def parse(text: str) -> Output:
    """Reads what the tool printed on both its streams.

    Args:
        text: All of it. Lines that are not understood are passed over.
    """
    lines = [_LOG.sub("", line.rstrip()) for line in text.splitlines()]
    statistics = [dict(_STATISTIC.findall(line)) for line in lines if line.startswith("count=")]
    # The first is the warm-up's; those within the profile come after the summary.
    end = next((i for i, line in enumerate(lines) if _TIMINGS.search(line)), None)
    found: dict[str, float | None] = {}
    if end is not None:
        before = [dict(_STATISTIC.findall(s)) for s in lines[:end] if s.startswith("count=")]
        found = _timed(before[-1] if before else {}, lines[end])
    memory = next((m for line in lines if (m := _MEMORY.search(line))), None)
    placed = next((m[1] for line in lines if (m := _PLACED.search(line))), None)
    return Output(
        count=int(found.pop("count", 0) or 0),
        **found,
        peak_mb=float(memory[2]) * _MEBI if memory else None,
        applied=None if placed is None else placed != "not be",
        ops=tuple(_profile(lines)),
        complaint=_complaint(text) if end is None or not statistics else "",
    )


def _timed(statistics: dict[str, str], summary: str) -> dict[str, float | None]:
    values = {k: float(v) for k, v in statistics.items()}
    match = _TIMINGS.search(summary)
    numbers = [float(n) for n in match.groups()] if match else []
    # A single inference has "curr" alone.
    only = values.get("curr") if values.get("count") == 1 else None
    return {
        "count": values.get("count", 0),
        "min": values.get("min", only),
        "max": values.get("max", only),
        "mean": values.get("avg", numbers[3] if numbers else None),
        "std": values.get("std"),
        "median": values.get("median"),
        "p95": values.get("p95"),
        "init": numbers[0] if numbers else None,
        "first": numbers[1] if numbers else None,
    }


def _profile(lines: list[str]) -> list[OpRow]:
    """Rows of the first table of the regular runs; columns differ by version, titles do not."""
    begin = next((i for i, line in enumerate(lines) if _PROFILE in line), None)
    if begin is None:
        return []
    rest = lines[begin + 1 :]
    order = next((i for i, line in enumerate(rest) if _ORDER in line), None)
    if order is None or order + 1 >= len(rest):
        return []
    titles = re.findall(r"\[([^\]]+)\]", rest[order + 1])
    if "avg ms" not in titles:
        return []
    column, found = titles.index("avg ms"), []
    for line in rest[order + 2 :]:
        node = _NODE.search(line)
        if node is None:
            break
        row = line.strip()
        cells = [cell.strip() for cell in row.split("\t")] if "\t" in row else row.split()
        found.append(OpRow(cells[0], int(node[1]), float(cells[column]) * 1e3))
    return found


def _complaint(text: str) -> str:
    """The first line that says error, else the last line of all."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [s for s in said if re.search(r"error|failed|unresolved|not supported", s, re.I)]
    return (wrong or said[-1:] or [""])[0]

"""What `tfedge doctor` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfedge.record import Timing
from tfedge.report.table import plain_table
from tfedge.tflite.doctor import Diagnosis, Finding
from tfedge.tflite.fixes import ON_REQUEST
from tfedge.tflite.repair import FixReport

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_MOST = 40


def checkup_tables(
    diagnosis: Diagnosis, fixes: Sequence[FixReport] = (), timing: Sequence[Timing] = ()
) -> Group:
    """Tables of a diagnosis, and of what became of the fixes.

    Args:
        diagnosis: Of the file as given.
        fixes: Reports of the fixes, if any were tried.
        timing: The file before and after, measured in turn, if it was mended.

    Returns:
        Something to print.
    """
    from rich.console import Group

    out: list[RenderableType] = [_line(summary(diagnosis))]
    if diagnosis.problem:
        out.append(_line(f"It does not run here: {diagnosis.problem}"))
    out += [_line(note) for note in diagnosis.notes]
    if diagnosis.findings:
        head = ["#", "op", "tensor", "us", "share", "rule", "fix"]
        shown = diagnosis.findings[:_MOST]
        out.append(plain_table("Findings", head, [_row(f) for f in shown]))
        left = len(diagnosis.findings) - len(shown)
        out += [_line(f"... and {left} more (all of them with --json)")] if left else []
        out += [_line(text) for text in _messages(diagnosis.findings)]
    if fixes:
        head = ["fix", "places", "kept", "moved", "outside XNNPACK", "partitions", "time", ""]
        out.append(plain_table("Fixes", head, [_fix_row(f) for f in fixes]))
    if len(timing) == 2:
        out.append(_line(_speed(timing)))
    return Group(*out)


def summary(diagnosis: Diagnosis) -> str:
    """One line: how much of a file XNNPACK runs, and what the rest takes."""
    if diagnosis.problem:
        return f"{diagnosis.total_ops} ops, {len(diagnosis.findings)} of them break a rule"
    parts = [
        f"{diagnosis.total_ops - diagnosis.outside} of {diagnosis.total_ops} ops in XNNPACK",
        f"{len(diagnosis.partitions)} partition" + "s" * (len(diagnosis.partitions) != 1),
    ]
    if diagnosis.total_us is not None:
        parts.append(f"{diagnosis.total_us:,.0f} us an inference (quickest, one thread)")
    if diagnosis.outside_us is not None:
        parts.append(f"{diagnosis.outside_us:,.0f} us of that outside XNNPACK")
    return "; ".join(parts)


def _line(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text)


def _row(finding: Finding) -> list[Any]:
    cost = "" if finding.cost_us is None else f"{finding.cost_us:.1f}"
    share = "" if finding.share is None else f"{finding.share:.1%}"
    where = finding.layer or finding.tensor
    rule = finding.rule or "(none known)"
    fix = finding.fix + " (--allow_float)" * (finding.fix in ON_REQUEST)
    return [finding.index, finding.op, where, cost, share, rule, fix]


def _messages(findings: Sequence[Finding]) -> list[str]:
    """Each rule once, with the number of ops that break it and their cost."""
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.rule, []).append(finding)
    lines = []
    for rule, members in grouped.items():
        cost = sum(f.cost_us or 0.0 for f in members)
        count = f"{len(members)} op" + "s" * (len(members) != 1)
        head = f"{rule or 'no rule known'} ({count}" + (f", {cost:.1f} us)" if cost else ")")
        lines.append(f"{head}: {' '.join(members[0].message.split())}")
    return lines


def _fix_row(report: FixReport) -> list[Any]:
    moved = [v for v in (report.steps, report.piece_steps) if v is not None]
    return [
        report.name,
        f"{report.places} of {report.found}",
        "yes" if report.kept else "no",
        f"{max(moved):.2g} steps" if moved else "",
        _arrow(report.outside),
        _arrow(report.partitions),
        "" if report.ratio is None else f"{report.ratio:.2f}x",
        report.said,
    ]


def _arrow(pair: tuple[int, int] | None) -> str:
    return "" if pair is None else f"{pair[0]} -> {pair[1]}"


def _speed(timing: Sequence[Timing]) -> str:
    before, after = timing
    if before.instructions and after.instructions:
        counts = f"{before.instructions:,} -> {after.instructions:,} instructions"
        return f"Counted on {before.target}: {counts} an inference"
    parts = [_quotient("wall", before.min_ms, after.min_ms)]
    parts += [_quotient("CPU", before.cpu_min_ms, after.cpu_min_ms)]
    shown = "; ".join(p for p in parts if p)
    return f"Measured in turn on {before.target} (load {before.load:.1f}), minima: {shown}"


def _quotient(clock: str, first: float | None, second: float | None) -> str:
    if not first or second is None:
        return ""
    return f"{clock} {first * 1e3:,.0f} us -> {second * 1e3:,.0f} us ({second / first:.2f}x)"

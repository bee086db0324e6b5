"""The table of accuracies on targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfedge.report.rows import is_fraction
from tfedge.report.table import plain_table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from tfedge.record import Timing

_NOTE = (
    "The standard error, sqrt(p (1 - p) / N), is that of the accuracy as an estimate for all "
    "samples there are; the difference to the host is on the same samples."
)


def scores_table(timings: Sequence[Timing]) -> Group:
    """Scores of files on targets beside the host's on the same samples, and what has none.

    Args:
        timings: With scores.
    """
    from rich.console import Group
    from rich.text import Text

    cells, notes = [], []
    for timing in timings:
        score = timing.score
        if score is None:
            continue
        if score.error:
            notes.append(f"{timing.model} was not scored on {timing.target}: {score.error}")
        for name, value in score.scores.items():
            host, error = score.host[name], score.standard_error.get(name)
            place = [timing.model, f"{timing.target}, {timing.source}"]
            place += [f"{score.samples:,} of {score.of:,}", name]
            cells.append([*place, *_numbers(name, value, host, error)])
    header = ["model", "target", "samples", "score", "there", "on the host", "difference"]
    out: list[RenderableType] = []
    if cells:
        header += ["standard error"]
        optional = ["standard error", "samples", "on the host"]
        table = plain_table("test samples, run there", header, cells, optional)
        out += [table, Text(_NOTE, style="dim")]
    return Group(*out, *(Text(note) for note in notes))


def _numbers(name: str, value: float, host: float, error: float | None) -> list[str]:
    if not is_fraction(name):
        return [f"{value:.6g}", f"{host:.6g}", f"{value - host:+.3g}", ""]
    shown = [f"{100 * value:.2f} %", f"{100 * host:.2f} %", f"{100 * (value - host):+.2f}"]
    return [*shown, "" if error is None else f"{100 * error:.2f}"]

"""The table of accuracies on targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfedge.record import HOST, Record, Score, Timing
from tfedge.report.rows import is_fraction
from tfedge.report.table import plain_table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

TITLE = "test samples, run there"
_ERRORS = (
    "The standard error, sqrt(p (1 - p) / N), is that of the accuracy as an estimate for all "
    "samples there are."
)
_PAIRED = (
    "The difference to the host is on the same samples; behind it ± its own standard error, from "
    "the samples that only one of them has right."
)
_LEVEL = 0.05
_OPTIONAL = ("standard error", "samples", "predictions differ", "on the host")


@dataclass(frozen=True)
class ScoreRows:
    """The table of scores as text.

    Attributes:
        header: Column names, the first `words` of which are of columns of words.
        cells: A row for each score.
        about: How to read it.
        notes: What must be said of single rows.
        words: See `header`.
    """

    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    about: tuple[str, ...]
    notes: tuple[str, ...]
    words: int = 4


def timings_of(records: Sequence[Record]) -> list[Timing]:
    """The timings of a run that have a score, under the names of the run's rows."""
    return [
        dataclasses.replace(timing, model=f"{record.label}, {record.scheme}")
        for record in records
        for timing in record.timing
        if timing.score
    ]


def score_rows(timings: Sequence[Timing]) -> ScoreRows:
    """Scores of files on targets beside the host's on the same samples.

    A column that nothing fills is left out: the differences where all ran on the host, the
    standard error where there is no accuracy.

    Args:
        timings: With scores or without.
    """
    columns: dict[str, list[str]] = {}
    notes: list[str] = []
    for timing in timings:
        score = timing.score
        if score is None:
            continue
        if score.error:
            notes.append(f"{timing.model} was not scored on {timing.target}: {score.error}")
        if score.note:
            notes.append(f"{timing.model}: {score.note}")
        for name in score.scores:
            for column, cell in _row(timing, score, name).items():
                columns.setdefault(column, []).append(cell)
            notes += _marked(timing, score, name)
    kept = {k: v for k, v in columns.items() if any(v)}
    about = [_ERRORS] if "standard error" in kept else []
    about += [_PAIRED] if any("±" in cell for cell in kept.get("difference", ())) else []
    cells = tuple(zip(*kept.values(), strict=True))
    return ScoreRows(tuple(kept), cells, tuple(about), tuple(dict.fromkeys(notes)))


def scores_table(timings: Sequence[Timing]) -> Group:
    """What `score_rows` says, to print.

    Args:
        timings: With scores.
    """
    from rich.console import Group
    from rich.text import Text

    found = score_rows(timings)
    out: list[RenderableType] = []
    if found.cells:
        optional = [name for name in _OPTIONAL if name in found.header]
        out.append(plain_table(TITLE, found.header, found.cells, optional))
    out += [Text(text, style="dim") for text in found.about]
    return Group(*out, *(Text(note) for note in found.notes))


def _row(timing: Timing, score: Score, name: str) -> dict[str, str]:
    value, host = score.scores[name], score.host.get(name)
    beside = host is not None and timing.target != HOST
    error = score.standard_error.get(name)
    different = score.different.get(name)
    return {
        "model": timing.model,
        "target": f"{timing.target}, {timing.source}",
        "samples": f"{score.samples:,} of {score.of:,}",
        "score": name,
        "there": _value(name, value),
        "standard error": "" if error is None else f"{100 * error:.2f}",
        "on the host": _value(name, host) if host is not None and beside else "",
        "difference": _difference(score, name) if beside else "",
        "predictions differ": ""
        if different is None or not beside
        else f"{different:,} of {score.samples:,}",
    }


def _value(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if is_fraction(name) else f"{value:.6g}"


def _difference(score: Score, name: str) -> str:
    difference = score.scores[name] - score.host[name]
    if not is_fraction(name):
        return f"{difference:+.3g}"
    error = score.difference_error.get(name)
    text = f"{100 * difference:+.2f}"
    if error is None:
        return text
    return f"{text} ± {100 * error:.2f}{' *' * stands_out(score, name)}"


def stands_out(score: Score, name: str) -> bool:
    """True where the difference to the host's deserves a mark.

    It does beyond two standard errors, and below p = 0.05 in the exact McNemar test. With fewer
    than about 6 samples that only one has right the former is met first: look at `p_value`.
    """
    if name not in score.difference_error:
        return False
    difference = abs(score.scores[name] - score.host[name])
    return difference > 2 * score.difference_error[name] or score.p_value[name] < _LEVEL


def _marked(timing: Timing, score: Score, name: str) -> list[str]:
    if timing.target == HOST or not stands_out(score, name):
        return []
    return [
        "* More than two standard errors from 0, or p < 0.05 in the exact McNemar test: "
        f"{timing.model} on {timing.target}, {name} (p = {score.p_value[name]:.2g})."
    ]

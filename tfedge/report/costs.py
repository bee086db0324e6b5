"""The tables of what each op takes, and of outputs compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfedge.report.table import plain_table
from tfedge.targets.op_table import OpTable

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from tfedge.record import OutputMatch
    from tfedge.targets.arm64.costs import Costs
    from tfedge.targets.arm64.guest import Mix

_CLASSES = ("instructions", "loads", "stores", "neon", "dot", "fmla", "smlal", "bytes")
_NOTE = (
    "Instructions are a cost that repeats exactly; they are not time. dot, fmla and smlal are "
    "parts of neon. An op with a kernel runs in XNNPACK; a kernel without an op is XNNPACK's own."
)
_MODEL = (
    "ms are estimates, the least that the core's published throughputs allow; bound is what is "
    "busy all that time."
)


def costs_table(name: str, costs: Costs | OpTable) -> Group:
    """What each op of a file takes, and all of it: instructions by class, or a target's columns.

    Args:
        name: What the title calls the file.
        costs: What a target counted.
    """
    from rich.console import Group
    from rich.text import Text

    if isinstance(costs, OpTable):
        return _op_table(name, costs)

    shown: list[list[str]] = []
    for row in costs.ops:
        place = "" if row.index is None else str(row.index)
        head = [place, row.op, row.layer, row.kernel]
        shown.append([*head, *_numbers(row.mix), *_shares(row.mix, row.ms, costs), row.bound])
    outside = ("(outside all ops)", costs.rest, costs.rest_ms)
    for word, mix, ms in (outside, ("total", costs.total, costs.ms)):
        shown.append(["", word, "", "", *_numbers(mix), *_shares(mix, ms, costs), ""])
    header = ["", "op", "layer", "XNNPACK kernel", *_CLASSES]
    header += ["share"] if costs.ms is None else ["ms", "share", "bound"]
    cells = [line[: len(header)] for line in shown]
    table = plain_table(f"{name}, {costs.target}, {costs.source}", header, cells)
    for column in table.columns[4 : 4 + len(_CLASSES) + 2]:
        column.justify = "right"
    texts = (_NOTE, _MODEL if costs.ms is not None else "", costs.note)
    notes: list[RenderableType] = [Text(t, style="dim") for t in texts if t]
    return Group(table, *notes)


def _shares(mix: Mix, ms: float | None, costs: Costs) -> list[str]:
    """The share of the instructions; or, of an estimate, time and its share."""
    if costs.ms is None or ms is None:
        return [_share(mix.instructions, costs.total.instructions)]
    return [f"{ms:.4g}", _share(ms, costs.ms)]


def _op_table(name: str, found: OpTable) -> Group:
    from rich.console import Group
    from rich.text import Text

    shared = found.columns.index(found.shared) if found.shared else None
    whole = found.total(found.shared) if found.shared else 0
    used = [i for i in range(len(found.columns)) if any(row.values[i] for row in found.rows)]
    shown: list[list[str]] = []
    for row in found.rows:
        line = ["" if row.index is None else str(row.index), row.op, row.layer, row.place]
        line += [f"{row.values[i]:,}" for i in used]
        line += [] if shared is None else [_share(row.values[shared], whole)]
        shown.append([*line, row.why])
    header = ["", "op", "layer", "on", *(found.columns[i] for i in used)]
    header += ["why"] if shared is None else ["share", "why"]
    table = plain_table(f"{name}, {found.target}, {found.source}", header, shown)
    for column in table.columns[4:-1]:
        column.justify = "right"
    table.caption, table.caption_justify = "; ".join(found.facts), "left"
    return Group(table, *(Text(note, style="dim") for note in found.notes))


def matches_table(matches: Sequence[OutputMatch]) -> Table:
    """Outputs of files on targets against this machine's.

    Args:
        matches: What `tfedge.bench.compare_outputs` found.
    """
    header = ["model", "target", "values", "different", "largest difference"]
    cells = [[m.model, m.target, m.values, m.different, f"{m.largest:.3g}"] for m in matches]
    return plain_table("outputs on random inputs, against this machine's", header, cells)


def _numbers(mix: Mix) -> list[str]:
    return [f"{getattr(mix, name):,}" for name in _CLASSES]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""

"""The table of instructions per op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfedge.report.table import plain_table

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


def costs_table(name: str, costs: Costs) -> Group:
    """Instructions by class of each op of a file, of what is outside them, and in total.

    Args:
        name: What the title calls the file.
        costs: What a target counted.
    """
    from rich.console import Group
    from rich.text import Text

    shown: list[list[str]] = []
    for row in costs.ops:
        place = "" if row.index is None else str(row.index)
        head = [place, row.op, row.layer, row.kernel]
        shown.append([*head, *_numbers(row.mix), _share(row.mix.instructions, costs)])
    for word, mix in (("(outside all ops)", costs.rest), ("total", costs.total)):
        shown.append(["", word, "", "", *_numbers(mix), _share(mix.instructions, costs)])
    header = ["", "op", "layer", "XNNPACK kernel", *_CLASSES, "share"]
    table = plain_table(f"{name}, {costs.target}, emulated", header, shown)
    for column in table.columns[4:]:
        column.justify = "right"
    notes: list[RenderableType] = [Text(t, style="dim") for t in (_NOTE, costs.note) if t]
    return Group(table, *notes)


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


def _share(count: int, costs: Costs) -> str:
    return f"{count / costs.total.instructions:.1%}" if costs.total.instructions else ""

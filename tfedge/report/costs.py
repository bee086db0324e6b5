"""The tables of what each op takes, and of outputs compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfedge.report.captions import LOWER_BOUND
from tfedge.report.rows import digits_text
from tfedge.report.table import plain_table
from tfedge.targets.op_table import OpTable

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from tfedge.record import OutputMatch
    from tfedge.report.fitting import FittedTable
    from tfedge.targets.arm64.costs import Costs
    from tfedge.targets.arm64.guest import Mix

_CLASSES = ("instructions", "loads", "stores", "neon", "dot", "fmla", "smlal", "bytes")
_NOTE = (
    "Instructions are a cost that repeats exactly; they are not time. dot, fmla and smlal are "
    "parts of neon. An op with a kernel runs in XNNPACK; a kernel without an op is XNNPACK's own."
)
_MODEL = (
    "ms are the least that the core's published throughputs allow; bound is what is busy all that "
    f"time. They are {LOWER_BOUND}."
)
_OPTIONAL = ("bytes", "smlal", "fmla", "dot", "neon", "stores", "loads", "XNNPACK kernel", "layer")
"""What goes where the width does not do, in this order."""


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
        head = [place, row.op or "(XNNPACK's own)", row.layer, row.kernel]
        shown.append([*head, *_numbers(row.mix), *_shares(row.mix, row.ms, costs), row.bound])
    outside = ("(outside all ops)", costs.rest, costs.rest_ms)
    for word, mix, ms in (outside, ("total", costs.total, costs.ms)):
        shown.append(["", word, "", "", *_numbers(mix), *_shares(mix, ms, costs), ""])
    header = ["", "op", "layer", "XNNPACK kernel", *_CLASSES]
    header += ["share"] if costs.ms is None else ["ms", "share", "bound"]
    cells = [line[: len(header)] for line in shown]
    optional = _OPTIONAL if costs.ms is None else (*_OPTIONAL, "instructions")
    table = plain_table(f"{name}, {costs.target}, {costs.source}", header, cells, optional)
    texts = (_NOTE, _MODEL if costs.ms is not None else "", costs.note)
    notes: list[RenderableType] = [Text(t, style="dim") for t in texts if t]
    return Group(table, *notes)


def _shares(mix: Mix, ms: float | None, costs: Costs) -> list[str]:
    """The share of the instructions; or, of an estimate, time and its share."""
    if costs.ms is None or ms is None:
        return [_share(mix.instructions, costs.total.instructions)]
    return [digits_text(ms), _share(ms, costs.ms)]


def _op_table(name: str, found: OpTable) -> Group:
    from rich.console import Group
    from rich.text import Text

    shared = found.columns.index(found.shared) if found.shared else None
    whole = found.total(found.shared) if found.shared else 0
    used = [i for i in range(len(found.columns)) if any(row.values[i] for row in found.rows)]
    shown: list[list[str]] = []
    for row in found.rows:
        line = ["" if row.index is None else str(row.index), row.op or "(XNNPACK's own)"]
        line += [row.layer, row.place]
        line += [f"{row.values[i]:,}" for i in used]
        line += [] if shared is None else [_share(row.values[shared], whole)]
        shown.append([*line, row.why])
    header = ["", "op", "layer", "on", *(found.columns[i] for i in used)]
    header += ["why"] if shared is None else ["share", "why"]
    numbers = [found.columns[i] for i in used if i != shared]
    optional = [*numbers[:0:-1], "layer", *numbers[:1]]
    table = plain_table(f"{name}, {found.target}, {found.source}", header, shown, optional)
    table.caption = "; ".join(found.facts)
    return Group(table, *(Text(note, style="dim") for note in found.notes))


def matches_table(matches: Sequence[OutputMatch]) -> FittedTable:
    """Outputs of files on targets against this machine's, each with a verdict.

    Args:
        matches: What `tfedge.bench.compare_outputs` found.
    """
    header = ["model", "target", "elements", "different", "largest difference", "in", "verdict"]
    cells = [[m.model, m.target, m.values, m.different, *_largest(m), verdict(m)] for m in matches]
    title = "outputs on random inputs, against this machine's"
    one = len({m.target for m in matches}) == 1
    return plain_table(title, header, cells, ["elements", "different", *["target"] * one])


def _largest(match: OutputMatch) -> list[str]:
    if match.relative is None:
        return [f"{match.largest:,.0f}", "codes"]
    return [f"{match.largest:.3g}", "values"]


def verdict(match: OutputMatch) -> str:
    """In words, whether a file computes on a target what it computes here.

    "equal" (in every bit), "within one step" or "differs" for integers; for floats how large the
    largest difference is beside the largest value of that output here.
    """
    if not match.different:
        return "equal"
    if match.relative is None:
        return "within one step" if match.largest <= 1 else "differs"
    if not match.relative:
        return "equal but for signs of zeros"
    return f"differs by {match.relative:.1e} (relative)"


def _numbers(mix: Mix) -> list[str]:
    return [f"{getattr(mix, name):,}" for name in _CLASSES]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""

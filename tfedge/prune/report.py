"""What a pruning run did, for people and for records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfedge.profile import profile
from tfedge.prune.plan import PruningPlan


@dataclass(frozen=True)
class PruningReport:
    """Costs before and after a cut, and what was left alone.

    Attributes:
        params: Parameters (before, after).
        macs: Multiply-accumulates (before, after).
        groups: (name, channels before, channels after, note) of every group.
        skipped: Notes of the groups that lost nothing, with the reason.
        approximate: Layers that count channels and counted the dead ones too while `fit` pruned,
            because there is no formula for them: there the masked model was not yet the cut one.
    """

    params: tuple[int, int]
    macs: tuple[int, int]
    groups: tuple[tuple[str, int, int, str], ...]
    skipped: tuple[str, ...]
    approximate: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A small table."""
        lines = [
            f"params {self.params[0]:,} -> {self.params[1]:,} "
            f"({self.params[1] / max(self.params[0], 1):.1%})",
            f"MACs   {self.macs[0]:,} -> {self.macs[1]:,} "
            f"({self.macs[1] / max(self.macs[0], 1):.1%})",
        ]
        width = max((len(g[0]) for g in self.groups), default=0)
        for name, before, after, note in self.groups:
            lines.append(f"  {name:<{width}}  {before:>5} -> {after:>5}  {note}".rstrip())
        if self.approximate:
            names = ", ".join(self.approximate)
            lines.append(f"counted dead channels too while fit pruned: {names}")
        return "\n".join(lines)


def make_report(before: Any, after: Any, plan: PruningPlan) -> PruningReport:
    """Compares a model with its pruned version.

    Args:
        before: The original model (or its trace).
        after: The pruned model.
        plan: The plan that was applied.
    """
    old, new = profile(before), profile(after)
    rows = tuple(
        (g.group, g.channels, g.channels - len(g.cut), g.note if not g.cut else "")
        for g in plan.groups
    )
    skipped = tuple(f"{r[0]}: {r[3]}" for r in rows if r[1] == r[2] and r[3])
    return PruningReport((old.params, new.params), (old.macs, new.macs), rows, skipped)

"""A pruning plan is data: which channels of which group go. It is made, saved, edited, applied."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import InputError, PlanError
from tfedge.graph import Analysis, Graph


@dataclass(frozen=True)
class GroupPlan:
    """What happens to one channel group.

    Attributes:
        group: Name of the group.
        channels: How many channels it has.
        cut: Channels to remove, ascending.
        note: Why nothing (or less than asked) is cut, or "".
    """

    group: str
    channels: int
    cut: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class PruningPlan:
    """Channels to cut, by group, for one model.

    Attributes:
        model: Name of the model.
        signature: Hash of the model's layer names and weight shapes.
        groups: One entry a group, blocked groups too.
        settings: The request that the plan was made from, for the reader.
    """

    model: str
    signature: str
    groups: tuple[GroupPlan, ...]
    settings: dict[str, Any]

    def cuts(self) -> dict[str, np.ndarray]:
        """Channels to remove by group name."""
        return {g.group: np.array(g.cut, dtype=int) for g in self.groups if g.cut}

    def save(self, path: str | Path) -> None:
        """Writes the plan as JSON."""
        value = {
            "model": self.model,
            "signature": self.signature,
            "settings": self.settings,
            "groups": [
                {"group": g.group, "channels": g.channels, "cut": list(g.cut), "note": g.note}
                for g in self.groups
            ],
        }
        text = json.dumps(value, indent=1)
        # One line a list of numbers, so that a person can edit it.
        Path(path).write_text(_compact_lists(text) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> PruningPlan:
        """Reads a plan.

        Raises:
            InputError: The file is missing or is not a plan.
        """
        try:
            value = json.loads(Path(path).read_text())
            groups = tuple(
                GroupPlan(
                    str(g["group"]),
                    int(g["channels"]),
                    tuple(sorted({int(c) for c in g["cut"]})),
                    str(g.get("note", "")),
                )  # fmt: skip
                for g in value["groups"]
            )
            return cls(value["model"], value["signature"], groups, value.get("settings", {}))
        except OSError as e:
            raise InputError("the plan cannot be read", f"{path}: {e.strerror}") from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise InputError(
                "this file is not a pruning plan",
                f"{path}: {type(e).__name__} {e}",
                "Make one with `tfedge prune --plan_out=...`",
            ) from e

    def check(self, analysis: Analysis) -> None:
        """Makes sure that the plan was made for this model.

        Raises:
            PlanError: Layer names or weight shapes differ.
        """
        if self.signature == signature(analysis.graph):
            return
        have = {g.name: g.channels for g in analysis.groups}
        wrong = [g.group for g in self.groups if have.get(g.group) != g.channels]
        raise PlanError(
            f"the plan was made for another model ('{self.model}')",
            f"group '{wrong[0]}' does not exist here with the same number of channels"
            if wrong
            else "other layer names or weight shapes",
            "Make a new plan for this model",
        )


def _compact_lists(text: str) -> str:
    """Puts lists of integers on one line."""
    return re.sub(
        r"\[\s*((?:-?\d+,\s*)*-?\d+)\s*\]",
        lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]",
        text,
    )


def signature(graph: Graph) -> str:
    """Hash of the layer names and weight shapes of a traced model."""
    rows = [
        (name, type(layer).__name__, [list(w.shape) for w in getattr(layer, "weights", [])])
        for name, layer in graph.layers().items()
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

"""A pruning plan is data: which blocks and channels go. It is made, saved, edited, applied."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import InputError, PlanError
from tfedge.graph import Graph


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
    """What to cut from one model: whole residual blocks first, then channels by group.

    Attributes:
        model: Name of the model.
        signature: Hash of the model's layer names and weight shapes.
        groups: One entry a group (of the model without those blocks), blocked groups too.
        settings: The request that the plan was made from, for the reader.
        blocks: Names of residual blocks to remove before any channel.
    """

    model: str
    signature: str
    groups: tuple[GroupPlan, ...]
    settings: dict[str, Any]
    blocks: tuple[str, ...] = ()

    def cuts(self) -> dict[str, np.ndarray]:
        """Channels to remove by group name."""
        return {g.group: np.array(g.cut, dtype=int) for g in self.groups if g.cut}

    def save(self, path: str | Path) -> None:
        """Writes the plan as JSON."""
        value = {
            "model": self.model,
            "signature": self.signature,
            "settings": self.settings,
            "blocks": list(self.blocks),
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
            blocks = tuple(str(b) for b in value.get("blocks", ()))
            settings = value.get("settings", {})
            return cls(value["model"], value["signature"], groups, settings, blocks)
        except OSError as e:
            raise InputError("the plan cannot be read", f"{path}: {e.strerror}") from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise InputError(
                "this file is not a pruning plan",
                f"{path}: {type(e).__name__} {e}",
                "Make one with `tfedge prune --plan_out=...`",
            ) from e

    def check(self, graph: Graph) -> None:
        """Makes sure that the plan was made for this model.

        Args:
            graph: Trace of the whole model, blocks included.

        Raises:
            PlanError: Layer names or weight shapes differ.
        """
        if self.signature == signature(graph):
            return
        names = set(graph.layers())
        lost = [g.group for g in self.groups if g.group.split(".")[0] not in names]
        raise PlanError(
            f"the plan was made for another model ('{self.model}')",
            f"there is no layer '{lost[0]}' here" if lost else "other layers or weight shapes",
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

"""Which of a teacher's channels a pruned student still has, layer by layer, from pruning plans."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.errors import InputError
from tfedge.graph import Analysis, analyse, cut, trace, without_blocks
from tfedge.graph.labels import NEVER

_PLAN = ("blocks", "cuts", "check")


def surviving(teacher: Any, plans: Any) -> dict[str, np.ndarray]:
    """The channels that are left at every layer's output after some pruning plans.

    Args:
        teacher: The model that the first plan was made for, of either Keras.
        plans: A `PruningPlan`, or a list of them, each made for the model that the one before left.

    Returns:
        Numbers of the teacher's channels, int arrays, by layer name. Layers whose last axis holds
        no channels as a group knows them (after a reshape that mixes axes, for example), that are
        called several times or that went with a residual block are left out.

    Raises:
        InputError: No plan.
        PlanError: A plan of another model.
    """
    items = list(plans) if isinstance(plans, (list, tuple)) else [plans]
    kept: dict[str, np.ndarray] = {}
    model = teacher
    for number, plan in enumerate(items):
        if not all(hasattr(plan, name) for name in _PLAN):
            fix = "Give a PruningPlan: tfedge.prune.PruningPlan.load(path)"
            raise InputError("this is no pruning plan", f"a {type(plan).__name__}", fix)
        graph = trace(model)
        plan.check(graph)
        analysis = analyse(without_blocks(graph, list(plan.blocks)) if plan.blocks else graph)
        found = _of_one(analysis, plan.cuts())
        kept = found if not number else {k: kept[k][v] for k, v in found.items() if k in kept}
        if number + 1 < len(items):
            model = cut(None, plan.cuts(), analysis)
    return kept


def _of_one(analysis: Analysis, cuts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What one plan leaves at each layer's output."""
    numbers = {g.name: i for i, g in enumerate(analysis.groups)}
    dead = {(numbers[n], int(c)) for n, channels in cuts.items() for c in channels}
    gone = {root for root, place in analysis.position.items() if place in dead}
    calls = [c for c in analysis.graph.calls if len(c.outputs) == 1]
    names = [c.name for c in analysis.graph.calls]
    out: dict[str, np.ndarray] = {}
    for call in calls:
        channels = analysis.graph.tensors[call.outputs[0]].shape[-1]
        labels = analysis.tensor_labels[call.outputs[0]]
        last = labels.reshape(-1, labels.shape[-1]) if labels.ndim else labels.reshape(1, -1)
        mixed = len(last) != 1 or last.shape[-1] not in (1, channels)
        if mixed or channels is None or names.count(call.name) > 1:
            continue
        row = np.broadcast_to(last[0], channels)
        alone = last.shape[-1] == channels or (row == NEVER).all()
        if alone:
            out[call.name] = np.array([i for i, x in enumerate(row.tolist()) if x not in gone])
    return out

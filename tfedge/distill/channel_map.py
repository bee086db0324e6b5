"""Which of a teacher's channels a pruned student still has, layer by layer, from pruning plans."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tfedge.errors import InputError
from tfedge.graph import Analysis, alive_labels, analyse, cut, trace, without_blocks

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
    alive = alive_labels(analysis, cuts)
    names = Counter(c.name for c in analysis.graph.calls)
    out: dict[str, np.ndarray] = {}
    for call in analysis.graph.calls:
        if len(call.outputs) != 1 or names[call.name] > 1:
            continue
        marks = analysis.marks[call.outputs[0]]
        channels = analysis.graph.tensors[call.outputs[0]].shape[-1]
        last = len(analysis.graph.tensors[call.outputs[0]].shape) - 1
        if channels is None or any(a != last for a in marks.axes):
            continue
        stays = np.ones(channels, bool)
        for plane in marks.planes:
            stays &= alive[plane.reshape(-1)]  # one label for all channels, or one for each
        out[call.name] = np.flatnonzero(stays)
    return out

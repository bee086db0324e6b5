"""One-shot pruning: choose channels by importance and cut them, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import ModelError
from tfedge.graph import Analysis, analyse, cut
from tfedge.prune.importance import Importance
from tfedge.prune.plan import PruningPlan
from tfedge.prune.report import PruningReport, make_report
from tfedge.prune.selection import Request, Selector, lowest, make_request, model_weights
from tfedge.quantized import is_quantized


@dataclass(frozen=True)
class Shrunk:
    """A pruned model with the plan that made it and a report of what changed."""

    model: Any
    plan: PruningPlan
    report: PruningReport


def require_prunable(model: Any) -> None:
    """Refuses models that cannot be pruned before any work is done.

    Raises:
        ModelError: A quantized model.
    """
    if is_quantized(model):
        raise ModelError(
            "pruning a quantize-aware model would lose its ranges",
            f"model '{model.name}'",
            "Prune first, then call quantize_aware on the pruned model",
        )


def make_plan(analysis: Analysis, request: Request) -> PruningPlan:
    """Chooses the channels of the lowest importance.

    Args:
        analysis: The analysed model.
        request: What is asked.

    Raises:
        PlanError: Nothing can be cut, or the budget cannot be met.
        InputError: A pattern that matches no layer.
        ModelError: A weight that is not finite.
    """
    selector = Selector(analysis, request)
    counts = selector.counts()
    scores = selector.scores(model_weights(analysis))
    return selector.plan([lowest(s, n) for s, n in zip(scores, counts, strict=True)])


def shrink(
    model: Any,
    sparsity: float | None = 0.5,
    importance: str | Importance = "l2",
    round_to: int = 8,
    plan: PruningPlan | str | Path | None = None,
    **limits: Any,
) -> Shrunk:
    """Removes the least important channels of a model at once.

    The result equals the network in which those channels do not exist: their activation is zero
    after the activation function, and whatever counts channels counts the kept ones.

    Args:
        model: A built functional or sequential model of either Keras; it is not changed.
        sparsity: Fraction of the channels of every group to cut, 0 < s < 1.
        importance: Name in `tfedge.prune.IMPORTANCE`, or `(group, weights) -> scores [channels]`.
        round_to: Kept channels are a multiple of this; 1 for an exact share.
        plan: A PruningPlan, or the path of one, to apply instead of choosing anew.
        **limits: `target_macs` or `target_params` (fraction that remains, replaces `sparsity`),
            `skip` (layer names or regexes), `overrides` (sparsity by layer name or regex).

    Returns:
        The pruned model (not compiled), its plan and a report; groups that could not be cut are in
        the report with the reason.

    Raises:
        InputError: A bad value, an unknown option, a pattern that matches no layer.
        ModelError: A model that cannot be pruned (subclassed, quantized, NaN weights).
        PlanError: A plan of another model, or a request that cannot be met.
    """
    require_prunable(model)
    if plan is None:
        request = make_request(sparsity, importance, round_to, limits)
        analysis = analyse(model)
        plan = make_plan(analysis, request)
    else:
        plan = plan if isinstance(plan, PruningPlan) else PruningPlan.load(plan)
        analysis = analyse(model)
    return apply_plan(model, plan, analysis)


def apply_plan(model: Any, plan: PruningPlan, analysis: Analysis | None = None) -> Shrunk:
    """Cuts what a plan says.

    Args:
        model: The model that the plan was made for.
        plan: The plan.
        analysis: The result of `analyse(model)`, where it is at hand.

    Raises:
        PlanError: The plan is of another model or cannot be carried out.
    """
    analysis = analysis or analyse(model)
    plan.check(analysis)
    smaller = cut(model, plan.cuts(), analysis)
    return Shrunk(smaller, plan, make_report(analysis.graph, smaller, plan))


def choose(scores: np.ndarray, count: int, dead: np.ndarray) -> np.ndarray:
    """Bool array of `count` channels to cut, those already dead first, then the lowest scores."""
    order = np.where(dead, -np.inf, scores)
    out = np.zeros(len(scores), dtype=bool)
    out[lowest(order, count)] = True
    return out

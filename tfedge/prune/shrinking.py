"""One-shot pruning: choose channels by importance and cut them, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import ModelError
from tfedge.graph import Analysis, Graph, analyse, cut, rebuild, trace, without_blocks
from tfedge.prune.importance import Importance
from tfedge.prune.plan import PruningPlan
from tfedge.prune.report import PruningReport, make_report
from tfedge.prune.request import make_request
from tfedge.prune.selection import Selector, lowest
from tfedge.quantized import foreign_quantizers, is_quantized, name_outputs


@dataclass(frozen=True)
class Shrunk:
    """A pruned model with the plan that made it and a report of what changed."""

    model: Any
    plan: PruningPlan
    report: PruningReport


def require_prunable(model: Any) -> None:
    """Refuses models that cannot be pruned before any work is done.

    Raises:
        ModelError: A model that tfmot itself made quantize-aware.
    """
    foreign = foreign_quantizers(model)
    if foreign:
        raise ModelError(
            "the quantizers of this model are not tfedge's, and cannot be cut",
            f"'{foreign[0]}' in '{model.name}'",
            "Prune the float model first, or make it quantize-aware with tfedge.quant",
        )


def shrink(
    model: Any,
    sparsity: float | None = None,
    importance: str | Importance = "l2",
    round_to: int = 8,
    plan: PruningPlan | str | Path | None = None,
    **limits: Any,
) -> Shrunk:
    """Removes the least important channels of a model at once.

    The result equals the network in which those channels do not exist: their activation is zero
    after the activation function, and whatever counts channels counts the kept ones.

    Args:
        model: A built functional or sequential model of either Keras, also a quantize-aware one,
            whose ranges stay; it is not changed.
        sparsity: Fraction of the channels to cut, 0 < s < 1; 0.5 where neither this nor a target
            is given.
        importance: Name in `tfedge.prune.IMPORTANCE`; `Taylor(data)` or `Activation(data)`; or a
            function `(group, weights) -> scores [channels]`.
        round_to: Kept channels are a multiple of this; 1 for an exact share.
        plan: A PruningPlan, or the path of one, to apply instead of choosing anew.
        **limits: `target_macs`, `target_params` or `target_bytes` (what remains, as a fraction or
            a number; in place of `sparsity`), `scope` ("uniform" or "global"), `floor` (fraction of
            each group that always stays), `skip` (layer names or regexes), `overrides` (sparsity by
            layer name or regex), `blocks` (names of residual blocks that go first, see
            `residual_blocks`; a target is a fraction of the whole model all the same).

    Returns:
        The pruned model (not compiled), its plan and a report; groups that could not be cut are in
        the report with the reason.

    Raises:
        InputError: A bad value, an unknown option, a pattern that matches no layer.
        ModelError: A model that cannot be pruned (subclassed, quantized by tfmot, NaN weights), a
            block that does not exist.
        PlanError: A plan of another model, or a request that cannot be met.
    """
    require_prunable(model)
    if plan is not None:
        loaded = plan if isinstance(plan, PruningPlan) else PruningPlan.load(plan)
        return _apply(model, loaded)
    blocks = limits.pop("blocks", ())
    blocks = (blocks,) if isinstance(blocks, str) else tuple(blocks)
    request = make_request(sparsity, importance, round_to, limits)
    whole = trace(model)
    rest = rebuild(without_blocks(whole, list(blocks))) if blocks else model
    analysis = analyse(rest)
    selector = Selector(rest, analysis, request, whole if blocks else None)
    counts, scores = selector.counts(), selector.scores()
    chosen = [lowest(s, n) for s, n in zip(scores, counts, strict=True)]
    return carry_out(whole, selector.plan(chosen), analysis)


def _apply(model: Any, plan: PruningPlan) -> Shrunk:
    """Cuts what a plan says, after making sure that it was made for this model."""
    whole = trace(model)
    plan.check(whole)
    rest = without_blocks(whole, list(plan.blocks)) if plan.blocks else whole
    return carry_out(whole, plan, analyse(rest))


def carry_out(whole: Graph, plan: PruningPlan, analysis: Analysis) -> Shrunk:
    """Cuts the channels of a plan.

    Args:
        whole: Trace of the model before anything was cut, to compare with.
        plan: The plan.
        analysis: The analysed model, from which the plan's blocks are gone.

    Raises:
        PlanError: The plan cannot be carried out.
    """
    smaller = cut(None, plan.cuts(), analysis)
    if is_quantized(smaller):
        name_outputs(smaller)
    return Shrunk(smaller, plan, make_report(whole, smaller, plan))


def choose(scores: np.ndarray, count: int, dead: np.ndarray) -> np.ndarray:
    """Bool array of `count` channels to cut, those already dead first, then the lowest scores."""
    order = np.where(dead, -np.inf, scores)
    out = np.zeros(len(scores), dtype=bool)
    out[lowest(order, count)] = True
    return out

"""Which channels go: a request (sparsity or budget, rounding, exceptions) made into a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from tfedge.errors import InputError, PlanError, did_you_mean
from tfedge.graph import Analysis, ChannelGroup
from tfedge.prune.costs import Costs
from tfedge.prune.importance import Importance, Weights, get_importance
from tfedge.prune.plan import GroupPlan, PruningPlan, signature


@dataclass(frozen=True)
class Request:
    """What to prune. Exactly one of `sparsity`, `target_macs` and `target_params` is used.

    Attributes:
        sparsity: Fraction of each group's channels to cut, 0 < s < 1.
        target_macs: Fraction of the model's multiply-accumulates that remains.
        target_params: Fraction of the model's parameters that remains.
        importance: Name in `IMPORTANCE`, or a function `(group, weights) -> scores`.
        round_to: Kept channels are a multiple of this (8 suits XNNPACK's kernels; 1 is exact). A
            group of at most `round_to` channels is left alone, and the plan says so.
        skip: Layer names or regexes (full match) whose channels stay.
        overrides: Sparsity by layer name or regex, for groups that those layers produce. An exact
            name wins over a regex, an earlier regex over a later one.
    """

    sparsity: float | None = None
    target_macs: float | None = None
    target_params: float | None = None
    importance: str | Importance = "l2"
    round_to: int = 8
    skip: tuple[str, ...] = ()
    overrides: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {
            k: getattr(self, k)
            for k in ("sparsity", "target_macs", "target_params")
            if getattr(self, k) is not None
        }
        if len(given) != 1:
            raise InputError(
                "pruning needs exactly one of sparsity, target_macs and target_params",
                ", ".join(f"{k}={v}" for k, v in given.items()) or "none of them",
            )
        for key, value in {
            **given,
            **{f"overrides[{k}]": v for k, v in self.overrides.items()},
        }.items():
            low_ok = value >= 0 if key.startswith("overrides") else value > 0
            if not (isinstance(value, (int, float)) and low_ok and value < 1):
                raise InputError(
                    f"{key} must lie between 0 and 1, both excluded",
                    str(value),
                    "A sparsity of 1.0 would leave nothing; 0.5 cuts half of the channels",
                )
        if self.round_to < 1:
            raise InputError("round_to must be at least 1", str(self.round_to))
        get_importance(self.importance)

    def settings(self) -> dict[str, Any]:
        """The request as plain JSON values."""
        out = asdict(self)
        if callable(self.importance):
            out["importance"] = getattr(self.importance, "__name__", "custom")
        out["skip"], out["overrides"] = list(self.skip), dict(self.overrides)
        return {k: v for k, v in out.items() if v is not None}


def make_request(sparsity: float | None, importance: Any, round_to: int, limits: dict) -> Request:
    """Builds a Request from a public function's arguments.

    A sparsity is dropped where `limits` names a budget.

    Raises:
        InputError: An unknown keyword (with the nearest) or a bad value.
    """
    known = {f.name for f in fields(Request)}
    for key in limits:
        if key not in known:
            raise InputError("unknown pruning option", f"'{key}'", did_you_mean(key, known))
    if any(limits.get(k) is not None for k in ("target_macs", "target_params")):
        sparsity = None
    limits = dict(limits)
    limits["skip"] = _as_tuple(limits.get("skip"))
    limits["overrides"] = dict(limits.get("overrides") or {})
    return Request(sparsity=sparsity, importance=importance, round_to=round_to, **limits)


def _as_tuple(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def model_weights(analysis: Analysis) -> Weights:
    """All weights that groups refer to, by (layer, weight index)."""
    layers = analysis.graph.layers()
    needed = {(s.layer, s.weight) for g in analysis.groups for s in g.slices}
    return {(n, i): np.asarray(layers[n].weights[i]) for n, i in needed}


class Selector:
    """Turns a request into channel counts and choices for one analysed model.

    Args:
        analysis: The analysed model.
        request: What is asked.

    Raises:
        InputError: A pattern in `skip` or `overrides` matches no layer.
        PlanError: A budget that cannot be met.
    """

    def __init__(self, analysis: Analysis, request: Request) -> None:
        self.analysis, self.request = analysis, request
        self.score = get_importance(request.importance)
        self._skipped: dict[int, str] = {}
        self._sparsity_of = self._per_group()
        self._cost = Costs(analysis)

    def _per_group(self) -> list[float | None]:
        """Sparsity of each group where an exception sets it (0 for skip), else None."""
        names = list(self.analysis.graph.layers())
        skip = _matches(self.request.skip, names, "skip")
        special = _matches(tuple(self.request.overrides), names, "overrides")
        out: list[float | None] = []
        for i, group in enumerate(self.analysis.groups):
            value: float | None = None
            for pattern in sorted(special, key=lambda p: p not in names):
                if set(group.producers) & special[pattern]:
                    value = float(self.request.overrides[pattern])
                    break
            for pattern, hit in skip.items():
                if set(group.producers) & hit and not group.blocked:
                    value = 0.0
                    self._skipped[i] = f"skipped as asked ('{pattern}')"
            out.append(value)
        return out

    def counts(self) -> list[int]:
        """How many channels each group loses.

        Raises:
            PlanError: The budget is out of reach, or nothing can be cut.
        """
        r = self.request
        if r.sparsity is not None:
            counts = self._counts_at(r.sparsity)
        else:
            counts = self._counts_for_budget()
        if not any(counts):
            notes = [f"{g.name}: {self.note(i, 0)}" for i, g in enumerate(self.analysis.groups)]
            raise PlanError(
                "no channel of this model can be cut as asked",
                "; ".join(notes)[:600] or "no layer with channels",
                "Lower round_to, raise the sparsity, or add a rule for the layers named",
            )
        return counts

    def _count(self, i: int, sparsity: float) -> int:
        """Channels that group i loses at a sparsity, rounding respected."""
        group = self.analysis.groups[i]
        own = self._sparsity_of[i]
        sparsity = sparsity if own is None else own
        if group.blocked or sparsity == 0:
            return 0
        width = _width(group)
        step = max(1, self.request.round_to // np.gcd(self.request.round_to, width))
        keep = group.channels * (1 - sparsity)
        kept = max(step, int(np.floor(keep / step + 0.5)) * step)
        free = int((~group.fixed).sum()) - len(self.analysis.parts[i])
        return max(0, min(group.channels - kept, free, group.channels - 1))

    def _counts_at(self, sparsity: float) -> list[int]:
        """Channels that each group loses at a uniform sparsity."""
        return [self._count(i, sparsity) for i in range(len(self.analysis.groups))]

    def note(self, i: int, cut: int) -> str:
        """Why group i loses nothing, or ""."""
        if cut:
            return ""
        group = self.analysis.groups[i]
        return (
            group.blocked
            or self._skipped.get(i)
            or f"its {group.channels} channels cannot lose a share with "
            f"round_to={self.request.round_to}"
        )

    def _counts_for_budget(self) -> list[int]:
        """Bisects the uniform sparsity until the model's cost meets the target."""
        r = self.request
        what = "macs" if r.target_macs is not None else "params"
        target = r.target_macs if r.target_macs is not None else r.target_params
        full = self._cost.of({}, what)
        tried: dict[float, float] = {}

        def cost(s: float) -> float:
            counts = self._counts_at(s)
            dead = {
                i: np.arange(g.channels) < c
                for i, (g, c) in enumerate(zip(self.analysis.groups, counts, strict=True))
            }
            tried[s] = self._cost.of(dead, what) / max(full, 1)
            return tried[s]

        low, high = 0.0, 0.999
        if cost(high) > (target or 0) + 0.02:
            raise PlanError(
                f"the budget target_{what}={target} cannot be met",
                f"with one step of round_to={r.round_to} left in every group, "
                f"{tried[high]:.1%} of the {what} remain",
                "Raise the target or lower round_to",
            )
        for _ in range(24):
            middle = (low + high) / 2
            low, high = (middle, high) if cost(middle) > (target or 0) else (low, middle)
        best = min(tried, key=lambda s: (abs(tried[s] - (target or 0)), s))
        return self._counts_at(best)

    def scores(self, weights: Weights) -> list[np.ndarray]:
        """Importance of every group's channels; fixed channels are infinite."""
        out = []
        for group, parts in zip(self.analysis.groups, self.analysis.parts, strict=True):
            if group.blocked:
                out.append(np.full(group.channels, np.inf))
                continue
            score = np.asarray(self.score(group, weights), dtype=float)
            if score.shape != (group.channels,):
                raise PlanError(
                    f"the importance gave the wrong number of scores for group '{group.name}'",
                    f"shape {score.shape}",
                    f"Return one score for each of its {group.channels} channels",
                )
            score = np.where(group.fixed, np.inf, score)
            for part in parts:  # the best channel of a part stays, so that no layer runs empty
                members = np.array(sorted(part))
                score[members[np.argmax(score[members])]] = np.inf
            out.append(score)
        return out

    def plan(self, chosen: list[np.ndarray]) -> PruningPlan:
        """The plan that cuts the chosen channels."""
        groups = tuple(
            GroupPlan(
                g.name, g.channels, tuple(sorted(int(c) for c in cut)), self.note(i, len(cut))
            )
            for i, (g, cut) in enumerate(zip(self.analysis.groups, chosen, strict=True))
        )
        graph = self.analysis.graph
        return PruningPlan(graph.name, signature(graph), groups, self.request.settings())


def lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` channels of the lowest score, ties by number."""
    return np.sort(np.argsort(scores, kind="stable")[:count])


def _width(group: ChannelGroup) -> int:
    """Positions of the producing weight that one channel stands for."""
    first = next((s for s in group.slices if s.role == "out"), None)
    return 1 if first is None else max(1, len(first.index) // len(np.unique(first.channel)))


def _matches(patterns: tuple[str, ...], names: list[str], what: str) -> dict[str, set[str]]:
    """Layer names that each pattern (exact name, else regex) stands for, in order."""
    out: dict[str, set[str]] = {}
    for pattern in patterns:
        if pattern in names:
            out[pattern] = {pattern}
            continue
        try:
            hits = {n for n in names if re.fullmatch(pattern, n)}
        except re.error as e:
            raise InputError(f"a pattern in {what} is not a regex", f"'{pattern}': {e}") from e
        if not hits:
            raise InputError(
                f"a pattern in {what} matches no layer", f"'{pattern}'",
                did_you_mean(pattern, names),
            )  # fmt: skip
        out[pattern] = hits
    return out

"""Which channels go: a request (sparsity or budget, rounding, exceptions) made into a plan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from math import ceil
from typing import Any

import numpy as np

from tfedge.errors import ModelError, PlanError
from tfedge.graph import Analysis, ChannelGroup, Graph, residual_blocks
from tfedge.prune.costs import Costs, cost_of
from tfedge.prune.importance import Weights, get_importance
from tfedge.prune.plan import GroupPlan, PruningPlan, signature
from tfedge.prune.request import Request, matches

_NEAR = 0.005  # a budget met within this share of itself is not refined further
_CANDIDATES = 64  # units on either side of the target that a round of refinement tries
_PAIRED = 24  # moves that are also tried two at a time


@dataclass(frozen=True)
class Unit:
    """The smallest cut of a group that rounding allows: from `before` lost channels to `after`.

    `key` puts the units of all groups in the order in which they go.
    """

    group: int
    before: int
    after: int
    key: float


def model_weights(analysis: Analysis) -> Weights:
    """All weights that groups refer to, by (layer, weight index).

    Raises:
        ModelError: A weight is not finite.
    """
    layers = analysis.graph.layers()
    named = {(s.layer, s.weight): s.weight_name for g in analysis.groups for s in g.slices}
    values = {(n, i): np.asarray(layers[n].weights[i]) for n, i in named}
    for key, value in values.items():
        if not np.isfinite(value).all():
            raise ModelError(
                f"weight '{named[key]}' of layer '{key[0]}' is not finite",
                "NaN or infinity",
                "Train the model again before pruning it",
            )
    return values


class Selector:
    """Turns a request into channel counts and choices for one analysed model.

    Args:
        model: The model.
        analysis: Its analysis.
        request: What is asked.
        whole: Trace of the model before blocks were removed from it, to which the budget and the
            plan refer; None for the analysed model itself.

    Raises:
        InputError: A pattern in `skip` or `overrides` matches no layer.
    """

    def __init__(
        self, model: Any, analysis: Analysis, request: Request, whole: Graph | None = None
    ) -> None:
        self.model, self.analysis, self.request = model, analysis, request
        self.whole = whole or analysis.graph
        self.importance = get_importance(request.importance)
        self._skipped: dict[int, str] = {}
        self._own = self._own_sparsity()
        self._cost = Costs(analysis)
        self._allowed = [self._allowed_cuts(i) for i in range(len(analysis.groups))]

    def _own_sparsity(self) -> list[float | None]:
        """Sparsity of each group where an exception sets it (0 for skip), else None."""
        names = list(self.analysis.graph.layers())
        skip = matches(self.request.skip, names, "skip")
        special = matches(tuple(self.request.overrides), names, "overrides")
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

    def _allowed_cuts(self, i: int) -> list[int]:
        """How many channels group i may lose, ascending from 0, by rounding, floor and parts."""
        group = self.analysis.groups[i]
        if group.blocked:
            return [0]
        width = _width(group)
        step = max(1, self.request.round_to // int(np.gcd(self.request.round_to, width)))
        free = int((~group.fixed).sum()) - len(self.analysis.parts[i])
        least = max(1, ceil(self.request.least * group.channels - 1e-9), group.channels - free)
        kept = range(group.channels - 1 - (group.channels - 1) % step, least - 1, -step)
        return [0, *(group.channels - k for k in kept if k > 0)]

    def counts(self) -> list[int]:
        """How many channels each group loses.

        Raises:
            PlanError: The budget is out of reach, or nothing can be cut.
        """
        fixed = [_nearest(a, self._share(i)) for i, a in enumerate(self._allowed)]
        units = self._units()
        budget = self.request.budget
        if budget is not None:
            counts = self._within_budget(fixed, units, *budget)
        elif self.request.scope == "uniform":
            sparsity = self.request.sparsity or 0.0
            counts = _taken(fixed, [u for u in units if u.key < sparsity])
        else:
            counts = _taken(fixed, units[: self._first_channels(units)])
        if not any(counts):
            notes = [f"{g.name}: {self.note(i, 0)}" for i, g in enumerate(self.analysis.groups)]
            raise PlanError(
                "no channel of this model can be cut as asked",
                "; ".join(notes)[:600] or "no layer with channels",
                "Lower round_to, raise the sparsity, or add a rule for the layers named",
            )
        return counts

    def _share(self, i: int) -> float:
        """Channels that an exception asks group i to lose."""
        return (self._own[i] or 0.0) * self.analysis.groups[i].channels

    def _units(self) -> list[Unit]:
        """The units of all groups without an exception, in the order in which they go."""
        scores = self.scores() if self.request.scope == "global" else None
        units: list[Unit] = []
        for i, allowed in enumerate(self._allowed):
            if self._own[i] is not None:
                continue
            channels, key = self.analysis.groups[i].channels, -np.inf
            order = None if scores is None else np.sort(scores[i])
            for before, after in zip(allowed[:-1], allowed[1:], strict=True):
                share = (before + after) / 2 / channels
                # A unit never goes before an earlier one of its group.
                key = max(key, share if order is None else float(order[before:after].mean()))
                units.append(Unit(i, before, after, key))
        return sorted(units, key=lambda u: (u.key, u.group, u.after))

    def _first_channels(self, units: list[Unit]) -> int:
        """How many units are nearest to the asked share of all channels that compete."""
        groups = {u.group for u in units}
        total = sum(self.analysis.groups[g].channels for g in groups)
        lost = np.cumsum([0, *(u.after - u.before for u in units)])
        return int(np.argmin(np.abs(lost - total * (self.request.sparsity or 0.0))))

    def note(self, i: int, cut: int) -> str:
        """Why group i loses nothing, or ""."""
        if cut:
            return ""
        group = self.analysis.groups[i]
        if group.blocked or i in self._skipped:
            return group.blocked or self._skipped[i]
        if len(self._allowed[i]) == 1:
            return (
                f"its {group.channels} channels cannot lose a share with "
                f"round_to={self.request.round_to}"
            )
        return "other channels are less important, or its share is less than one step of rounding"

    def _within_budget(
        self, fixed: list[int], units: list[Unit], what: str, target: float
    ) -> list[int]:
        """Takes units in order until the model's cost meets the target, then refines."""
        full = max(cost_of(self.whole, what), 1.0)
        wanted = target * full if target < 1 else target
        if wanted >= self._cost.of({}, what):
            raise PlanError(
                f"the model is smaller than target_{what}={target:g} already",
                f"{self._cost.of({}, what):,.0f} {what}",
            )

        def miss(counts: list[int]) -> float:
            return (self._cost.after(counts, what) - wanted) / wanted

        low, high = 0, len(units)
        if (worst := miss(_taken(fixed, units))) > 0.02:
            raise PlanError(
                f"the budget target_{what}={target:g} cannot be met",
                f"with as few channels left in every group as round_to={self.request.round_to} "
                f"and floor={self.request.least:g} allow, {(worst + 1) * wanted / full:.1%} of "
                f"the {what} remain",
                "Raise the target, or lower round_to or floor",
            )
        while high - low > 1:  # low: too much is left; high: the target is met
            middle = (low + high) // 2
            low, high = (middle, high) if miss(_taken(fixed, units[:middle])) > 0 else (low, middle)
        around = [_taken(fixed, units[:k]) for k in (low, high)]
        best = min(around, key=lambda c: abs(miss(c)))
        return self._refined(best, units[max(0, low - _CANDIDATES) : low + _CANDIDATES], miss)

    def _refined(self, counts: list[int], units: list[Unit], miss: Any) -> list[int]:
        """Moves one or two groups by a unit while that brings the cost nearer to the target."""
        error = abs(miss(counts))
        while error > _NEAR:
            moves = _moves(counts, units)
            pairs = [(a, b) for a in moves[:_PAIRED] for b in moves[:_PAIRED] if a[0] < b[0]]
            for tried in ([(m,) for m in moves], pairs):
                best = min(
                    (_moved(counts, t) for t in tried), key=lambda c: abs(miss(c)), default=[]
                )
                if best and abs(miss(best)) < error:
                    counts, error = best, abs(miss(best))
                    break
            else:
                break
        return counts

    def scores(self) -> list[np.ndarray]:
        """Importance of every group's channels; fixed channels are infinite.

        Raises:
            ModelError: A weight is not finite.
            PlanError: The importance gave other scores than one finite number a channel.
        """
        weights: Any = model_weights(self.analysis)
        measure = getattr(self.importance, "measure", None)
        evidence = weights if measure is None else measure(self.model, self.analysis)
        out = []
        for group, parts in zip(self.analysis.groups, self.analysis.parts, strict=True):
            if group.blocked:
                out.append(np.full(group.channels, np.inf))
                continue
            score = np.asarray(self.importance(group, evidence), dtype=float)
            if score.shape != (group.channels,) or np.isnan(score).any():
                raise PlanError(
                    f"the importance gave no proper scores for group '{group.name}'",
                    f"NaN among {group.channels} scores"
                    if score.shape == (group.channels,)
                    else f"shape {score.shape}",
                    f"Return one number for each of its {group.channels} channels",
                )
            score = np.where(group.fixed, np.inf, score)
            for part in parts:  # the best channel of a part stays, so that no layer runs empty
                members = np.array(sorted(part))
                score[members[np.argmax(score[members])]] = np.inf
            out.append(score)
        return out

    def plan(self, chosen: list[np.ndarray]) -> PruningPlan:
        """The plan that cuts the chosen channels, and the blocks that are gone already."""
        groups = tuple(
            GroupPlan(
                g.name, g.channels, tuple(sorted(int(c) for c in cut)), self.note(i, len(cut))
            )
            for i, (g, cut) in enumerate(zip(self.analysis.groups, chosen, strict=True))
        )
        whole, here = self.whole, self.analysis.graph.layers()
        gone = (b.name for b in residual_blocks(whole)) if whole is not self.analysis.graph else ()
        return PruningPlan(
            whole.name,
            signature(whole),
            groups,
            self.request.settings(),
            tuple(name for name in gone if name not in here),
        )


def lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` channels of the lowest score, ties by number."""
    return np.sort(np.argsort(scores, kind="stable")[:count])


def _nearest(allowed: list[int], wanted: float) -> int:
    """The allowed count nearest to the wanted one; the smaller of two."""
    return min(allowed, key=lambda c: (abs(c - wanted), c))


def _taken(fixed: list[int], units: list[Unit]) -> list[int]:
    """Counts by group after these units have gone."""
    counts = list(fixed)
    for unit in units:
        counts[unit.group] = max(counts[unit.group], unit.after)
    return counts


def _moves(counts: list[int], units: list[Unit]) -> list[tuple[int, int]]:
    """(group, new count) of every step up or down that these units allow."""
    ups = [(u.group, u.after) for u in units if counts[u.group] == u.before]
    downs = [(u.group, u.before) for u in units if counts[u.group] == u.after]
    return [m for pair in zip_longest(ups, downs) for m in pair if m is not None]


def _moved(counts: list[int], moves: tuple[tuple[int, int], ...]) -> list[int]:
    new = dict(moves)
    return [new.get(i, c) for i, c in enumerate(counts)]


def _width(group: ChannelGroup) -> int:
    """Positions of the producing weight that one channel stands for."""
    first = next((s for s in group.slices if s.role == "out"), None)
    return 1 if first is None else max(1, len(first.index) // len(np.unique(first.channel)))

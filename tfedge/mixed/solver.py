"""Which scheme each unit gets: an integer programme, solved to a proven gap (HiGHS).

Minimise    sum_u sum_s noise[u,s] x[u,s]  +  sum_t sum_(g,f) noise[t,f] z[t,g,f]
subject to  sum_s x[u,s] = 1                                   for every unit u
            sum_us cost_k[u,s] x[u,s] + sum_tgf seam_k[t,g,f] z[t,g,f] <= budget_k   for every k
            z[t,g,f] >= X[maker(t),g] + X[reader,f] - 1        for every reader of t, f != g
            x binary, 0 <= z <= 1,  X[u,f] = sum of x[u,s] over the schemes s of form f

A form is the activation's bits (0: float). z says that tensor t is made in form g and is needed in
form f as well: one op at the seam, however many read it. As noise and seams are never negative, z
is 0 or 1 by itself. With a budget of noise, a cost is minimised instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge.errors import InputError

NOISE = "noise"
"""The budget and objective that is no cost."""

TIME_LIMIT = 8.0
"""Seconds after which the best solution so far is taken."""

_GAP = 5e-4


@dataclass(frozen=True)
class Option:
    """What a unit is under one scheme.

    Attributes:
        form: Activation bits: 8, 16, or 0 for float.
        noise: What it adds to the noise of the outputs (see `sensitivity`).
        costs: By name, "bytes" or "latency_us".
    """

    form: int
    noise: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Link:
    """A tensor between units.

    Attributes:
        maker: The unit that makes it.
        readers: Units that read it.
        noise: What quantizing it at a seam adds, by form.
        costs: Cost of the op at the seam by name, by (form it has, form that is needed).
    """

    maker: str
    readers: tuple[str, ...]
    noise: Mapping[int, float] = field(default_factory=dict)
    costs: Mapping[str, Mapping[tuple[int, int], float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Solution:
    """What `solve` found.

    Attributes:
        schemes: Scheme by unit.
        noise: Of the outputs, as far as noises add up.
        costs: By name.
        gap: By how much (relative) a better one may beat it at most.
    """

    schemes: dict[str, str]
    noise: float
    costs: dict[str, float]
    gap: float


Units = Mapping[str, Mapping[str, Option]]


def solve(
    units: Units,
    links: Sequence[Link],
    budget: Mapping[str, float],
    minimise: str = NOISE,
    time_limit: float = TIME_LIMIT,
) -> Solution:
    """The best schemes within a budget.

    Args:
        units: Options by scheme, by unit.
        links: Tensors between them.
        budget: Upper limit by name of a cost, or of `NOISE`.
        minimise: `NOISE` or the name of a cost.
        time_limit: Seconds.

    Raises:
        InputError: No choice of schemes is within the budget; the error says what is possible.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    problem = _Problem(units, links)
    rows = [problem.one_each(), problem.seams()]
    constraints = [LinearConstraint(m, low, high) for m, low, high in rows if m.shape[0]]
    scales = {}
    for name, limit in budget.items():
        weights = problem.weights(name)
        scales[name] = float(np.abs(weights).max()) or 1.0
        limit = (limit - problem.least(name)) / scales[name]
        row = (weights - problem.floor(name)) / scales[name]
        constraints.append(LinearConstraint(row[None, :], -np.inf, limit + 1e-9))
    goal = problem.weights(minimise)
    top = float(np.abs(goal).max()) or 1.0
    found = milp(
        goal / top, integrality=problem.integral, bounds=Bounds(0, 1), constraints=constraints,
        options={"time_limit": time_limit, "mip_rel_gap": _GAP},
    )  # fmt: skip
    if found.x is None:
        raise InputError(
            "no choice of schemes is within the budget",
            ", ".join(f"{k} at most {v:g}" for k, v in budget.items()),
            "At least needed, each alone: "
            + ", ".join(f"{k} {_least(units, links, k):.4g}" for k in budget),
        )
    schemes = problem.schemes(found.x)
    return Solution(
        schemes,
        problem.total(schemes, NOISE),
        {k: problem.total(schemes, k) for k in problem.cost_names},
        float(found.mip_gap or 0.0),
    )


def _least(units: Units, links: Sequence[Link], name: str) -> float:
    """The least cost, or noise, when nothing else counts."""
    found = solve(units, links, {}, name)
    return found.noise if name == NOISE else found.costs[name]


class _Problem:
    """The variables in a row: x by unit and scheme, then z by link and pair of forms."""

    def __init__(self, units: Units, links: Sequence[Link]) -> None:
        self.units, self.links = units, links
        self.choices = [(u, s) for u, options in units.items() for s in options]
        self._place = {choice: i for i, choice in enumerate(self.choices)}
        self.pairs = [
            (n, g, f)
            for n, link in enumerate(links)
            for g in self._forms(link.maker)
            for f in sorted({f for r in link.readers for f in self._forms(r)} - {g})
        ]
        first = next(iter(next(iter(units.values())).values()))
        self.cost_names = tuple(first.costs)
        size = len(self.choices) + len(self.pairs)
        self.integral = np.zeros(size)
        self.integral[: len(self.choices)] = 1

    def _forms(self, unit: str) -> list[int]:
        return sorted({o.form for o in self.units[unit].values()})

    def weights(self, name: str) -> np.ndarray:
        """Coefficient of every variable in a cost, or in the noise."""
        found = [self._value(u, s, name) for u, s in self.choices]
        found += [self._seam(n, g, f, name) for n, g, f in self.pairs]
        return np.array(found, float)

    def _value(self, unit: str, scheme: str, name: str) -> float:
        option = self.units[unit][scheme]
        return option.noise if name == NOISE else option.costs[name]

    def _seam(self, link: int, made: int, needed: int, name: str) -> float:
        found = self.links[link]
        if name == NOISE:
            return found.noise.get(needed, 0.0)
        return found.costs.get(name, {}).get((made, needed), 0.0)

    def floor(self, name: str) -> np.ndarray:
        """Of every x the least that its unit costs; taken off both sides, numbers stay small."""
        least = {
            u: min(self._value(u, s, name) for s in options) for u, options in self.units.items()
        }
        return np.array([least[u] for u, _ in self.choices] + [0.0] * len(self.pairs))

    def least(self, name: str) -> float:
        """The sum of `floor` over units."""
        return sum(
            min(self._value(u, s, name) for s in options) for u, options in self.units.items()
        )

    def one_each(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """Every unit has one scheme."""
        rows = {u: i for i, u in enumerate(self.units)}
        entries = [(rows[u], i, 1.0) for i, (u, _) in enumerate(self.choices)]
        ones = np.ones(len(rows))
        return self._matrix(entries, len(rows)), ones, ones

    def seams(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """Where maker and reader have unlike forms there is a seam: X + X - z <= 1."""
        entries: list[tuple[int, int, float]] = []
        row = 0
        for i, (n, made, needed) in enumerate(self.pairs):
            link = self.links[n]
            for reader in dict.fromkeys(link.readers):
                if needed not in self._forms(reader) or reader == link.maker:
                    continue
                for unit, form in ((link.maker, made), (reader, needed)):
                    fit = [s for s, o in self.units[unit].items() if o.form == form]
                    entries += [(row, self._place[unit, s], 1.0) for s in fit]
                entries.append((row, len(self.choices) + i, -1.0))
                row += 1
        return self._matrix(entries, row), np.full(row, -np.inf), np.ones(row)

    def _matrix(self, entries: list[tuple[int, int, float]], rows: int) -> Any:
        from scipy.sparse import csr_array

        at = np.array([e[:2] for e in entries], int).reshape(-1, 2).T
        values = np.array([e[2] for e in entries], float)
        return csr_array((values, (at[0], at[1])), shape=(rows, self.integral.size))

    def schemes(self, values: np.ndarray) -> dict[str, str]:
        """The scheme of each unit in a solution."""
        best: dict[str, tuple[float, str]] = {}
        for (unit, scheme), value in zip(self.choices, values, strict=False):
            best[unit] = max(best.get(unit, (-1.0, "")), (float(value), scheme))
        return {unit: scheme for unit, (_, scheme) in best.items()}

    def total(self, schemes: Mapping[str, str], name: str) -> float:
        """A cost, or the noise, of a choice of schemes."""
        result = sum(self._value(u, s, name) for u, s in schemes.items())
        for n, link in enumerate(self.links):
            made = self.units[link.maker][schemes[link.maker]].form
            needed = {self.units[r][schemes[r]].form for r in link.readers} - {made}
            result += sum(self._seam(n, made, f, name) for f in needed)
        return result

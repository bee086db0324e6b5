"""The integer programme of mixed precision: right by exhaustion, fast where that ends."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfedge.errors import InputError
from tfedge.mixed.solver import NOISE, Link, Option, solve

FORMS = {"w8a8": 8, "w4a8": 8, "w8a16": 16, "float32": 0}


def network(rng, count):
    """Units in a row with some skips."""
    units = {
        f"u{i}": {
            s: Option(f, float(rng.random()), {"bytes": float(rng.random()), "us": rng.random()})
            for s, f in FORMS.items()
        }
        for i in range(count)
    }
    links = []
    for i in range(count - 1):
        readers = {f"u{i + 1}"}
        if rng.random() < 0.4 and i + 2 < count:
            readers.add(f"u{int(rng.integers(i + 2, count))}")
        seams = {(g, f): float(rng.random()) / 3 for g in (0, 8, 16) for f in (0, 8, 16) if g != f}
        noise = {8: float(rng.random()) / 5, 16: float(rng.random()) / 50}
        links.append(Link(f"u{i}", tuple(sorted(readers)), noise, {"us": seams}))
    return units, links


def value(units, links, schemes, name):
    """By the definition, apart from the solver."""
    total = sum(
        o.noise if name == NOISE else o.costs[name]
        for o in (units[u][s] for u, s in schemes.items())
    )
    for link in links:
        made = units[link.maker][schemes[link.maker]].form
        for needed in {units[r][schemes[r]].form for r in link.readers} - {made}:
            if name == NOISE:
                total += link.noise.get(needed, 0)
            else:
                total += link.costs.get(name, {}).get((made, needed), 0)
    return total


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.2, 0.9))
def test_it_is_the_best_of_all_choices(seed, count, share):
    units, links = network(np.random.default_rng(seed), count)
    every = [
        dict(zip(units, choice, strict=True))
        for choice in itertools.product(FORMS, repeat=len(units))
    ]
    for minimise, limited in ((NOISE, "us"), ("us", NOISE)):
        costs = [value(units, links, c, limited) for c in every]
        limit = min(costs) + share * (max(costs) - min(costs))
        best = min(
            value(units, links, c, minimise)
            for c, cost in zip(every, costs, strict=True)
            if cost <= limit + 1e-12
        )
        found = solve(units, links, {limited: limit}, minimise)
        got = value(units, links, found.schemes, minimise)
        assert value(units, links, found.schemes, limited) <= limit + 1e-6
        assert got <= best * (1 + 6e-4) + 1e-6
        assert found.noise == pytest.approx(value(units, links, found.schemes, NOISE))
        assert found.costs["us"] == pytest.approx(value(units, links, found.schemes, "us"))


def test_two_hundred_units_take_under_ten_seconds():
    units, links = network(np.random.default_rng(1), 200)
    limit = 0.4 * sum(max(o.costs["us"] for o in options.values()) for options in units.values())
    began = time.monotonic()
    found = solve(units, links, {"us": limit, "bytes": 100.0})
    assert time.monotonic() - began < 10
    assert found.gap < 0.02
    assert found.costs["us"] <= limit and found.costs["bytes"] <= 100


def test_a_budget_that_nothing_meets_says_what_is_possible():
    units, links = network(np.random.default_rng(2), 5)
    with pytest.raises(InputError, match="At least needed"):
        solve(units, links, {"bytes": 1e-3})


def test_what_is_said_to_be_possible_is_the_least():
    units, links = network(np.random.default_rng(4), 5)
    with pytest.raises(InputError) as caught:
        solve(units, links, {"us": 1e-9}, NOISE)
    said = float(caught.value.fix.rpartition("us ")[2])
    every = itertools.product(*units.values())
    least = min(value(units, links, dict(zip(units, s, strict=True)), "us") for s in every)
    assert said == pytest.approx(least, rel=1e-3)
    assert solve(units, links, {"us": said * 1.001}, NOISE).costs["us"] <= said * 1.001


def test_tiny_and_huge_costs_stand_side_by_side():
    options = {
        "w8a8": Option(8, 1e-7, {"bytes": 1e7, "latency_us": 5.0}),
        "float32": Option(0, 0.0, {"bytes": 4e7, "latency_us": 9.0}),
    }
    found = solve({"a": options, "b": options}, [], {"bytes": 5.0e7})
    assert sorted(found.schemes.values()) == ["float32", "w8a8"]

"""Random graphs of all the rules: each cut equals the network without those channels.

TFEDGE_GRAPHS=500 runs that many graphs of each flavour instead of a few.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from tests.architectures import inputs_for, kit, randomize
from tests.random_graphs import grow
from tests.reference import Reference, difference, random_cuts, settle
from tests.sessions import fresh
from tests.test_architectures import run
from tfedge._keras import library
from tfedge.graph import analyse, cut

COUNT = int(os.environ.get("TFEDGE_GRAPHS", "25"))
# Enough for double precision after a dozen layers; a wrong channel is off by orders more.
TOLERANCE = 1e-7


def positions_once(analysis):
    """Every position of a producing weight belongs to exactly one group's channel."""
    seen = {}
    for group in analysis.groups:
        for s in group.slices:
            if s.role == "out":
                seen.setdefault((s.layer, s.weight, s.axis), Counter()).update(s.index.tolist())
    for b in analysis.table.bindings.values():
        if b.role == "out":
            counts = seen[b.layer, b.weight, b.axis]
            assert set(counts) == set(range(b.labels.shape[1])), b.layer
            assert set(counts.values()) == {1}, b.layer


def runs(model, x) -> bool:
    """Whether Keras itself runs the model (its static shapes of attention scores may be wrong)."""
    try:
        run(model, x)
    except ValueError:
        return False
    return True


def check(flavour, draw, tmp_path, steps):
    lib = library(flavour)
    fresh(lib)
    old = lib.backend.floatx()
    lib.backend.set_floatx("float64")
    # A policy that was ever set, by another test, is not touched by the former.
    lib.mixed_precision.set_global_policy("float64")
    try:
        model, trail = grow(replace(kit(flavour), dtype="float64"), draw, steps)
        note(" ".join(trail))
        randomize(model, 1)
        x = [a.astype("float64") if a.dtype == "float32" else a for a in inputs_for(model)]
        assume(runs(model, x))
        settle(model, x if len(x) > 1 else x[0])
        before = [np.array(w) for w in model.get_weights()]
        analysis = analyse(model)
        for group in analysis.groups:
            assert "does not know" not in group.blocked, group.blocked
        names = [g.name for g in analysis.groups]
        assert len(set(names)) == len(names)
        positions_once(analysis)
        cuts = random_cuts(
            analysis, draw(st.integers(0, 99)), draw(st.sampled_from([0.2, 0.5, 0.8]))
        )
        small = cut(model, cuts, analysis)
        got = run(small, x)
        assert difference(got, Reference(analysis, cuts)(x)) < TOLERANCE
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        if draw(st.integers(0, 9)) == 0 and flavour == "keras3":
            small.save(tmp_path / "m.keras")
            again = lib.models.load_model(tmp_path / "m.keras")
            assert difference(run(again, x), got) < TOLERANCE
    finally:
        lib.backend.set_floatx(old)
        lib.mixed_precision.set_global_policy(old)


@pytest.mark.parametrize("flavour", ["tf_keras", "keras3"])
def test_random_graphs(flavour, tmp_path):
    @settings(
        max_examples=COUNT, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def graphs(data):
        check(flavour, data.draw, tmp_path, data.draw(st.integers(2, 8)))

    graphs()

"""Every architecture is cut exactly, shrunk, counted, trained a step, saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest

from tests import architectures
from tests.reference import Reference, difference, random_cuts, settle
from tfedge._keras import library, tf
from tfedge.graph import analyse, cut
from tfedge.profile import profile
from tfedge.prune import shrink

OUTPUT = "it is an output of the model"
# Groups that stay whole, by builder: the layer that makes them, and why it is right.
BLOCKED = {
    # A convolution over the channels needs their order.
    "eca": {"conv2d": "slides over the axis"},
    # Tokens are not channels: what mixes them must give back as many as it took.
    "mlp_mixer": {"dense": "joins it with channels that cannot be cut"},
    "gmlp": {"dense_1": "joins it with channels that cannot be cut"},
    # A 3 x 3 transform of the input's coordinates.
    "pointnet": {"dense": "joins it with channels that cannot be cut"},
    # One weight an expert, and the experts are layers.
    "mixture_of_experts": {"gate": "joins it with channels that cannot be cut"},
    "mixture_layers": {"dense": "only one of some tensor"},
    # Added to the input.
    "shared_stages": {"conv2d_1": "joins it with channels that cannot be cut"},
    "block_without_a_rule": {"before": "has no pruning rule"},
    "attention_of_many_features": {"dense": "several axes a position"},
    "own_activations": {
        "dense_1": "does not act element by element",
        "dense_4": "does not act element by element",
    },
    "recurrent_softmax": {"lstm": "does not act element by element"},
    "outer_product_as_image": {"rows": "slides over", "columns": "slides over"},
    # Keras 3 alone reads these weights in another order than it makes them.
    "two_signs_of_axes": {"first": "negative and positive axes"},
    # Three groups of four channels, shuffled: what one convolution may lose, the next may not.
    "shufflenet_odd": {"conv2d_1": "joins all its channels into one"},
}
QUICK = ("yolo", "swin", "transformer", "time_distributed", "mlp_mixer", "pixel_shuffle")


def run(model, x):
    """Outputs, flat."""
    arrays = dict(zip(model.input, x, strict=True)) if isinstance(model.input, dict) else x
    arrays = arrays if len(x) > 1 or isinstance(arrays, dict) else x[0]
    return [np.asarray(t) for t in tf.nest.flatten(model(arrays, training=False))]


def made(flavour, name):
    model = architectures.build(flavour, name)
    x = architectures.inputs_for(model)
    if name != "channels_first":  # the CPU has no such convolutions
        settle(model, x if len(x) > 1 else x[0])
    return model, x


def check_blocked(groups, flavour, name):
    """Only what is known to stay is blocked, for the known reason."""
    expected = {} if (flavour, name) == ("tf_keras", "two_signs_of_axes") else BLOCKED.get(name, {})
    found = {g.name: g.blocked for g in groups if g.blocked and g.blocked != OUTPUT}
    assert found.keys() == expected.keys(), found
    for group, reason in found.items():
        assert expected[group] in reason


def check_exact(model, x, seed):
    before = [np.array(w) for w in model.get_weights()]
    analysis = analyse(model)
    cuts = random_cuts(analysis, seed)
    small = cut(model, cuts, analysis)
    want = Reference(analysis, cuts)(x)
    assert difference(run(small, x), want) < 1e-4
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    return small, want


# One flavour each, in turn.
IN_TURN = [
    (f, n)
    for f, n in architectures.CASES
    if n != "channels_first" and (n not in architectures.SHARED or len(n) % 2 == (f == "keras3"))
]


@pytest.mark.parametrize(
    "flavour, name",
    [
        pytest.param(*case, marks=[] if case in IN_TURN else [pytest.mark.slow])
        for case in architectures.CASES
    ],
)
def test_a_cut_is_exact_and_blocks_only_what_it_must(flavour, name):
    model, x = made(flavour, name)
    analysis = analyse(model)
    check_blocked(analysis.groups, flavour, name)
    names = [g.name for g in analysis.groups]
    assert len(set(names)) == len(names)
    if name == "channels_first":
        small = cut(model, random_cuts(analysis, 3), analysis)
        assert small.count_params() < model.count_params()
        return
    cuts = random_cuts(analysis, 3)
    _, want = check_exact(model, x, 3)
    if cuts:
        assert difference(run(model, x), want) > 1e-4, "the cut changes something"
    else:
        assert name in BLOCKED


@pytest.mark.parametrize(
    "flavour, name",
    [
        pytest.param(f, n, marks=[] if n in QUICK else [pytest.mark.slow])
        for f, n in IN_TURN
        if n != "channels_first"
    ],
)
def test_shrunk_models_count_train_save_and_load(flavour, name, tmp_path):
    model, x = made(flavour, name)
    done = shrink(model, 0.5, round_to=1)
    small = done.model
    assert profile(small).params < profile(model).params == done.report.params[0]
    want = run(small, x)
    load = library(flavour).models.load_model
    safe = name != "lambda_in_the_middle"
    if reloads(model, tmp_path / "whole.keras", load, safe):
        small.save(tmp_path / "m.keras")
        again = load(tmp_path / "m.keras", safe_mode=safe)
        assert difference(run(again, x), want) < 1e-5
    small.compile("sgd", "mse", run_eagerly=True)
    arrays = dict(zip(small.input, x, strict=True)) if isinstance(small.input, dict) else x
    targets = tf.nest.map_structure(lambda t: np.zeros((len(x[0]), *t.shape[1:]), "float32"),
                                    tf.nest.pack_sequence_as(small.output, want))  # fmt: skip
    history = small.fit(arrays if len(x) > 1 else x[0], targets, verbose=0).history
    assert np.isfinite(history["loss"][0])


def reloads(model, path, load, safe) -> bool:
    """Whether Keras can save and load the model as it is (tf_keras: no ellipsis, no einsum)."""
    try:
        model.save(path)
        load(path, safe_mode=safe)
    except (TypeError, ValueError):
        return False
    return True

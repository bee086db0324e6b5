"""Lambda layers are looked into, where their function runs on symbolic tensors."""

import numpy as np
import pytest

from tests.reference import Reference, difference, random_cuts
from tests.zoo import inputs_for, randomize
from tfedge._keras import keras, keras3, tf
from tfedge.bridge import to_tf_keras
from tfedge.graph import analyse, canonical, cut, trace
from tfedge.prune import shrink

L = keras.layers


def pixel_shuffle(name="shuffle"):
    i = keras.Input((4, 4, 3))
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="wide")(i)
    x = L.Lambda(lambda t, block: tf.nn.depth_to_space(t, block), arguments={"block": 2})(x)
    a, b = L.Lambda(lambda t: [t * 2.0, t[..., :2]], name="two")(x)
    x = L.Lambda(lambda ts: ts[0] - tf.reduce_max(ts[1], -1, keepdims=True), name="join")([a, b])
    return randomize(keras.Model(i, L.Conv2D(3, 3, padding="same", name="narrow")(x)))


def test_what_a_lambda_does_is_pruned_exactly():
    model = pixel_shuffle()
    analysis = analyse(model)
    assert not [g for g in analysis.groups if g.blocked and g.name != "narrow"]
    x = inputs_for(model)
    cuts = random_cuts(analysis, seed=0)
    small = cut(model, cuts, analysis)
    assert small.get_layer("wide").filters < 16
    assert difference(np.asarray(small(x)), Reference(analysis, cuts)([x])[0]) < 1e-4
    assert shrink(model, 0.5, round_to=1).model.get_layer("wide").filters == 8


def test_the_normal_form_has_no_lambda():
    i = keras.Input((5,))
    x = L.Lambda(lambda t: tf.nn.relu(t) * 0.5)(L.Dense(4)(i))
    model = randomize(keras.Model(i, L.Dense(2)(x)))
    normal = canonical(model)
    kinds = [type(c.layer).__name__ for c in trace(normal).calls]
    assert kinds == ["Dense", "ReLU", "Rescaling", "Dense"]
    x = inputs_for(model)
    np.testing.assert_allclose(np.asarray(normal(x)), np.asarray(model(x)), rtol=1e-5)


@pytest.mark.parametrize("lib", [keras, keras3()], ids=["tf_keras", "keras3"])
def test_an_output_keeps_the_name_of_its_lambda(lib):
    i = lib.Input((5,))
    score = lib.layers.Lambda(lambda t: t * 2.0 + t, name="score")
    model = lib.Model(i, score(lib.layers.Dense(4, name="d")(i)))
    assert [c.name for c in trace(model).calls][-1] == "score"
    assert cut(model, {}).output_names == model.output_names
    assert (
        trace(lib.Model(i, lib.layers.Lambda(lambda t: t, name="same")(i))).calls[0].name == "same"
    )


@pytest.mark.parametrize("lib", [keras, keras3()], ids=["tf_keras", "keras3"])
def test_a_lambda_at_the_end_blocks_nothing(lib):
    """Embeddings that end in a Lambda, and a Lambda that compares them, used twice."""

    def distance(t):
        return ((t[0] - t[1]) ** 2)[:, :1] + lib.activations.relu(t[0] - t[1])[:, 1:2]

    embed = lib.Sequential([lib.Input((5,)), lib.layers.Dense(6, name="d"),
                            lib.layers.Lambda(lambda t: t * 0.5 - 1.0)])  # fmt: skip
    a, b = lib.Input((5,), name="a"), lib.Input((5,), name="b")
    u, v = lib.layers.Dense(8, name="wide")(embed(a)), embed(b)
    compare = lib.layers.Lambda(distance, name="compare")
    model = randomize(lib.Model([a, b], [lib.layers.Dense(1)(u), lib.layers.Dense(1)(v)]))
    done = shrink(model, 0.5, round_to=1)
    assert done.model.get_layer("d").units == 3
    model = randomize(lib.Model([a, b], [compare([u, u]), compare([v, v])]))
    analysis = analyse(model)
    assert all("cannot be read" not in g.blocked for g in analysis.groups)
    x = [np.random.default_rng(n).normal(size=(3, 5)).astype("float32") for n in (0, 1)]
    for got, want in zip(cut(model, {}, analysis)(x), model(x), strict=True):
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), atol=1e-6)


@pytest.mark.parametrize("kind", ["numbers", "foreign"])
def test_a_function_that_wants_numbers_stays_a_lambda(kind):
    lib = keras if kind == "numbers" else keras3()
    function = {
        "numbers": lambda t: tf.map_fn(lambda row: row * 2.0, t),
        "foreign": tf.nn.relu,
    }[kind]
    i = lib.Input((5,))
    layer = lib.layers.Lambda(function, output_shape=(4,), name="own")
    model = lib.Model(i, lib.layers.Dense(2)(layer(lib.layers.Dense(4, name="d")(i))))
    group = analyse(model).groups[0]
    assert group.name == "d" and "own" in group.blocked


def test_a_keras3_lambda_crosses():
    lib = keras3()
    i = lib.Input((5,))
    x = lib.layers.Lambda(lambda t: lib.ops.relu(t) - 1.0)(lib.layers.Dense(4)(i))
    model = lib.Model(i, lib.layers.Dense(2)(x))
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    crossed = to_tf_keras(model)
    np.testing.assert_allclose(np.asarray(crossed(x)), np.asarray(model(x)), rtol=1e-5, atol=1e-6)

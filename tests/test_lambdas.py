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


def test_an_output_keeps_its_lambda_and_its_name():
    i = keras.Input((5,))
    model = keras.Model(i, L.Lambda(lambda t: t * 2.0, name="score")(L.Dense(4, name="d")(i)))
    assert [c.name for c in trace(model).calls] == ["d", "score"]


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

"""The normal form computes the same, in layers; batch norms fold away on request."""

import numpy as np
import pytest

from tests.zoo import ZOO, build, inputs_for, randomize
from tests.zoo3 import ZOO3, build3, inputs3
from tfedge._keras import flavour, keras, keras3, tf
from tfedge.graph import canonical, trace

L = keras.layers


def outputs(model, x):
    return [np.asarray(t) for t in tf.nest.flatten(model(x, training=False))]


def assert_same(model, x, **options):
    before = [np.asarray(w).copy() for w in model.weights]
    normal = canonical(model, **options)
    assert flavour(normal) == flavour(model)
    for got, want in zip(outputs(normal, x), outputs(model, x), strict=True):
        scale = max(np.abs(want).max(), 1e-6)
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-5)
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
    return normal


def kinds(model):
    return [type(c.layer).__name__ for c in trace(model).calls]


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name, fold):
    model = build(name)
    normal = assert_same(model, inputs_for(model), fold_batch_norm=fold)
    assert normal.input_names == model.input_names
    assert not any(hasattr(layer, "layers") for layer in normal.layers), "nested models are gone"


@pytest.mark.parametrize("name", ZOO3)
def test_the_keras3_zoo(name):
    model = build3(name)
    assert_same(model, inputs3(model), fold_batch_norm=True)


def spelled(lib, ops):
    i = lib.Input((6, 6, 4))
    x = lib.layers.Conv2D(8, 3)(i)
    for f in ops:
        x = f(x)
    return lib.Model(i, lib.layers.Dense(2)(x))


TF_SPELLINGS = [
    lambda x: tf.nn.relu(x) + 1.0,
    lambda x: 2.0 - x,
    lambda x: x * np.linspace(0.5, 1.5, 8).astype("float32"),
    lambda x: -x / 2.0,
    lambda x: x + tf.nn.sigmoid(x),
    lambda x: tf.maximum(x, tf.nn.tanh(x)) - tf.nn.gelu(x) * tf.nn.leaky_relu(x),
    lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]]),
    lambda x: tf.clip_by_value(x, 0, 6),
    lambda x: tf.transpose(x, [0, 2, 1, 3]),
    lambda x: tf.reshape(x, [-1, 6 * 6, 8]),
    lambda x: tf.squeeze(tf.expand_dims(x, 1), [1]),
    lambda x: tf.nn.softmax(tf.concat([x, x], axis=-1), axis=1),
    lambda x: tf.reduce_mean(x, 1),
]
ops = keras3().ops
K3_SPELLINGS = [
    lambda x: ops.relu(x) + 1.0,
    lambda x: 2.0 - x,
    lambda x: x * np.linspace(0.5, 1.5, 8).astype("float32"),
    lambda x: -x / 2.0,
    lambda x: x + ops.sigmoid(x),
    lambda x: ops.maximum(x, ops.tanh(x)) - ops.gelu(x, False) * ops.leaky_relu(x),
    lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]]),
    lambda x: ops.clip(x, 0.0, 6.0),
    lambda x: ops.hard_sigmoid(x) + ops.silu(x),
    lambda x: ops.transpose(x, [0, 2, 1, 3]),
    lambda x: ops.reshape(x, [-1, 6 * 6, 8]),
    lambda x: ops.squeeze(ops.expand_dims(x, 1), [1]),
    lambda x: ops.softmax(ops.concatenate([x, x], axis=-1), axis=1),
    lambda x: ops.mean(x, axis=1),
]


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_every_spelling_becomes_a_layer(library, tmp_path):
    if library == "tf_keras":
        lib, model = keras, randomize(spelled(keras, TF_SPELLINGS))
    else:
        lib, model = keras3(), spelled(keras3(), K3_SPELLINGS)
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 4)).astype("float32")
    normal = assert_same(model, x)
    assert all(hasattr(layer, "trainable") for layer in normal.layers)
    assert not {"TFOpLambda", "SlicingOpLambda"} & set(kinds(normal))
    assert all(hasattr(c.layer, "get_weights") for c in trace(normal).calls), kinds(normal)
    normal.save(tmp_path / "m.keras")
    again = lib.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(np.asarray(again(x)), np.asarray(normal(x)), atol=1e-6)


def test_what_has_no_layer_stays_an_operation():
    i = keras.Input((6, 4))
    x = tf.einsum("abc->acb", L.Dense(4)(i))
    x = tf.nn.gelu(x, approximate=True) / tf.exp(x)
    x = tf.reshape(x, [-1, 4])  # moves steps into the batch
    x = tf.cast(tf.cast(x, tf.int32) + 1, tf.float32)
    model = randomize(keras.Model(i, x))
    assert_same(model, inputs_for(model))


FOLDED = {
    "conv": ((8, 8, 4), lambda L: L.Conv2D(6, 3, use_bias=False)),
    "conv_bias": ((8, 8, 4), lambda L: L.Conv2D(6, 3)),
    "grouped": ((8, 8, 4), lambda L: L.Conv2D(6, 3, groups=2)),
    "depthwise": ((8, 8, 4), lambda L: L.DepthwiseConv2D(3, depth_multiplier=2)),
    "separable": ((8, 8, 4), lambda L: L.SeparableConv2D(6, 3, use_bias=False)),
    "transpose": ((8, 8, 4), lambda L: L.Conv2DTranspose(6, 3)),
    "conv1d": ((8, 4), lambda L: L.Conv1D(6, 3)),
    "depthwise1d": ((8, 4), lambda L: L.DepthwiseConv1D(3)),
    "separable1d": ((8, 4), lambda L: L.SeparableConv1D(6, 3)),
    "transpose1d": ((8, 4), lambda L: L.Conv1DTranspose(6, 3)),
    "conv3d": ((4, 4, 4, 2), lambda L: L.Conv3D(3, 2)),
    "dense": ((7,), lambda L: L.Dense(5)),
    "dense3d": ((4, 7), lambda L: L.Dense(5, use_bias=False)),
}


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
@pytest.mark.parametrize("name", FOLDED)
def test_a_batch_norm_folds_into(name, library):
    lib = keras if library == "tf_keras" else keras3()
    shape, make = FOLDED[name]
    i = lib.Input(shape)
    h = lib.layers.BatchNormalization(scale=name != "conv", center=name != "grouped")(
        make(lib.layers)(i)
    )
    model = lib.Model(i, lib.layers.ReLU()(h))
    rng = np.random.default_rng(0)
    model.set_weights([np.abs(rng.normal(size=w.shape)) + 0.2 for w in model.weights])
    x = rng.normal(size=(2, *shape)).astype("float32")
    normal = assert_same(model, x, fold_batch_norm=True)
    assert "BatchNormalization" not in kinds(normal)


def test_a_batch_norm_that_is_read_twice_or_alone_stays():
    i = keras.Input((4, 4, 3))
    x = L.BatchNormalization(name="alone")(i)
    a = L.Conv2D(3, 1, name="read_twice")(x)
    b = L.BatchNormalization(name="second")(a)
    c = L.BatchNormalization(name="active")(L.Conv2D(3, 1, activation="relu")(b))
    model = randomize(keras.Model(i, L.Add()([a, b, c])))
    normal = assert_same(model, inputs_for(model), fold_batch_norm=True)
    assert kinds(normal).count("BatchNormalization") == 3


def test_a_folded_batch_norm_that_is_an_output_leaves_its_name():
    i = keras.Input((4, 4, 3))
    model = randomize(keras.Model(i, L.BatchNormalization(name="end")(L.Conv2D(3, 1)(i))))
    normal = assert_same(model, inputs_for(model), fold_batch_norm=True)
    assert normal.output_names == ["end"]

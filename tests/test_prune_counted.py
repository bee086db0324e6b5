"""The model in training is the one that strip gives, also where channels are counted."""

import numpy as np
import pytest

from tests.test_prune import data_for
from tests.test_surgery import MeanNorm, norm_rule
from tests.zoo import ZOO, build, inputs_for, randomize
from tests.zoo3 import build3, inputs3
from tfedge._keras import keras, keras3, tf
from tfedge.graph import RULES
from tfedge.prune import PruneChannels

L = keras.layers


def flat(outputs):
    return [np.asarray(t) for t in tf.nest.flatten(outputs)]


def masked_and_stripped(model, x, y, lib=keras):
    """Outputs of the masked model at the end of fit, and of what strip gives."""
    seen = []

    class Look(lib.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[:] = flat(model(x, training=False))

    model.compile(lib.optimizers.SGD(1e-6), "mse")
    pruner = PruneChannels(0.5, schedule="one_shot", round_to=1)
    calls = {id(layer): vars(layer).get("call") for layer in model.layers}
    model.fit(x, y, epochs=1, verbose=0, callbacks=[pruner, Look()])
    assert calls == {id(layer): vars(layer).get("call") for layer in model.layers}
    return seen, flat(pruner.strip()(x, training=False))


def assert_equal(pairs):
    for got, want in zip(*pairs, strict=True):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-4)


@pytest.mark.parametrize("name", ZOO)
def test_masked_is_stripped(name):
    model = build(name)
    x = inputs_for(model, 8)
    y = tf.nest.map_structure(lambda t: np.zeros(t.shape, "float32"), model(x))
    assert_equal(masked_and_stripped(model, x, y))


@pytest.mark.parametrize("name", ["transformer", "operations", "normalised", "residual"])
def test_masked_is_stripped_in_keras3(name):
    model = build3(name)
    x = inputs3(model, 8)
    y = tf.nest.map_structure(lambda t: np.zeros(t.shape, "float32"), model(x))
    assert_equal(masked_and_stripped(model, x, y, keras3()))


def counting(lib, ops):
    """Every kind of operation that counts channels, on channels that are not zero when masked."""
    i = lib.Input((4, 6))
    x = lib.layers.Dense(8, "sigmoid")(i)
    a = lib.layers.LayerNormalization(axis=[1, 2])(x)
    b = lib.layers.GroupNormalization(2)(lib.layers.Dense(8)(x))
    c = lib.layers.Softmax()(lib.layers.Dense(8)(x))
    d = lib.layers.Activation("softmax")(lib.layers.Dense(6)(x))
    e = lib.layers.UnitNormalization()(x)
    dot = lib.layers.Dot(axes=2)([x, lib.layers.LayerNormalization()(x)])
    reduced = [f(lib.layers.Dense(6, "sigmoid")(x)) for f in ops]
    parts = [lib.layers.Dense(2)(p) for p in (a, b, c, d, e, dot, *reduced)]
    return lib.Model(i, lib.layers.Concatenate()(parts))


def tf_reductions():
    names = "mean sum max min prod variance std logsumexp".split()
    found = [getattr(tf.math, f"reduce_{n}") for n in names]
    reductions = [lambda x, f=f: f(x, -1, keepdims=True) for f in found]
    return [*reductions, lambda x: tf.nn.softmax(x), lambda x: tf.math.l2_normalize(x, -1)]


def keras_reductions():
    ops = keras3().ops
    found = [ops.mean, ops.sum, ops.max, ops.min, ops.prod, ops.var, ops.std, ops.logsumexp]
    reductions = [lambda x, f=f: f(x, axis=-1, keepdims=True) for f in found]
    return [*reductions, lambda x: ops.softmax(x), lambda x: ops.normalize(x, axis=-1)]


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_everything_that_counts(library):
    if library == "keras":
        lib, model = keras3(), counting(keras3(), keras_reductions())
        rng = np.random.default_rng(0)
        model.set_weights([np.abs(rng.normal(size=w.shape)) + 0.1 for w in model.weights])
    else:
        lib, model = keras, randomize(counting(keras, tf_reductions()))
    x = np.random.default_rng(1).normal(size=(8, 4, 6)).astype("float32")
    y = np.zeros((8, 4, 32), "float32")
    assert_equal(masked_and_stripped(model, x, y, lib))


def test_validation_sees_the_counted_model_too():
    model = build("conv1d")
    x, y = data_for(model, 8)
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    model.fit(x, y, validation_data=(x, y), verbose=0)  # traces a test step without masks
    pruner = PruneChannels(0.5, schedule="one_shot", round_to=1)
    history = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[pruner]).history
    small = pruner.strip()
    small.compile("sgd", "mse")
    want = small.evaluate(x, y, verbose=0)
    assert history["val_loss"][-1] == pytest.approx(want, rel=1e-4)


def test_a_layer_that_counts_without_a_formula_is_reported():
    i = keras.Input((5,))
    model = keras.Model(i, L.Dense(2)(MeanNorm(name="own")(L.Dense(8, "relu", name="t")(i))))
    model.compile("sgd", "mse")
    pruner = PruneChannels(0.5, round_to=1)
    RULES[MeanNorm] = norm_rule
    try:
        x = np.ones((8, 5), "float32")
        model.fit(x, np.zeros((8, 2)), verbose=0, callbacks=[pruner])
        pruner.strip()
    finally:
        del RULES[MeanNorm]
    assert pruner.report.approximate == ("own",)
    assert "counted dead channels too while fit pruned: own" in str(pruner.report)

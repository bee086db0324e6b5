"""QatSchedule: a float start, ranges and batch norm that stop, in fit and in a Distiller."""

from __future__ import annotations

import numpy as np
import pytest

from tests.run_file import float_ops, steps_apart
from tfedge import quant, stages
from tfedge._keras import keras
from tfedge.distill import Distiller
from tfedge.errors import InputError, ModelError
from tfedge.lower import lower
from tfedge.quant import QatSchedule
from tfedge.quantized import ranges
from tfedge.specs import QatSpec

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8, 8, 2)).astype("float32")
Y = RNG.integers(0, 3, 64)


def network():
    keras.utils.set_random_seed(1)
    i = keras.Input((8, 8, 2), name="x")
    x = L.Conv2D(4, 3, use_bias=False, name="c")(i)
    x = L.ReLU(6.0, name="r")(L.BatchNormalization(momentum=0.5, name="bn")(x))
    return keras.Model(i, L.Dense(3, name="d")(L.GlobalAveragePooling2D(name="g")(x)))


def made(ranges="moving_average", **kwargs):
    aware = quant.quantize_aware(network(), calibration=X[:8], ranges=ranges, **kwargs)
    aware.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return aware


class Watch(keras.callbacks.Callback):
    """Ranges, batch norm weights and kernels of a student before and after each step."""

    def __init__(self, student):
        super().__init__()
        self.student, self.rows = student, [snapshot(student)]

    def on_train_batch_end(self, batch, logs=None):
        self.rows.append(snapshot(self.student))


def snapshot(model):
    rows = ranges(model)
    found = {r.layer: [r.low.numpy(), r.high.numpy()] for r in rows if r.role == "output"}
    kernels = {r.layer: r.high.numpy() for r in rows if r.role == "weight"}
    bn = model.get_layer("bn").get_weights()
    return {
        "ranges": found,
        "limits": kernels,
        "scale": np.stack(bn[:2]),
        "statistics": np.stack(bn[2:]),
    }


def moved(rows, key):
    """For each step, whether the value changed."""

    def flat(row):
        value = row[key]
        parts = value.values() if isinstance(value, dict) else [value]
        return np.concatenate([np.ravel(v) for v in parts])

    return [not np.array_equal(flat(a), flat(b)) for a, b in zip(rows, rows[1:], strict=False)]


@pytest.mark.parametrize("distilled", [False, True])
def test_ranges_and_batch_norm_stop_at_their_steps(distilled):
    aware = made()
    schedule = QatSchedule(freeze_ranges_step=2, freeze_batch_norm_step=3)
    watch, fitted = Watch(aware), aware
    if distilled:
        fitted = Distiller(aware, network())
        fitted.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    fitted.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[schedule, watch])
    assert moved(watch.rows, "ranges") == [True] * 2 + [False] * 6
    assert moved(watch.rows, "statistics") == [True] * 3 + [False] * 5
    assert all(moved(watch.rows, "scale"))
    # The model is as it was made: another fit moves everything again.
    watch = Watch(aware)
    fitted.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch])
    assert all(moved(watch.rows, "ranges")) and all(moved(watch.rows, "statistics"))
    data = lower(aware, "w8a8")
    assert float_ops(data) == []
    assert np.mean(steps_apart(aware, data, {"x": X}) <= 1.01) > 0.95


def test_frozen_batch_norm_computes_as_in_inference():
    aware = made("fixed")
    aware.get_layer("bn").set_weights([np.full(4, v, "float32") for v in (1.5, 0.2, 0.7, 3.0)])
    before = aware.evaluate(X[:8], Y[:8], verbose=0)
    history = aware.fit(
        X[:8], Y[:8], batch_size=8, verbose=0, callbacks=[QatSchedule(freeze_batch_norm_step=0)]
    )
    assert history.history["loss"][0] == pytest.approx(before, rel=1e-5)


def test_training_is_float_before_the_start():
    aware, model = made(), network()
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    watch = Watch(aware)
    aware.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[QatSchedule(100), watch])
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(model.weights, ranges_free(aware), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
    assert all(moved(watch.rows, "ranges"))  # They follow the float network meanwhile.
    assert np.abs(aware(X).numpy() - model(X).numpy()).max() > 1e-4  # Quantized again.


def ranges_free(aware):
    """The weights of the float network, in its order."""
    own = {"c": ["quant_c"], "bn": ["bn"], "d": ["quant_d"]}
    found = []
    for names in own.values():
        for name in names:
            layer = aware.get_layer(name)
            found.extend(getattr(layer, "layer", layer).weights)
    return found


def test_quantization_sets_in_at_the_start_step():
    x, y = np.tile(X[:8], (6, 1, 1, 1)), np.tile(Y[:8], 6)
    losses = {}
    for start in (0, 4, 100):
        aware = made("fixed")
        aware.get_layer("bn").trainable = False
        aware.optimizer.learning_rate = 0.0
        aware.compile(aware.optimizer, aware.loss)
        for row in ranges(aware):
            if row.layer == "d" and row.role == "output":
                row.low.assign(-600.0)  # Steps of 5: quantized, every logit is 0.
                row.high.assign(600.0)
        means = []
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda _, logs, means=means: means.append(logs["loss"])
        )
        aware.fit(
            x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[QatSchedule(start), note]
        )
        losses[start] = np.diff(np.arange(7) * np.array([0.0, *means]))  # Keras gives means.
    np.testing.assert_allclose(losses[0], np.log(3), rtol=1e-5)
    assert np.abs(losses[100] - np.log(3)).min() > 0.01
    np.testing.assert_allclose(losses[4], [*losses[100][:4], *losses[0][4:]], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_learned_ranges_freeze_and_their_limits_start_with_quantization():
    aware = made("learned")
    watch = Watch(aware)
    schedule = QatSchedule(start_step=2, freeze_ranges_step=5)
    aware.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[schedule, watch])
    assert moved(watch.rows, "ranges") == [True] * 5 + [False] * 3
    assert moved(watch.rows, "limits") == [False] * 2 + [True] * 3 + [False] * 3


def test_a_resumed_training_stands_where_it_was():
    aware = made()
    aware.optimizer.build(aware.trainable_variables)
    aware.optimizer.iterations.assign(10)
    watch = Watch(aware)
    schedule = QatSchedule(freeze_ranges_step=12, freeze_batch_norm_step=10)
    aware.fit(X, Y, batch_size=8, verbose=0, callbacks=[schedule, watch])
    assert moved(watch.rows, "ranges") == [True] * 2 + [False] * 6
    assert not any(moved(watch.rows, "statistics"))


def test_wrong_schedules_are_refused():
    for bad in ({"start_step": -1}, {"freeze_ranges_step": 1.5}, {"freeze_batch_norm_step": True}):
        with pytest.raises(InputError, match="whole number"):
            QatSchedule(**bad)
    with pytest.raises(InputError, match="before quantization begins"):
        QatSchedule(start_step=5, freeze_ranges_step=3)
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ModelError, match="quantize-aware models"):
        model.fit(X, Y, verbose=0, callbacks=[QatSchedule()])
    plain = quant.quantize_aware(keras.Sequential([keras.Input((4,)), L.Dense(2)]))
    plain.compile("sgd", "mse")
    with pytest.raises(InputError, match="no batch norm"):
        plain.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0,
                  callbacks=[QatSchedule(freeze_batch_norm_step=1)])  # fmt: skip


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise RuntimeError("stopped")


def test_a_fit_that_failed_leaves_the_model_as_it_was_made():
    aware = made()
    file = lower(aware, "w8a8")
    before = [w.copy() for w in aware.get_weights()]
    with pytest.raises(RuntimeError, match="stopped"):
        aware.fit(X, Y, batch_size=8, verbose=0,
                  callbacks=[QatSchedule(100, freeze_batch_norm_step=0), Fails()])  # fmt: skip
    aware.set_weights(before)
    assert lower(aware, "w8a8") == file  # It would be float.
    watch = Watch(aware)
    aware.fit(X, Y, batch_size=8, verbose=0, callbacks=[watch])
    assert all(moved(watch.rows, "statistics")) and all(moved(watch.rows, "ranges"))
    aware.set_weights(before)
    watch = Watch(aware)  # Another schedule finds nothing of the failed one either.
    aware.fit(X, Y, batch_size=8, verbose=0,
              callbacks=[QatSchedule(freeze_ranges_step=10**6), watch])  # fmt: skip
    assert all(moved(watch.rows, "statistics"))
    assert "train_step" not in vars(aware) and "make_train_function" not in vars(aware)


def test_validation_is_quantized_before_the_start():
    aware = made("fixed")
    for row in ranges(aware):
        if row.layer == "d" and row.role == "output":
            row.low.assign(-600.0)  # Steps of 5: quantized, every logit is 0.
            row.high.assign(600.0)
    aware.optimizer.learning_rate = 0.0
    history = aware.fit(
        X, Y, verbose=0, validation_data=(X, Y), callbacks=[QatSchedule(100)]
    ).history
    assert history["val_loss"][0] == pytest.approx(np.log(3), rel=1e-5)
    assert abs(history["loss"][0] - np.log(3)) > 1e-3


def test_a_stage_finds_missing_batch_norm_in_the_rehearsal():
    plain = keras.Sequential([keras.Input((4,)), L.BatchNormalization(), L.Dense(2)])
    folded = keras.Sequential([keras.Input((4,)), L.Dense(2), L.BatchNormalization()])
    spec = QatSpec(freeze_batch_norm_step=5)
    stages.simulated(plain, spec)
    with pytest.raises(InputError, match="no batch norm to freeze.*folded"):
        stages.simulated(folded, spec)

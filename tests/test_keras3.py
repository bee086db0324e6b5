"""Keras 3 models: pruned in their own Keras, quantized and converted through the bridge."""

import keras
import numpy as np
import pytest

import tfedge
from tests.reference import random_cuts
from tests.zoo3 import ZOO3, build3, inputs3
from tfedge._keras import flavour, tf
from tfedge.bridge import to_tf_keras
from tfedge.graph import analyse, cut

L = keras.layers


def outputs(model, x):
    return [np.asarray(t) for t in tf.nest.flatten(model(x, training=False))]


def assert_close(a, b, tolerance=1e-4):
    for got, want in zip(a, b, strict=True):
        scale = max(np.abs(want).max(), 1e-6)
        np.testing.assert_allclose(got / scale, want / scale, atol=tolerance)


@pytest.mark.parametrize("name", ZOO3)
def test_pruning_stays_in_keras3(name, tmp_path):
    model = build3(name)
    x = inputs3(model)
    analysis = analyse(model)
    small = cut(model, random_cuts(analysis, 3), analysis)
    assert flavour(small) == "keras3" and small.count_params() < model.count_params()
    small.save(tmp_path / "m.keras")
    again = tfedge.load_model(tmp_path / "m.keras")
    assert flavour(again) == "keras3"
    assert_close(outputs(again, x), outputs(small, x), 1e-6)
    # The same cut through the bridge gives the same network.
    other = to_tf_keras(model)
    found = analyse(other)
    groups = {g.name: g for g in found.groups}
    cuts = {k: v for k, v in random_cuts(analysis, 3).items() if k in groups}
    if len(cuts) == len(random_cuts(analysis, 3)):
        assert_close(outputs(cut(other, cuts, found), x), outputs(small, x))


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_the_callback_in_keras3_fit(steps_per_execution):
    model = build3("residual")
    model.compile(keras.optimizers.Adam(0.01), "mse", steps_per_execution=steps_per_execution)
    x, y = inputs3(model, 32), np.zeros((32, 3), "float32")
    model.fit(x, y, batch_size=4, verbose=0)
    pruner = tfedge.prune.PruneChannels(0.5, round_to=1)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[pruner])
    small = pruner.strip()
    assert flavour(small) == "keras3"
    assert_close(outputs(small, x), outputs(model, x), 1e-5)
    assert pruner.report.macs[1] < pruner.report.macs[0]
    assert all(w.constraint is None for w in model.trainable_variables)


def test_masks_hold_inside_a_keras3_step():
    model = build3("residual")
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x, y = inputs3(model, 16), np.ones((16, 3), "float32")
    pruner = tfedge.prune.PruneChannels(0.5, schedule="one_shot", round_to=1)
    worst = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for group, dead in zip(pruner._analysis.groups, pruner._dead, strict=True):
                for s in group.slices:
                    if not s.weight_name.startswith("moving"):
                        value = np.asarray(self.model.get_layer(s.layer).weights[s.weight])
                        picked = np.take(value, s.index[dead[s.channel]], axis=s.axis)
                        worst.append(np.abs(picked).max(initial=0))

    model.fit(x, y, batch_size=4, verbose=0, callbacks=[pruner, Watch()])
    assert worst and max(worst) == 0


def test_the_whole_way_from_a_keras3_file(tmp_path):
    i = keras.Input((8, 8, 3), name="image")
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, name="stem")(i)))
    model = keras.Model(i, L.Dense(4, name="head")(L.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "m.keras")
    data = np.random.default_rng(0).random((32, 8, 8, 3), np.float32)
    small = tfedge.prune.shrink(tfedge.load_model(tmp_path / "m.keras"), 0.5).model
    qat = tfedge.quant.quantize_aware(small, calibration=data)
    file = tfedge.convert(qat, "w8a8")
    assert [s.name for s in file.inputs] == ["image"]
    assert tfedge.verify(qat, file, data).within_one_step == 1.0
    drift = tfedge.verify(model, tfedge.convert(model, "float32"), data)
    assert drift.sqnr_db > 90 and drift.layers
    assert tfedge.inspect(tmp_path / "m.keras")["groups"][0]["name"] == "stem"


def test_sums_of_tensors_become_layers_that_qat_takes():
    i = keras.Input((6, 6, 3))
    h = L.Conv2D(8, 3, padding="same", activation="relu")(i)
    model = keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(8, 1)(h) + h)))
    x = np.random.default_rng(0).random((16, 6, 6, 3), np.float32)
    file = tfedge.convert(tfedge.quant.quantize_aware(model, calibration=x), "w8a8")
    assert "ADD" in {row.op for row in file.certificate}

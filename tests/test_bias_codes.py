"""Biases of quantize-aware models are the file's integers in inference, and only there."""

from __future__ import annotations

import numpy as np
import pytest

import tfedge
from tests.zoo import randomize
from tfedge import quant
from tfedge._keras import keras
from tfedge.quant import bias_codes

L = keras.layers
_DATA = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


def _network():
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", name="bare")(image)
    x = L.BatchNormalization(name="norm")(L.Conv2D(16, 1, use_bias=False, name="paired")(x))
    x = L.ReLU(6.0, name="relu6")(x)
    x = L.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = L.BatchNormalization(name="norm2")(L.Conv2D(8, 1, name="both")(L.MaxPooling2D()(x)))
    x = L.Conv2DTranspose(4, 2, strides=2, name="transpose")(x)
    return keras.Model(image, L.Dense(5, name="out")(L.Flatten(name="flat")(x)))


@pytest.fixture(scope="module")
def aware():
    model = _network()
    randomize(model)
    gamma = model.get_layer("norm").gamma
    gamma.assign(gamma * np.where(np.arange(16) % 3, 1.0, -1.0))
    return quant.quantize_aware(model, calibration=_DATA)


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_every_op_computes_the_simulated_codes(aware, kernels):
    rows = tfedge.verify_ops(aware, tfedge.convert(aware), _DATA, kernels=kernels, limit=32)
    assert not any(row.reason for row in rows)
    least = 0.9995 if kernels == "xnnpack" else 0.99  # which rounds by a fixed-point product
    assert {row.layer: row.exact for row in rows if row.exact < least} == {}


def test_without_it_the_codes_differ(aware, monkeypatch):
    monkeypatch.setattr(bias_codes, "rounding", lambda *_: None)
    rows = tfedge.verify_ops(aware, tfedge.convert(aware), _DATA, limit=32)
    assert sum(row.exact < 0.9995 for row in rows) >= 3


def test_training_is_as_it_was(aware, monkeypatch):
    weights = aware.get_weights()
    before = aware(_DATA, training=True).numpy()
    aware.set_weights(weights)  # Ranges and batch norm have moved.
    monkeypatch.setattr(bias_codes, "rounding", lambda *_: 1 / 0)
    np.testing.assert_array_equal(aware(_DATA, training=True), before)
    aware.set_weights(weights)


def test_a_reloaded_model_rounds_alike(aware, tmp_path):
    aware.save(tmp_path / "m.keras")
    loaded = tfedge.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(_DATA, verbose=0), aware.predict(_DATA, verbose=0))


def test_a_layer_that_reads_two_ranges_is_left_alone():
    image = keras.Input((8, 8, 3), name="image")
    shared = L.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    model = keras.Model(image, L.Flatten()(shared(shared(image))))
    aware = quant.quantize_aware(model, calibration=_DATA)
    assert aware.get_layer("quant_shared")._reads.value is None
    assert tfedge.verify(aware, tfedge.convert(aware), _DATA).within_one_step > 0.99

"""Quantize-aware models compute in the file's integers in inference, and only there."""

from __future__ import annotations

import numpy as np
import pytest

import tfedge
from tests.zoo import randomize
from tfedge import quant
from tfedge._keras import keras, tf
from tfedge.quant import configs
from tfedge.tflite import flatbuffer
from tfedge.tflite.interpreter import Interpreter
from tfedge.tflite.tensors import codes

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
    y = L.Conv2D(4, 1, name="left")(x)
    x = L.Subtract(name="difference")([L.ReLU(name="sum_relu")(L.Add(name="sum")([x, y])), y])
    mean = L.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    x = L.Add(name="broadcast")([x, mean])
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
    if kernels == "xnnpack":
        assert {row.layer: row.exact for row in rows if row.exact < 1.0} == {}
    else:  # They multiply by a fixed-point number, and cut a mean off where XNNPACK rounds.
        low = {row.layer for row in rows if row.exact < 0.99}
        assert low <= {"mean"} and all(row.within_one == 1.0 for row in rows)


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16", "w4a8"])
def test_a_bias_of_one_number_is_that_number_in_every_channel(scheme):
    image = keras.Input((8, 8, 3), name="image")
    keras.utils.set_random_seed(0)
    half = keras.initializers.Constant(0.5)
    x = L.Conv2D(8, 3, bias_initializer=half, name="conv")(image)
    x = L.DepthwiseConv2D(3, bias_initializer=half, name="depthwise")(x)
    x = L.Conv2DTranspose(4, 2, bias_initializer=half, name="transpose")(x)
    model = keras.Model(image, L.Dense(5, bias_initializer=half, name="out")(L.Flatten()(x)))
    aware = quant.quantize_aware(model, scheme, _DATA)
    file = tfedge.convert(aware, scheme)
    if scheme != "w8a16":  # Of its steps float32 has too few digits.
        assert tfedge.verify(aware, file, _DATA).within_one_step > 0.95
    inside = flatbuffer.read(file.data)
    biases = [t for t in inside.subgraphs[0].tensors if _is_bias(t)]
    assert len(biases) == 4
    for tensor in biases:
        values = flatbuffer.tensor_data(inside, tensor) * np.ravel(tensor.quantization.scale)
        assert np.allclose(values, 0.5, rtol=2e-3)


def _is_bias(tensor):
    wide = flatbuffer.tensor_dtype(tensor) in ("int32", "int64")
    return wide and tensor.quantization is not None and np.size(tensor.quantization.scale) > 1


def test_the_logits_are_the_files_own_codes(aware):
    runner = Interpreter(tfedge.convert(aware).data)
    (got,) = runner.predict(_DATA).values()
    want = aware.predict(_DATA, verbose=0)
    np.testing.assert_array_equal(codes(got, runner.outputs[0]), codes(want, runner.outputs[0]))


def test_without_it_the_codes_differ(aware, monkeypatch):
    monkeypatch.setattr(configs, "integers_of", lambda *_: None)
    rows = tfedge.verify_ops(aware, tfedge.convert(aware), _DATA, limit=32)
    assert sum(row.exact < 0.9995 for row in rows) >= 3


def test_training_is_as_it_was(aware, monkeypatch):
    weights = aware.get_weights()
    before = aware(_DATA, training=True).numpy()
    aware.set_weights(weights)  # Ranges and batch norm have moved.
    monkeypatch.setattr(configs, "integers_of", lambda *_: 1 / 0)
    np.testing.assert_array_equal(aware(_DATA, training=True), before)
    aware.set_weights(weights)


def test_gradients_in_inference_are_those_of_the_float_product(aware, monkeypatch):
    def gradients():
        image = tf.constant(_DATA[:4])
        with tf.GradientTape() as tape:
            tape.watch(image)
            loss = tf.reduce_sum(aware(image, training=False) ** 2)
        return tape.gradient(loss, [image, *aware.trainable_variables])

    found = gradients()
    monkeypatch.setattr(configs, "integers_of", lambda *_: None)
    for got, want in zip(found, gradients(), strict=True):
        error = np.linalg.norm(got - want) / (np.linalg.norm(want) + 1e-9)
        assert error < 0.25  # A value that is whole already may lie on the other side of a clip.


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

"""Weights stored in less than they compute in, and uint8 ends."""

import numpy as np
import pytest

import tfedge
from tests.zoo import randomize
from tfedge._keras import keras
from tfedge.errors import InputError
from tfedge.tflite.interpreter import KERNELS, Interpreter

L = keras.layers
DATA = np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    image = keras.Input((12, 12, 3), name="image")
    x = L.Conv2D(32, 3, activation="relu", name="conv")(image)
    x = L.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = L.Conv2DTranspose(16, 3, name="transpose")(L.Conv2D(32, 1, name="point")(x))
    made = keras.Model(image, L.Dense(9, name="out")(L.GlobalAveragePooling2D()(x)))
    randomize(made)
    return made


def outputs(data, kernels="xnnpack"):
    return next(iter(Interpreter(data, kernels=kernels).predict(DATA[:8]).values()))


def test_dynamic_range_leaves_no_depthwise_to_a_slow_kernel(model):
    file = tfedge.convert(model, "w8_dynamic")
    rows = {r.layer: r for r in file.certificate if r.op == "DEPTHWISE_CONV_2D"}
    assert rows["depthwise"].delegated
    assert rows["depthwise"].types.startswith("float32,float32")
    assert any("int8" in r.types for r in file.certificate if r.op == "CONV_2D")


def test_weight_only_computes_in_float_from_int8(model):
    whole, file = tfedge.convert(model, "float32"), tfedge.convert(model, "w8_weight_only")
    dynamic = tfedge.convert(model, "w8_dynamic")
    assert abs(len(file.data) - len(dynamic.data)) < 4000
    assert all(row.delegated for row in file.certificate if row.op != "DEQUANTIZE")
    want = outputs(whole.data)
    for kernels in KERNELS:
        got = outputs(file.data, kernels)
        np.testing.assert_allclose(got, want, atol=0.03 * np.abs(want).max())
    near = outputs(file.data)
    for kernels in KERNELS:
        np.testing.assert_allclose(outputs(file.data, kernels), near, rtol=1e-3, atol=1e-4)


def test_uint8_ends_are_the_int8_codes_plus_128(model):
    signed = tfedge.convert(model, "w8a8", calibration=DATA)
    file = tfedge.convert(model, "w8a8", calibration=DATA, io="uint8")
    (entry,), (end,) = file.inputs, file.outputs
    assert (entry.dtype, end.dtype) == ("uint8", "uint8")
    assert (entry.name, end.name) == (signed.inputs[0].name, signed.outputs[0].name)
    codes = np.random.default_rng(1).integers(0, 256, (1, 12, 12, 3), np.uint8)
    shifted = (codes.astype(np.int16) - 128).astype(np.int8)
    one = next(iter(Interpreter(file.data).run({entry.name: codes}).values()))
    other = next(iter(Interpreter(signed.data).run({entry.name: shifted}).values()))
    assert np.array_equal(one.astype(int), other.astype(int) + 128)
    np.testing.assert_allclose(outputs(file.data), outputs(signed.data), atol=1e-6)
    assert tfedge.verify(model, file, DATA[:8]).sqnr_db > 20


def test_uint8_is_for_eight_bits(model):
    with pytest.raises(InputError, match="8-bit activations"):
        tfedge.convert(model, "w8a16", calibration=DATA, io="uint8")

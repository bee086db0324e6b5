"""Quantize-aware models compute in the file's integers in inference, and only there."""

from __future__ import annotations

import numpy as np
import pytest

import tfedge
from tests.zoo import randomize
from tfedge import quant
from tfedge._keras import keras, tf
from tfedge.quant import configs
from tfedge.quant.ends import Phase
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
    x = L.Multiply(name="excited")([L.Add(name="broadcast")([x, mean]), mean])
    pooled = L.MaxPooling2D(2, 1, padding="same", name="pooled")(L.ReLU(name="wide")(x))
    x = L.Concatenate(name="join")([L.Conv2D(3, 1, name="joined")(x), pooled, L.ReLU()(x)])
    x = L.Add(name="beside")([x, L.DepthwiseConv2D(3, padding="same", name="reads_the_join")(x)])
    x = L.Concatenate(name="join_of_pooled")([L.Conv2D(4, 1, name="on_pooled")(pooled), x, pooled])
    x = L.Maximum(name="most")([x, L.AveragePooling2D(3, 1, padding="same", name="average")(x)])
    x = L.ReLU(name="added_relu")(L.Add(name="added")([x, L.ReLU(2.0, name="capped")(x)]))
    x = L.Concatenate(name="outer")([L.Concatenate(name="inner")([x, pooled]), x])
    x = L.MaxPooling2D(4, name="last")(x)
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
    else:  # Their multipliers are finer, and they cut a mean off where XNNPACK rounds.
        low = {row.layer for row in rows if row.exact < 0.99}
        assert {x for x in low if not x.startswith("requantize_")} <= {"mean"}
        assert all(row.within_one == 1.0 for row in rows)


@pytest.mark.filterwarnings("ignore::tfedge.quant.qat.QuantizationWarning")
@pytest.mark.parametrize(("scheme", "least"), [("w4a8", 1.0), ("w8a16", 0.995)])
def test_so_do_the_kernels_of_other_schemes(scheme, least):
    model = _network()
    randomize(model)
    aware = quant.quantize_aware(model, scheme, _DATA)
    rows = tfedge.verify_ops(aware, tfedge.convert(aware, scheme), _DATA, limit=32)
    assert {row.layer: row.exact for row in rows if row.exact < least} == {}
    assert all(row.within_one == 1.0 for row in rows)


def test_strided_depthwise_kernels_of_16_bits_have_a_factor_of_16_bits():
    image = keras.Input((8, 8, 3), name="image")
    x = L.DepthwiseConv2D(3, strides=2, name="strided")(image)
    model = keras.Model(image, x)
    randomize(model)
    aware = quant.quantize_aware(model, "w8a16", _DATA)
    (row,) = tfedge.verify_ops(aware, tfedge.convert(aware, "w8a16"), _DATA)
    assert row.op == "DEPTHWISE_CONV_2D" and row.exact == 1.0


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
        assert np.abs(values - 0.5).max() <= 5e-7 + 0.51 * np.max(tensor.quantization.scale)


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


def test_what_is_not_quantized_is_not_rounded(aware, monkeypatch):
    """As `allocate` measures what each part of a network costs: one is on, the others are off."""
    found = [q for layer in aware.layers for q in configs.layer_quantizers(layer)]
    phases = [q.phase for q in found]
    cases = {"none": 1e-6, "WeightQuantizer": 1e-6, "ActivationQuantizer": 0.01}
    try:
        for kind, limit in cases.items():
            for quantizer in found:
                quantizer.phase = Phase(type(quantizer).__name__ == kind, moving=False)
            got = aware(_DATA, training=False).numpy()
            with monkeypatch.context() as patch:
                patch.setattr(configs, "integers_of", lambda *_: None)
                want = aware(_DATA, training=False).numpy()
            assert np.abs(got - want).mean() < limit * np.ptp(want)
            products = [x for x in aware.layers if getattr(x, "_weight_vars", None)]
            assert not any(configs.integers_of(x, x._reads.value) for x in products)
    finally:
        for quantizer, phase in zip(found, phases, strict=True):
            quantizer.phase = phase


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


def test_equal_layers_on_one_tensor_are_one_layer_as_in_the_file():
    image = keras.Input((8, 8, 3), name="image")
    norm = L.BatchNormalization(name="norm")(L.Conv2D(8, 3, name="conv")(image))
    relus = [L.ReLU(name=f"relu{i}")(norm) for i in range(4)]
    parts = [L.Conv2D(4, 1, name=f"reads{i}")(x) for i, x in enumerate(relus[:2])]
    pools = [L.MaxPooling2D(2, name=f"pool{i}")(x) for i, x in enumerate(relus[2:])]
    heads = [L.Dense(3, name=f"head{i}")(L.Flatten()(x)) for i, x in enumerate([*parts, *pools])]
    model = keras.Model(image, [*heads, L.ReLU(name="kept")(norm)])
    randomize(model)
    aware = quant.quantize_aware(model, calibration=_DATA)
    names = {x.name for x in aware.layers}
    assert len(names & {f"quant_relu{i}" for i in range(4)}) == 1
    assert len(names & {"pool0", "pool1"}) == 1 and "kept" in names
    assert aware.output_names == model.output_names
    assert any("computes the same as" in note for note in quant.report(aware).notes)
    rows = tfedge.verify_ops(aware, tfedge.convert(aware), _DATA, limit=32)
    assert all(row.exact == 1.0 for row in rows)


def test_equal_layers_of_unlike_schemes_or_with_dropout_stay_apart():
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, name="conv")(image)
    both = [L.LeakyReLU(0.1, name="one")(x), L.LeakyReLU(0.1, name="other")(x)]
    noisy = [L.Dropout(0.5, name="a")(x), L.Dropout(0.5, name="b")(x)]
    model = keras.Model(image, L.Add(name="sum")([*both, *noisy]))
    aware = quant.quantize_aware(model, calibration=_DATA, overrides={"other": "w8a16"})
    names = {x.name for x in aware.layers}
    assert {"a", "b"} <= names and {"quant_one", "quant_other"} <= names


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16", "w4a8"])
def test_biases_beside_kernels_with_a_scale_a_unit_are_rounded_once(scheme):
    image = keras.Input((24,), name="image")
    x = L.Dense(32, activation="relu", name="hidden")(image)
    x = L.Conv2DTranspose(16, 2, name="transpose")(L.Reshape((2, 2, 8))(x))
    model = keras.Model(image, L.Dense(16, name="out")(L.Flatten()(x)))
    randomize(model)
    data = np.random.default_rng(2).normal(size=(64, 24)).astype("float32")
    aware = quant.quantize_aware(model, scheme, data)
    inside = flatbuffer.read(tfedge.convert(aware, scheme).data)
    biases = [t for t in inside.subgraphs[0].tensors if _is_bias(t)]
    assert len(biases) == 3
    for name, tensor in zip(("hidden", "transpose", "out"), biases, strict=True):
        codes = flatbuffer.tensor_data(inside, tensor)
        wanted = aware.get_layer(f"quant_{name}").layer.bias.numpy() / tensor.quantization.scale
        assert np.abs(codes - wanted).max() <= 0.5 + 1e-4 * np.abs(wanted).max()


def test_kernels_of_equal_codes_keep_their_own_scales_and_biases():
    image = keras.Input((6,), name="image")
    heads = [L.Dense(4, name=f"head{i}")(image) for i in range(2)]
    model = keras.Model(image, heads)
    kernel = np.random.default_rng(3).normal(size=(6, 4)).astype("float32")
    model.set_weights([kernel, np.full(4, 0.3, "float32"), 4.0 * kernel, np.arange(4.0)])
    data = np.random.default_rng(2).normal(size=(64, 6)).astype("float32")
    aware = quant.quantize_aware(model, calibration=data)
    file = tfedge.convert(aware)
    assert all(row.exact == 1.0 for row in tfedge.verify_ops(aware, file, data))
    for got, want in zip(file.predict(data).values(), model.predict(data, verbose=0), strict=True):
        assert np.abs(got - want).max() < 0.03 * np.abs(want).max()

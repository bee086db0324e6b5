"""quant: quantizers where the file quantizes, calibrated ranges, saving, refusals."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import tfedge
from tests import zoo
from tests.run_file import float_ops, op_names, steps_apart
from tfedge import quant
from tfedge._keras import keras, tf
from tfedge.errors import InputError, ModelError
from tfedge.graph.trace import trace
from tfedge.lower import lower
from tfedge.quant.normalise import normalise
from tfedge.quant.quantizers import ActivationQuantizer, WeightQuantizer
from tfedge.quantized import output_names, ranges, unset_ranges

L = keras.layers
RNG = np.random.default_rng(0)


def network():
    """Every kind of placement: folded norms, residual add, concat, split activation, two heads."""
    x = i = keras.Input((12, 12, 3), name="in/put")
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="c1")(x)
    x = r = L.ReLU(name="r1")(L.BatchNormalization(name="bn1")(x))
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw")(x)
    x = L.Activation("relu6", name="r6")(L.BatchNormalization(name="bn2")(x))
    x = L.BatchNormalization(name="bn3")(L.Conv2D(8, 1, name="a/b")(x))
    x = L.Activation("relu", name="add_relu")(L.Add(name="add")([x, r]))
    y = L.SeparableConv2D(8, 3, padding="same", activation="swish", name="sep")(x)
    x = L.AveragePooling2D(name="pool")(L.Concatenate(name="cat")([x, y]))
    x = L.Dense(16, name="d1")(L.GlobalAveragePooling2D(name="gap")(x))
    x = L.Dropout(0.3)(L.ReLU(name="r2")(L.BatchNormalization(name="bn4")(x)))
    logits = L.Dense(5, name="logits")(x)
    return keras.Model(i, [logits, L.Dense(3, activation="softmax", name="probs")(x)])


@pytest.fixture(scope="module")
def trained():
    """A float network and its quantize-aware copy after a few steps on learnable data."""
    keras.utils.set_random_seed(3)
    x = RNG.normal(size=(256, 12, 12, 3)).astype("float32")
    teacher = zoo.randomize(network(), 5)
    targets = [np.argmax(t, 1) for t in teacher.predict(x, verbose=0)]
    model = network()
    losses = [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.SparseCategoricalCrossentropy(),
    ]
    model.compile(keras.optimizers.Adam(3e-3), losses)
    model.fit(x, targets, epochs=4, batch_size=32, verbose=0)
    before = [w.copy() for w in model.get_weights()]
    aware = quant.quantize_aware(model, calibration=x)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    aware.compile(keras.optimizers.Adam(1e-3), losses, steps_per_execution=4)
    history = aware.fit(x, targets, epochs=2, batch_size=32, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    return model, aware, x


def test_simulation_equals_int8_file(trained):
    _, aware, x = trained
    data = lower(aware, "w8a8")
    assert float_ops(data) == []
    apart = steps_apart(aware, data, {"in/put": x})
    assert np.mean(apart <= 1.01) >= 0.97
    assert np.mean(apart <= 2.01) >= 0.99
    assert apart.max() <= 4.01


def test_16_bit_rebuild_equals_its_file(trained):
    _, aware, x = trained
    wide = quant.to_16x8(aware)
    assert quant.qat_scheme(wide) == "w8a16"
    assert quant.qat_scheme(aware) == "w8a8"
    data = lower(wide, "w8a16")
    assert float_ops(data) == []
    assert "LEAKY_RELU" not in op_names(data)
    assert {"CONCATENATION", "LOGISTIC", "SOFTMAX"} <= set(op_names(data))
    apart = steps_apart(wide, data, {"in/put": x})
    # One step is 1/65536 of the range; the int16 kernels' 15-bit multipliers add up over 17 ops.
    assert np.mean(apart <= 2.01) >= 0.9
    assert apart.max() <= 12


def test_16_bit_ranges_are_symmetric_with_zero_point_0(trained):
    for row in ranges(quant.to_16x8(trained[1])):
        if row.role != "weight":
            low, high = float(row.low), float(row.high)
            assert low == pytest.approx(-high * 32768 / 32767, rel=1e-6)
            assert round(-32768 - low / (high / 32767)) == 0


def test_names_and_scheme(trained):
    model, aware, _ = trained
    assert output_names(aware) == ["logits", "probs"]
    assert aware.input_names == ["in/put"]
    assert quant.is_quantized(aware)
    assert not quant.is_quantized(model)
    assert quant.layer_name(aware.get_layer("quant_a/b")) == "a/b"
    with pytest.raises(ModelError, match="quantize-aware already"):
        quant.quantize_aware(aware)
    with pytest.raises(ModelError, match="not quantize-aware"):
        quant.qat_scheme(model)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_saves_and_reloads(trained, tmp_path, suffix):
    _, aware, x = trained
    path = tmp_path / f"aware{suffix}"
    aware.save(path)
    again = keras.models.load_model(path, custom_objects=quant.custom_objects(), compile=False)
    for a, b in zip(aware(x[:8]), again(x[:8]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert lower(again, "w8a8") == lower(aware, "w8a8")
    assert lower(quant.to_16x8(again), "w8a16") == lower(quant.to_16x8(aware), "w8a16")


def test_normalised_model_equals_the_original():
    for name in ("chain", "residual", "concat", "depthwise", "multi_io", "nested"):
        model = zoo.build(name)
        x = zoo.inputs_for(model)
        equal = normalise(trace(model)).model
        for a, b in zip(tf.nest.flatten(model(x)), tf.nest.flatten(equal(x)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_calibration_sets_the_true_ranges(bits):
    model = keras.Sequential(
        [keras.Input((6,), name="x"), L.Dense(4, "relu", name="a"), L.Dense(3, name="b")]
    )
    x = RNG.normal(size=(70, 6)).astype("float32")
    aware = quant.quantize_aware(model, {8: "w8a8", 16: "w8a16"}[bits], calibration=x)
    hidden = keras.Model(model.inputs, model.get_layer("a").output)(x).numpy()
    out = model(x).numpy()
    found = {r.layer: (float(r.low), float(r.high)) for r in ranges(aware) if r.role == "output"}
    wanted = {"quantize_x": x, "a": hidden, "b": out}
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        low, high = min(values.min(), 0), max(values.max(), 0)
        if bits == 16:
            high = max(-low, high)
            low = -high * 32768 / 32767
        np.testing.assert_allclose(found[name], (low, high), rtol=1e-5, atol=1e-6)
    assert unset_ranges(aware) == []


def test_calibration_takes_iterables_and_fixed_batches():
    model = keras.Sequential([keras.Input((6,), batch_size=4, name="x"), L.Dense(3)])
    x = RNG.normal(size=(10, 6)).astype("float32")
    a = quant.quantize_aware(model, calibration=x)
    b = quant.quantize_aware(model, calibration=iter([x[:3], x[3:]]))
    for one, two in zip(ranges(a), ranges(b), strict=True):
        np.testing.assert_array_equal(one.low, two.low)
        np.testing.assert_array_equal(one.high, two.high)
    with pytest.raises(InputError, match="calibration data"):
        quant.quantize_aware(model, calibration=x[:, :5])


def test_without_calibration_training_sets_the_ranges():
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(4, "relu"), L.Dense(2)])
    aware = quant.quantize_aware(model)
    assert quant.report(aware).unset
    assert "no range yet" in str(quant.report(aware))
    with pytest.raises(ModelError, match="nothing has set"):
        lower(aware, "w8a8")
    with pytest.raises(ModelError, match="never set"):
        quant.to_16x8(aware)
    x = RNG.uniform(-1, 1, size=(64, 6)).astype("float32")
    aware.compile("sgd", "mse")
    aware.fit(x, np.zeros((64, 2)), batch_size=16, epochs=1, verbose=0)
    assert not quant.report(aware).unset
    entry = next(r for r in ranges(aware) if r.layer == "quantize_x")
    # The first batch's range, not tfmot's [-6, 6] on its slow way.
    assert -1.0 <= float(entry.low) < -0.8
    assert 0.8 < float(entry.high) <= 1.0
    assert float_ops(lower(aware, "w8a8")) == []


def test_training_with_16_bits_keeps_the_ranges_symmetric():
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(4, "relu"), L.Dense(2)])
    x = RNG.uniform(-3, 1, size=(64, 6)).astype("float32")
    aware = quant.quantize_aware(model, "w8a16")
    aware.compile("sgd", "mse")
    aware.fit(x, np.ones((64, 2)), batch_size=16, epochs=2, verbose=0)
    for row in ranges(aware):
        if row.role != "weight":
            assert float(row.low) == pytest.approx(-float(row.high) * 32768 / 32767, rel=1e-6)
    data = lower(aware, "w8a16")
    assert float_ops(data) == []
    apart = steps_apart(aware, data, {"x": x})
    assert apart.max() <= 3.01


def test_frozen_layers_stay_frozen():
    model = keras.Sequential([keras.Input((6,)), L.Dense(4, name="f"), L.Dense(2, name="t")])
    model.get_layer("f").trainable = False
    x = RNG.normal(size=(32, 6)).astype("float32")
    aware = quant.quantize_aware(model, calibration=x)
    aware.compile("sgd", "mse")
    aware.fit(x, np.ones((32, 2)), verbose=0)
    kept = aware.get_layer("quant_f").layer.get_weights()
    for a, b in zip(kept, model.get_layer("f").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    moved = aware.get_layer("quant_t").layer.get_weights()[0]
    assert not np.array_equal(moved, model.get_layer("t").get_weights()[0])


def sine(x):
    return tf.math.sin(x)


class Own(L.Layer):
    def call(self, x):
        return tf.math.floor(x)


def test_what_has_no_integer_form_stays_float_and_is_listed():
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation=sine, name="c")(i)
    x = Own(name="un")(x)
    x = L.Lambda(lambda t: tf.math.cos(t), name="cosine")(x)
    model = keras.Model(i, L.Dense(2, name="d")(L.Flatten(name="f")(x)))
    x = RNG.normal(size=(8, 8, 8, 3)).astype("float32")
    with pytest.warns(quant.QuantizationWarning) as caught:
        aware = quant.quantize_aware(model, calibration=x)
    said = str(caught[0].message)
    for part in ("'un' (Own) stays float", "activation 'sine'", "cos"):
        assert part in said
    with pytest.raises(ModelError, match=r"strict=True.*'un' \(Own\)"):
        quant.quantize_aware(model, strict=True)
    file = tfedge.convert(aware, "w8a8")
    inside = {r.op for r in file.certificate if "float32" in r.types}
    assert not inside & {"CONV_2D", "FULLY_CONNECTED", "ELU"}
    assert {"c_act", "un", "f"} <= set(file.meta["float_layers"])
    apart = steps_apart(aware, file.data, {model.input_names[0]: x})
    assert apart.max() <= 2.01


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_layers_may_have_schemes_of_their_own(scheme):
    other = {"w8a8": "w8a16", "w8a16": "w8a8"}[scheme]
    i = keras.Input((8, 8, 3), name="x")
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="first")(i)
    x = L.BatchNormalization(name="bn")(L.Conv2D(4, 3, padding="same", name="mid_1")(x))
    x = r = L.ReLU(name="mid_relu")(x)
    x = L.Conv2D(4, 3, padding="same", name="mid_2")(x)
    x = L.MaxPooling2D(name="pool")(L.Add(name="sum")([x, r]))
    x = L.Dense(4, activation="sigmoid", name="kept")(L.GlobalAveragePooling2D(name="gap")(x))
    model = zoo.randomize(keras.Model(i, L.Dense(3, name="head")(x)), 1)
    x = RNG.normal(size=(32, 8, 8, 3)).astype("float32")
    given = {"mid_.*": other, "kept": "float"}
    aware = quant.quantize_aware(model, scheme, x, overrides=given)
    file = tfedge.convert(aware, scheme)
    by_layer = {
        r.layer: r.types for r in file.certificate if r.op not in ("QUANTIZE", "DEQUANTIZE")
    }
    width = {"w8a8": "int8", "w8a16": "int16"}
    assert by_layer["head"].endswith(f"->{width[scheme]}")
    assert by_layer["mid_2"].endswith(f"->{width[other]}")
    assert by_layer["kept"].endswith("->float32")
    apart = steps_apart(aware, file.data, {"x": x})
    assert apart.max() <= (2.01 if scheme == "w8a8" else 256)  # 1 step of the 8-bit part
    assert file.data == tfedge.convert(model, scheme, calibration=x, overrides=given).data


def test_4_bit_kernels_are_in_the_file_and_agree():
    model = zoo.randomize(network(), 5)
    x = RNG.normal(size=(32, 12, 12, 3)).astype("float32")
    with pytest.warns(quant.QuantizationWarning, match=r"'dw' \(DepthwiseConv2D\).*4 bits"):
        aware = quant.quantize_aware(model, "w4a8", x)
    file = tfedge.convert(aware, "w4a8")
    kernels = {r.layer: r.types.split(",")[1] for r in file.certificate if "CONV" in r.op}
    kernels |= {r.layer: r.types.split(",")[1] for r in file.certificate if "FULLY" in r.op}
    assert kernels["r1"] == kernels["logits"] == "int4"
    assert kernels["r6"] == "int8"  # with its batch norm folded in
    assert [r.op for r in file.certificate].count("DEPTHWISE_CONV_2D") == 2
    for row in tfedge.verify_ops(aware, file, x):
        assert row.within_one == 1.0 or not row.elements, row
    assert steps_apart(aware, file.data, {"in/put": x}).max() <= 4.01
    with pytest.warns(quant.QuantizationWarning):
        assert tfedge.convert(model, "w4a8", calibration=x).data == file.data


def test_overrides_that_fit_nothing_are_refused():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2, name="head")])
    with pytest.raises(InputError, match="names no layer.*'haed'.*head"):
        quant.quantize_aware(model, overrides={"haed": "float"})
    with pytest.raises(InputError, match="no scheme for a layer"):
        quant.quantize_aware(model, overrides={"head": "w8_dynamic"})
    with pytest.raises(InputError, match="no expression"):
        quant.quantize_aware(model, overrides={"(": "float"})
    with pytest.raises(InputError, match="full-integer scheme"):
        tfedge.convert(model, "float32", overrides={"head": "float"})


def test_a_model_without_anything_to_quantize_is_refused_at_once():
    dense = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    with pytest.raises(ModelError, match="nothing to quantize.*overrides"):
        quant.quantize_aware(dense, overrides={".*": "float"})
    i = keras.Input((4,))
    with (
        pytest.warns(quant.QuantizationWarning),
        pytest.raises(ModelError, match="every.*math.sin"),
    ):
        quant.quantize_aware(keras.Model(i, tf.math.sin(i)))


def test_other_refusals():
    dense = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    with pytest.raises(InputError, match="no quantization-aware training"):
        quant.quantize_aware(dense, "float16")
    with pytest.raises(InputError, match="Did you mean"):
        quant.quantize_aware(dense, "w8a88")
    double = keras.Sequential([keras.Input((4,)), L.Dense(2, dtype="float64", name="d")])
    with pytest.raises(ModelError, match="float64 in d"):
        quant.quantize_aware(double)
    gelu = keras.Sequential([keras.Input((4,)), L.Dense(2, activation="gelu", name="g")])
    quant.quantize_aware(gelu)
    slopes = keras.Sequential([keras.Input((4, 3)), L.PReLU(), L.Dense(2)])
    with pytest.warns(quant.QuantizationWarning, match="as w8a8: TFLite has no int16 PRELU"):
        quant.quantize_aware(slopes, "w8a16")
    with pytest.raises(ModelError, match=r"int16 GELU.*quantize_aware\(float_model, 'w8a16'"):
        quant.to_16x8(quant.quantize_aware(gelu, calibration=np.ones((8, 4), "float32")))
    import keras as keras3

    other = keras3.Sequential([keras3.Input((4,)), keras3.layers.Dense(2)])
    assert quant.is_quantized(quant.quantize_aware(other))  # carried into tf_keras first


def test_shared_layer_has_one_range_over_all_calls():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = L.Dense(3, name="shared")
    model = keras.Model([a, b], L.Add()([shared(a), shared(b)]))
    data = {
        "a": RNG.normal(size=(20, 4)).astype("float32"),
        "b": 5 * RNG.normal(size=(20, 4)).astype("float32"),
    }
    aware = quant.quantize_aware(model, calibration=data)
    both = np.concatenate([model.get_layer("shared")(data[k]) for k in "ab"])
    row = next(r for r in ranges(aware) if r.layer == "shared" and r.role == "output")
    assert float(row.high) == pytest.approx(both.max(), rel=1e-5)
    assert steps_apart(aware, lower(aware, "w8a8"), data).max() <= 2.01


def test_dict_structures_survive():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    y = L.Concatenate()([a, b])
    model = keras.Model({"a": a, "b": b}, {"second": L.Dense(2)(y), "first": L.Dense(3)(y)})
    data = {k: RNG.normal(size=(12, 4)).astype("float32") for k in "ab"}
    aware = quant.quantize_aware(model, calibration=data)
    assert set(aware(data)) == {"first", "second"}
    assert steps_apart(aware, lower(aware, "w8a8"), data).max() <= 2.01


def test_dead_activations_and_zero_kernels_convert():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2), name="x"),
            L.Conv2D(3, 3, activation="relu"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    kernel, _ = model.layers[0].get_weights()
    kernel[..., 1] = 0
    model.layers[0].set_weights([kernel, np.array([-99.0, 0.0, -99.0], "float32")])
    x = RNG.normal(size=(16, 6, 6, 2)).astype("float32")
    aware = quant.quantize_aware(model, calibration=x)
    assert np.isfinite(aware(x).numpy()).all()
    assert steps_apart(aware, lower(aware, "w8a8"), {"x": x}).max() <= 1.01


def test_depthwise_scales_are_per_channel():
    model = keras.Sequential([keras.Input((6, 6, 3), name="x"), L.DepthwiseConv2D(3, name="d")])
    kernel = RNG.normal(size=(3, 3, 3, 1)) * np.array([1.0, 1e-2, 10.0]).reshape(1, 1, 3, 1)
    model.layers[0].set_weights([kernel.astype("float32"), np.zeros(3, "float32")])
    aware = quant.quantize_aware(model, calibration=np.ones((4, 6, 6, 3), "float32"))
    row = next(r for r in ranges(aware) if r.role == "weight")
    np.testing.assert_allclose(row.high, np.abs(kernel).max((0, 1, 3)), rtol=1e-5)


@pytest.mark.parametrize("axis", ["channel", "tensor"])
def test_the_largest_weight_has_a_gradient(axis):
    quantizer = WeightQuantizer(axis)
    shape = (3, 3, 2, 64) if axis == "channel" else (18, 64)
    kernel = tf.constant(RNG.normal(size=shape).astype("float32"))
    variables = quantizer.build(shape, "w", keras.layers.Layer())
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        out = tf.reduce_sum(quantizer(kernel, True, variables))
    assert float(tf.reduce_min(tape.gradient(out, kernel))) == 1.0


def test_quantizer_values():
    quantizer = WeightQuantizer("tensor")
    layer = keras.layers.Layer()
    variables = quantizer.build((2, 2), "w", layer)
    kernel = tf.constant([[1.01, -2.0], [0.5, 0.012]])
    step = 2.0 / 127
    got = quantizer(kernel, True, variables).numpy()
    np.testing.assert_allclose(got, np.round(kernel.numpy() / step) * step, atol=1e-5)
    activation = ActivationQuantizer(8)
    variables = activation.build(None, "a", layer)
    activation(tf.constant([-1.0, 3.0]), True, variables)
    assert (float(variables["min_var"]), float(variables["max_var"])) == (-1.0, 3.0)
    activation(tf.constant([-2.0, 3.0]), True, variables)
    assert float(variables["min_var"]) == pytest.approx(-1.001)


def test_a_softmax_head_learns_from_its_worst_errors():
    """A true class of probability 1e-4 rounds to 0 in the file; training must still feel it."""
    i = keras.Input((2,), name="x")
    model = keras.Model(i, L.Dense(2, activation="softmax", name="d")(i))
    model.set_weights([np.array([[4.0, -5.0], [0, 0]], "float32"), np.zeros(2, "float32")])
    x = np.array([[1.0, 0.0]], "float32")
    aware = quant.quantize_aware(model, calibration=1.5 * x)
    with tf.GradientTape() as tape:
        out = aware(x, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(np.array([1]), out)
    gradient = tape.gradient(loss, aware.get_layer("quant_d").layer.kernel).numpy()
    assert 8.0 < float(loss[0]) < 10.0
    np.testing.assert_allclose(gradient[0], [1.0, -1.0], atol=0.01)
    wide = quant.to_16x8(aware)
    for built, scheme in ((aware, "w8a8"), (wide, "w8a16")):
        assert steps_apart(built, lower(built, scheme), {"x": x}).max() <= 2.01


def test_trains_inside_a_distiller():
    from tfedge.distill import Distiller

    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(8, "relu"), L.Dense(3)])
    x = RNG.normal(size=(64, 6)).astype("float32")
    aware = quant.quantize_aware(model, calibration=x)
    before = [w.copy() for w in aware.get_weights()]
    distiller = Distiller(aware, model)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(x, RNG.integers(0, 3, 64), batch_size=16, epochs=1, verbose=0)
    moved = [not np.array_equal(a, b) for a, b in zip(before, aware.get_weights(), strict=True)]
    assert sum(moved) >= 6
    assert float_ops(lower(aware, "w8a8")) == []


def test_import_leaves_keras_3_alone():
    code = (
        "import os, tfedge.quant, tensorflow as tf;"
        "print(os.environ.get('TF_USE_LEGACY_KERAS'), tf.keras.__version__[0])"
    )
    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, text=True)
    assert done.stdout.split() == ["None", "3"], done.stderr


def test_two_outputs_keep_their_names_for_losses_and_labels(tmp_path):
    i = keras.Input((6,), name="x")
    h = L.Dense(8, activation="relu", name="body")(i)
    model = keras.Model(i, [L.Dense(3, name="cls")(h), L.Dense(1, name="size")(h)])
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    qat = quant.quantize_aware(model, calibration=x)
    assert qat.output_names == ["cls", "size"]
    qat.save(tmp_path / "q.h5")
    for made in (qat, tfedge.load_model(tmp_path / "q.h5")):
        made.compile("sgd", loss={"cls": "mse", "size": "mse"})
        y = {"cls": np.zeros((32, 3), "float32"), "size": np.zeros((32, 1), "float32")}
        assert np.isfinite(made.fit(x, y, verbose=0).history["cls_loss"][0])

"""Post-training quantization: each step does what it says, and none makes the result worse."""

from types import SimpleNamespace

import numpy as np
import pytest

import tfedge
from tests.zoo import randomize
from tfedge import spec_keys, specs
from tfedge._keras import keras, tf
from tfedge.errors import InputError, ModelError
from tfedge.graph import canonical
from tfedge.quant import (
    PTQ_STEPS,
    bias_correction,
    post_training,
    quantize_aware,
    rounding,
    synthesize,
)
from tfedge.quant.absorb import absorbed
from tfedge.quant.clipping import BINS, RANGE_METHODS, Histogram, get_method
from tfedge.quant.equalise import equalised
from tfedge.quant.ptq import DEFAULT_STEPS
from tfedge.stage_files import convert_for

pytestmark = pytest.mark.filterwarnings("ignore::tfedge.quant.QuantizationWarning")
L = keras.layers
DATA = np.random.default_rng(0).normal(size=(96, 8, 8, 3)).astype("float32")


def residual():
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    y = L.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise")(x)
    y = L.Conv2D(8, 1, activation="relu", name="point")(L.ReLU(name="relu2")(y))
    y = L.Add(name="add")([L.MaxPooling2D(name="pool")(x), y])
    y = L.Flatten(name="flat")(L.ReLU(6.0, name="relu6")(L.Conv2D(4, 3, name="conv2")(y)))
    model = keras.Model(image, L.Dense(5, name="out")(y))
    randomize(model)
    return model


@pytest.fixture(scope="module")
def float_model():
    return residual()


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w8a16"])
def test_no_step_makes_it_worse_and_the_file_agrees(float_model, scheme):
    model, report = post_training(float_model, scheme, DATA, steps=(*DEFAULT_STEPS, "gptq"))
    assert [s.name for s in report] == ["min_max", "equalise", "absorb", "ranges", "gptq", "bias"]
    kept = [s.sqnr_db for s in report if s.kept]
    assert kept == sorted(kept)
    assert all(s.gained_db == 0 for s in report if not s.kept)
    if scheme == "w4a8":
        assert kept[-1] > kept[0] + 3
    file = tfedge.convert(model, scheme)
    # TFLite's own kernel of 4-bit convolutions rounds twice.
    least = 0.85 if scheme == "w4a8" else 0.95
    assert tfedge.verify(model, file, DATA[:32]).within_one_step > least


@pytest.mark.parametrize("step", ["gptq", "adaround"])
def test_rounding_leaves_codes_and_gains(float_model, step):
    source = canonical(float_model, fold_batch_norm=True)
    model = quantize_aware(source, "w4a8", DATA, ranges="learned")
    want = source.predict(DATA, verbose=0)
    before = np.square(model.predict(DATA, verbose=0) - want).mean()
    assert getattr(rounding, step)(model, [tf.constant(DATA)]) == 5
    assert np.square(model.predict(DATA, verbose=0) - want).mean() < 0.7 * before
    for name in ("quant_conv", "quant_depthwise", "quant_out"):
        kernel, quantizer, variables = model.get_layer(name)._weight_vars[0]
        again = quantizer(tf.convert_to_tensor(kernel), False, variables)
        np.testing.assert_allclose(again, kernel.numpy(), atol=1e-6)


def test_rounding_at_8_bits_keeps_each_channels_scale(float_model):
    model = quantize_aware(canonical(float_model, fold_batch_norm=True), "w8a8", DATA)
    kernel, quantizer, _ = model.get_layer("quant_conv2")._weight_vars[0]
    was = quantizer.largest(kernel).numpy()
    rounding.gptq(model, [tf.constant(DATA)])
    np.testing.assert_allclose(quantizer.largest(kernel).numpy(), was, rtol=1e-6)


def test_equalised_network_is_equal(float_model):
    source = canonical(float_model, fold_batch_norm=True)
    kernel = source.get_layer("conv").kernel
    kernel.assign(kernel * np.geomspace(0.01, 10, 8).astype("float32"))
    equal, count = equalised(source, [tf.constant(DATA)])
    assert count >= 1
    want = source.predict(DATA, verbose=0)
    np.testing.assert_allclose(equal.predict(DATA, verbose=0), want, atol=2e-5 * np.ptp(want))
    assert not np.allclose(equal.get_layer("conv").kernel, kernel)


def test_what_is_not_homogeneous_is_not_scaled():
    image = keras.Input((6, 6, 3))
    x = L.Conv2D(8, 3, activation="swish")(image)
    model = keras.Model(image, L.Conv2D(4, 1)(L.ReLU(6.0)(L.Conv2D(8, 1)(x))))
    assert equalised(model, [tf.constant(DATA[:, :6, :6])])[1] == 0


def test_bias_correction_matches_the_means():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Conv2D(6, 3, name="conv")(image))
    randomize(model)
    aware = quantize_aware(model, "w4a8", DATA + 1.0)
    want = model.predict(DATA + 1.0, verbose=0).mean((0, 1, 2))

    def off():
        return np.abs(aware.predict(DATA + 1.0, verbose=0).mean((0, 1, 2)) - want).max()

    before = off()
    assert bias_correction.correct(aware, [tf.constant(DATA + 1.0)]) == 1
    assert off() < 0.2 * before


def histogram(values, bits=8):
    low, high = min(values.min(), 0.0), values.max()
    counts = np.histogram(values, BINS, (low, high))[0].astype(float)
    return Histogram(low, high, counts, bits)


def test_range_methods_clip_outliers():
    values = np.random.default_rng(0).normal(size=100_000)
    values[:2] = 60.0
    seen = histogram(values)
    for name, most in (("min_max", 60.0), ("percentile", 8.0), ("kl", 30.0)):
        low, high = RANGE_METHODS[name](seen)
        assert low < -2 and 2 < high <= most, name
    heavy = np.random.default_rng(0).laplace(size=100_000)

    def error(low, high):
        step = (high - low) / 255
        codes = np.clip(np.round((heavy - low) / step), 0, 255)
        return np.square(low + codes * step - heavy).mean()

    seen = histogram(heavy)
    assert error(*RANGE_METHODS["mse"](seen)) < error(seen.low, seen.high)
    plain = histogram(np.random.default_rng(0).uniform(0, 1, 10_000))
    assert get_method("mse")(plain)[1] > 0.95
    assert get_method("mse")(histogram(values, 16))[1] == 60.0


def test_wrong_input(float_model):
    with pytest.raises(InputError, match="gptq"):
        post_training(float_model, "w8a8", DATA, steps=("gtpq",))
    with pytest.raises(InputError, match="one of them"):
        post_training(float_model, "w8a8", DATA, steps=("gptq", "adaround"))
    with pytest.raises(InputError, match="calibration"):
        post_training(float_model, "w8a8")
    with pytest.raises(InputError, match="range method"):
        get_method("msee")


def test_convert_does_the_steps_and_says_what_each_gained(float_model):
    plain = tfedge.convert(float_model, "w8a8", calibration=DATA)
    file = tfedge.convert(float_model, "w8a8", calibration=DATA, ptq="equalise, bias")
    assert [s["step"] for s in file.meta["ptq"]] == ["min_max", "equalise", "bias"]
    assert "ptq" not in plain.meta
    assert all(row.delegated for row in file.certificate)
    worse = tfedge.verify(float_model, plain, DATA[:32]).sqnr_db
    assert tfedge.verify(float_model, file, DATA[:32]).sqnr_db > worse - 0.5


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"scheme": "float16", "ptq": "default"}, "full-integer"),
        ({"scheme": "w8a8", "ptq": "default"}, "needs calibration"),
        ({"scheme": "w8a8", "ptq": "equalize", "calibration": DATA}, "equalise"),
        ({"scheme": "w8a8", "ptq": ["gptq", "adaround"], "calibration": DATA}, "both"),
    ],
)
def test_convert_refuses_steps_that_it_would_not_do(float_model, arguments, said):
    with pytest.raises(InputError, match=said):
        tfedge.convert(float_model, **arguments)


def test_recipes_and_the_package_name_the_same_steps():
    assert tuple(PTQ_STEPS) == spec_keys.PTQ_STEPS


def high_bias(padding="valid"):
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, name="conv", bias_initializer=keras.initializers.Constant(9.0))(image)
    x = L.DepthwiseConv2D(3, padding=padding, activation="relu", name="depthwise")(L.ReLU()(x))
    x = L.Conv2D(6, 1, activation="relu", name="point")(x)
    return keras.Model(image, L.Dense(4, name="out")(x))


def test_absorption_changes_nothing_but_ranges():
    keras.utils.set_random_seed(0)
    model = high_bias()
    moved, count = absorbed(model, [tf.constant(DATA)])
    assert count >= 8
    want = model.predict(DATA, verbose=0)
    np.testing.assert_allclose(moved.predict(DATA, verbose=0), want, rtol=1e-4, atol=1e-3)
    assert (moved.get_layer("conv").bias.numpy() < 8.9).all()
    same = high_bias("same")
    before = same.get_layer("conv").bias.numpy()
    padded, _ = absorbed(same, [tf.constant(DATA)])
    assert np.array_equal(padded.get_layer("conv").bias.numpy(), before), "zeros are padded there"


def test_a_step_that_makes_a_new_model_starts_from_the_one_before():
    keras.utils.set_random_seed(0)
    given = high_bias()
    scale = np.geomspace(0.05, 20, 8).astype("float32")  # gives equalisation something to do
    conv, after = given.get_layer("conv"), given.get_layer("depthwise")
    conv.kernel.assign(conv.kernel * scale)
    conv.bias.assign(conv.bias * scale)
    after.depthwise_kernel.assign(after.depthwise_kernel / scale[:, None])
    alone, _ = post_training(given, "w8a8", DATA, steps=["absorb"])
    both, report = post_training(given, "w8a8", DATA, steps=["equalise", "absorb"])
    assert all(s.kept for s in report)
    kernels = [m.get_layer("quant_conv").layer.kernel.numpy() for m in (alone, both)]
    assert np.allclose(kernels[0], conv.kernel.numpy()), "absorption leaves kernels alone"
    assert np.abs(kernels[1] / kernels[0] - 1).max() > 0.5, "the equalisation is still there"


def test_the_analytic_correction_takes_the_weights_mean_error_away(float_model):
    source = canonical(float_model, fold_batch_norm=True)
    model = quantize_aware(source, "w4a8", DATA)
    want = source.predict(DATA, verbose=0).mean(0)
    before = np.abs(model.predict(DATA, verbose=0).mean(0) - want).max()
    assert bias_correction.correct_expected(model, [tf.constant(DATA)]) == 5
    after = np.abs(model.predict(DATA, verbose=0).mean(0) - want).max()
    assert after < 0.7 * before


def trained_norms():
    """A network whose batch norms remember flat images in [0, 1], which noise is nothing like."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, use_bias=False, name="conv")(image)
    x = L.ReLU(name="relu")(L.BatchNormalization(momentum=0.5, name="norm")(x))
    x = L.BatchNormalization(momentum=0.5, name="norm2")(L.Conv2D(8, 3, name="conv2")(x))
    model = keras.Model(image, L.Dense(3, name="out")(L.GlobalAveragePooling2D()(x)))
    random = np.random.default_rng(3)
    rows = random.uniform(0, 1, (64, 1, 1, 3)) + random.normal(0, 0.02, (64, 8, 8, 3))
    rows = np.clip(rows, 0, 1).astype("float32")
    for _ in range(8):
        model(rows, training=True)
    return model, rows


@pytest.mark.parametrize("step", [*PTQ_STEPS])
def test_every_step_passes_lookups_by(step):
    words = keras.Input((6,), dtype="int32", name="words")
    x = L.Conv1D(4, 3, activation="relu", name="conv")(L.Embedding(9, 4, name="table")(words))
    model = keras.Model(words, L.Dense(2, name="out")(L.GlobalAveragePooling1D(name="pool")(x)))
    data = np.random.default_rng(1).integers(0, 9, (64, 6)).astype("int32")
    _, report = post_training(model, "w8a8", data, steps=(step,))
    assert [s.name for s in report] == ["min_max", step]


def test_made_up_data_set_ranges_as_real_data_do():
    model, rows = trained_norms()
    made = synthesize(model, 40, bounds=(0, 1), steps=150)
    assert made["image"].shape == (40, 8, 8, 3) and made["image"].dtype == np.float32
    noise = np.random.default_rng(0).uniform(size=rows.shape).astype("float32")
    noise_db, made_db, real_db = (
        tfedge.verify(model, tfedge.convert(model, "w8a8", calibration=c), rows).sqnr_db
        for c in (noise, made, rows)
    )
    assert noise_db + 1 < made_db < real_db
    assert np.array_equal(
        synthesize(model, 40, steps=3)["image"], synthesize(model, 40, steps=3)["image"]
    )


def test_made_up_data_keep_to_bounds_and_to_what_can_be_done():
    model, _ = trained_norms()
    made = synthesize(model, 5, bounds=(0.0, 2.0), steps=5)["image"]
    assert len(made) == 5 and made.min() >= 0 and made.max() <= 2
    with pytest.raises(InputError, match="bounds"):
        synthesize(model, 5, bounds=(2.0, 0.0))
    with pytest.raises(ModelError, match="without batch norm"):
        synthesize(keras.Model(*(2 * [keras.Input((4,))])), 5)
    words = keras.Input((4,), dtype="int32", name="words")
    x = L.BatchNormalization()(L.Flatten()(L.Embedding(9, 3)(words)))
    with pytest.raises(ModelError, match="'words'"):
        synthesize(keras.Model(words, x), 5)
    file = tfedge.convert(model, "w8a8", calibration="synthetic:32")
    assert all(row.types.startswith("int8") for row in file.certificate)


def test_recipes_with_steps_convert_quantize_aware_models_too(float_model):
    """The steps are for schemes without QAT; a QAT model's own ranges stay as they are."""
    task = SimpleNamespace(calibration=lambda n: DATA[:n], labels=(), preprocessing={})
    spec = specs.ConvertSpec(ptq=("bias",), calibration=32)
    aware = quantize_aware(float_model, "w8a8", DATA)
    for scheme in ("w8a8", "w8a16"):
        assert "ptq" not in convert_for(aware, scheme, spec, task).meta
    assert "ptq" in convert_for(float_model, "w8a8", spec, task).meta

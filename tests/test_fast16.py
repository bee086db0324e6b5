"""Fast 16x8: proofs hold, every rewritten op stays within one step, and what is slow says why."""

from __future__ import annotations

import numpy as np
import pytest

import tfedge
from tests import emulator
from tests.run_file import float_ops, op_names
from tfedge import lower as lowering
from tfedge._keras import keras, tf
from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.schemes import DEPTHWISE
from tfedge.targets import get_target
from tfedge.tflite import TFLiteModel, fast16, int16_bias, int16_bounds, int16_costs, int16_seen
from tfedge.tflite import flatbuffer as fb
from tfedge.tflite import int16_depthwise as forms
from tfedge.tflite.certificate import require_integer
from tfedge.tflite.check import random_inputs
from tfedge.tflite.interpreter import KERNELS, Interpreter

L = keras.layers


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def net(layer, shape, rng):
    """One layer with random weights."""
    i = keras.Input(shape, name="x")
    model = keras.Model(i, layer(i), name="m")
    for w in model.weights:
        w.assign(rng.normal(size=w.shape))
    return model


def stock(model, x, batch=1):
    """The converter's file: all biases int64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int16_bias, "fit_int16_biases", lambda m: {})
        return lowering.lower(model, "w8a16", calibration=x, batch=batch)


def codes(data, kernels="builtin", seed=0):
    runner = Interpreter(data, kernels=kernels)
    return next(iter(runner.run(random_inputs(runner.inputs, seed)).values())).astype(int)


def within_a_step(old, new):
    """Each kind of kernels, random codes over all of int16."""
    for kernels in KERNELS:
        for seed in range(3):
            apart = np.abs(codes(old, kernels, seed) - codes(new, kernels, seed))
            assert apart.max() <= 1, kernels
    return codes(old)


def force(data, change):
    """Rewrites every grouped convolution of a file by `change(model, grouped)`."""
    model = fb.read(data)
    graph = model.subgraphs[0]
    instead = {g.found.index: change(model, g) for g in list(forms.grouped_ops(model))}
    assert instead
    graph.operators = [o for i, op in enumerate(graph.operators) for o in instead.get(i, [op])]
    return fb.write(model)


SUMMING = {
    "conv": (lambda: L.Conv2D(7, 3, strides=2, padding="same", activation="relu"), (9, 8, 5)),
    "dilated": (lambda: L.Conv2D(4, (3, 2), dilation_rate=2), (9, 9, 3)),
    "pointwise": (lambda: L.Conv2D(6, 1), (5, 5, 4)),
    "no bias": (lambda: L.Conv2D(6, 3, use_bias=False), (5, 5, 4)),
    "1-D": (lambda: L.Conv1D(6, 3, padding="same"), (11, 4)),
    "dense": (lambda: L.Dense(9, activation="relu"), (33,)),
    "dense without bias": (lambda: L.Dense(9, use_bias=False), (33,)),
    "dense on 3-D": (lambda: L.Dense(9), (4, 6)),
    "transposed": (lambda: L.Conv2DTranspose(5, 3, strides=2, padding="same"), (5, 4, 6)),
    "transposed, valid": (lambda: L.Conv2DTranspose(3, (2, 3), activation="relu"), (5, 4, 6)),
    "transposed, no bias": (lambda: L.Conv2DTranspose(3, 4, strides=2, use_bias=False), (5, 4, 2)),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", list(SUMMING))
def test_int32_bias_is_within_a_step(name, batch, rng):
    layer, shape = SUMMING[name]
    model = net(layer(), shape, rng)
    old = stock(model, rng.uniform(-1, 1, (6, *shape)).astype("float32"), batch)
    new, facts = fast16.speed_up(old)
    assert facts == {}
    found = [f for f in int16_bias.summing_ops(fb.read(new)) if f.name != "DEPTHWISE_CONV_2D"]
    assert found and not any(f.wide for f in found)
    assert len(new) <= len(old) + 512
    assert np.abs(within_a_step(old, new)).max() > 1000


LAYERS = {
    "3x3": (lambda: L.DepthwiseConv2D(3, padding="same"), (8, 7, 20)),
    "stride 2, relu6": (lambda: L.DepthwiseConv2D(3, strides=2, activation=tf.nn.relu6), (9, 9, 6)),
    "5x5 valid": (lambda: L.DepthwiseConv2D(5), (8, 9, 3)),
    "even kernel": (lambda: L.DepthwiseConv2D((2, 4), padding="same"), (8, 7, 10)),
    "dilated": (lambda: L.DepthwiseConv2D(3, dilation_rate=2, padding="same"), (9, 8, 5)),
    "multiplier": (lambda: L.DepthwiseConv2D(3, depth_multiplier=3, padding="same"), (6, 6, 5)),
    "one channel": (lambda: L.DepthwiseConv2D(3, padding="same", use_bias=False), (6, 6, 1)),
    "no bias, relu": (
        lambda: L.DepthwiseConv2D(3, use_bias=False, padding="same", activation="relu"), (6, 6, 33),
    ),
    "1-D": (lambda: L.DepthwiseConv1D(3, padding="same"), (12, 6)),
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", list(LAYERS))
def test_forms_of_depthwise_are_within_a_step(name, batch, rng):
    layer, shape = LAYERS[name]
    model = net(layer(), shape, rng)
    old = stock(model, rng.uniform(-1, 1, (6, *shape)).astype("float32"), batch)
    if "DEPTHWISE_CONV_2D" not in op_names(old):
        assert name == "one channel"  # The converter makes a CONV_2D of it.
        return
    for size in (1, 4, 16, 64):
        for turned in (False, True):
            if turned and not forms.transposable(next(forms.grouped_ops(fb.read(old)))):
                continue
            new = force(old, lambda m, g, s=size, t=turned: forms.to_blocks(m, g, s, t))
            assert "DEPTHWISE_CONV_2D" not in op_names(new)
            assert float_ops(new) == []
            within_a_step(old, new)
    assert all(forms.float_is_exact(g) for g in forms.grouped_ops(fb.read(old)))
    within_a_step(old, force(old, forms.to_float))


@pytest.mark.parametrize("groups", [2, 5])
def test_forms_of_grouped_convolutions(groups, rng):
    model = net(L.Conv2D(20, 3, groups=groups, strides=2, activation="relu"), (9, 9, 10), rng)
    old = stock(model, rng.uniform(-1, 1, (6, 9, 9, 10)).astype("float32"))
    grouped = next(forms.grouped_ops(fb.read(old)), None)
    if grouped is None:
        pytest.skip("the converter splits the groups itself")
    assert grouped.groups == groups
    for size in (1, 2, 8):
        within_a_step(old, force(old, lambda m, g, s=size: forms.to_blocks(m, g, s)))


def test_a_bound_is_the_largest_partial_sum(rng):
    """Against all subsets of products, at the ends of the ranges."""
    for _ in range(20):
        weights = rng.integers(-127, 128, (2, 2, 3)).astype(np.int8)
        low, high = -rng.integers(0, 5, 3), rng.integers(0, 5, 3)
        bias = rng.integers(-100, 100, 2)
        bound = int16_bounds.largest_sums(weights, low, high, bias)
        for channel in range(2):
            ends = weights[channel].astype(int)[..., None] * np.stack([low, high], -1)
            each = np.append(ends.reshape(-1, 2).max(1), bias[channel])
            least = np.append(ends.reshape(-1, 2).min(1), bias[channel])
            largest = max(np.maximum(each, 0).sum(), -np.minimum(least, 0).sum())
            assert bound[channel] == largest


def mixed():
    """Many kinds of ops whose ranges are known."""
    i = keras.Input((8, 8, 4), name="x")
    a = L.Conv2D(6, 3, padding="same", activation="relu", name="a")(i)
    b = L.Conv2D(6, 3, padding="same", activation=tf.nn.relu6, name="b")(i)
    c = L.Add()([a, b])
    d = L.Concatenate()([c, L.AveragePooling2D(3, 1, "same")(a), L.MaxPooling2D(3, 1, "same")(i)])
    e = L.ZeroPadding2D(1)(d)
    f = L.Multiply()([L.Conv2D(16, 1, activation="sigmoid")(e), e])
    g = L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(f))
    h = L.DepthwiseConv2D(3, activation="relu")(L.UpSampling2D()(f))
    return keras.Model(i, [g, L.Conv2D(3, 3, name="last")(L.Reshape((18, 18, 16))(h))], name="m")


def test_codes_stay_within_the_ranges(rng):
    model = mixed()
    for w in model.weights:
        w.assign(rng.normal(size=w.shape))
    data = stock(model, rng.normal(size=(8, 8, 8, 4)).astype("float32"))
    parsed = fb.read(data)
    ranges = int16_bounds.code_ranges(parsed, parsed.subgraphs[0])
    assert sum(low >= 0 for low, _ in ranges.values()) >= 6
    runner = Interpreter(data, keep_tensors=True)
    for seed in range(4):
        runner.run(random_inputs(runner.inputs, seed))
        for index, (low, high) in ranges.items():
            values = runner.tensor(index)
            assert low <= values.min() and values.max() <= high, index


def dense(width, scale, bias=True):
    """Rows of equal weights: its sum reaches `width * 127 * 32767`."""
    i = keras.Input((width,), name="x")
    y = L.Dense(3, name="y", kernel_initializer="ones", use_bias=bias)(i)
    return keras.Model(i, y, name="m"), np.linspace(-scale, scale, 8 * width, dtype="f").reshape(
        8, width
    )


@pytest.mark.parametrize("bias", [True, False])
def test_a_sum_that_can_overflow_does_not_wrap(bias):
    """The kernel without a bias sums in 32 bits unless it is given one of 64."""
    model, x = dense(2048, 0.1, bias)
    file = tfedge.convert(model, "w8a16", calibration=x)
    row = next(r for r in file.certificate if r.op == "FULLY_CONNECTED")
    assert row.types == "int16,int8,int64->int16"
    assert int16_bias.WIDE in row.reason
    full = np.full((1, 2048), 32767, np.int16)
    assert np.all(Interpreter(file.data).run(full)["y"] == 32767)


def test_the_known_range_proves_what_the_worst_case_cannot(rng):
    """Weights of both signs behind a relu: only one sign of products adds up."""
    i = keras.Input((800,), name="x")
    model = keras.Model(i, L.Dense(3, name="y")(L.ReLU()(L.Dense(800, name="h")(i))), name="m")
    signs = np.where(np.arange(800) % 2, 1.0, -1.0)[:, None] * np.ones((1, 3))
    model.get_layer("y").set_weights([signs, np.zeros(3)])
    file = tfedge.convert(model, "w8a16", calibration=rng.normal(size=(8, 800)).astype("f"))
    row = [r for r in file.certificate if r.op == "FULLY_CONNECTED"][-1]
    assert int16_bias.KNOWN_RANGE in row.reason


@pytest.mark.parametrize("kind", ["codes", "sums"])
def test_calibration_bounds_a_sum_and_the_certificate_says_so(kind, rng):
    width = 2048
    model, _ = dense(width, 1.0)
    x = np.zeros((24, width), "f")
    if kind == "codes":  # Only one channel is ever large.
        x[:, 0], x[:, 1:] = 1.0, rng.uniform(0, 0.01, (24, width - 1))
    else:  # All are, but never many at once.
        x[np.arange(24)[:, None], rng.integers(0, width, (24, 100))] = 1.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int16_bias, "FLOOR", 0.0)
        file = tfedge.convert(model, "w8a16", calibration=x)
    row = next(r for r in file.certificate if r.op == "FULLY_CONNECTED")
    assert row.types == "int16,int8,int32->int16"
    assert int16_bias.CALIBRATED[kind] in row.reason
    again = TFLiteModel.from_bytes(file.data).certificate
    assert [r.reason for r in again] == [r.reason for r in file.certificate]
    old = stock(model, x)
    a, b = (Interpreter(d).predict(x)["y"] for d in (old, file.data))
    assert np.abs(a - b).max() <= 1.01 * Interpreter(old).outputs[0].scale[0]


def test_a_foreign_file_is_not_believed():
    """An int32 bias that nothing vouches for is called so."""
    model, x = dense(2048, 0.1)
    parsed = fb.read(stock(model, x, 1))
    found = next(int16_bias.summing_ops(parsed))
    int16_bias._set_bias(parsed, found, "int32")
    assert int16_bias.UNPROVEN in int16_bias.sum_notes(parsed)[found.index]


SEEN = {
    "conv": lambda: L.Conv2D(5, 3, strides=2, padding="same"),
    "valid": lambda: L.Conv2D(5, (3, 2), strides=(1, 2)),
    "dilated": lambda: L.Conv2D(5, 3, dilation_rate=2, padding="same"),
    "transposed": lambda: L.Conv2DTranspose(5, 3, strides=2),
    "dense": lambda: L.Dense(5),
}


@pytest.mark.parametrize("name", list(SEEN))
def test_the_sums_that_are_seen(name, rng):
    """Against TensorFlow's float64 ops, positive and negative products apart."""
    model = net(SEEN[name](), (8, 7, 4), rng)
    parsed = fb.read(stock(model, rng.uniform(-1, 1, (4, 8, 7, 4)).astype("f")))
    op = next(int16_bias.summing_ops(parsed))
    x = rng.integers(-32768, 32768, op.graph.tensors[op.source].shape).astype(np.int16)
    w = fb.tensor_data(parsed, op.graph.tensors[op.weights]).astype(np.float64)
    layer = model.layers[-1]

    def sums(signed, kernel):
        real = signed.astype(np.float64)
        if name == "dense":
            return real @ kernel.T
        if name == "transposed":
            shape = (1, 17, 15, 5)
            kernel = np.moveaxis(kernel, 0, 2)
            return tf.nn.conv2d_transpose(real, kernel, shape, 2, "VALID").numpy()
        kernel = np.moveaxis(kernel, 0, -1)
        return tf.nn.conv2d(
            real, kernel, layer.strides, layer.padding.upper(), dilations=layer.dilation_rate
        ).numpy()

    above, below, up, down = (np.maximum(v, 0) for v in (x * 1.0, -1.0 * x, w, -w))
    positive, negative = sums(above, up) + sums(below, down), sums(above, down) + sums(below, up)
    want = np.maximum(positive, negative).reshape(-1, 5).max(0)
    np.testing.assert_allclose(int16_seen._largest(parsed, op, x), want, rtol=1e-4)


def separable():
    i = keras.Input((16, 16, 8), name="x")
    x = L.Conv2D(48, 1, activation=tf.nn.relu6, name="up")(i)
    x = L.DepthwiseConv2D(3, padding="same", activation=tf.nn.relu6, name="dw")(x)
    return keras.Model(i, L.Conv2D(4, 1, name="down")(x), name="m")


def test_depthwise_by_name(rng):
    model = separable()
    x = rng.normal(size=(8, 16, 16, 8)).astype("f")
    files = {
        n: tfedge.convert(model, "w8a16", calibration=x, int16={"depthwise": n}) for n in DEPTHWISE
    }
    assert "DEPTHWISE_CONV_2D" in op_names(files["stock"].data)
    assert "TRANSPOSE_CONV" in op_names(files["integer"].data)
    for name in ("stock", "integer"):
        require_integer(files[name].data, "w8a16")
        assert "hybrid" not in files[name].meta
    hybrid = files["float"]
    assert hybrid.meta["hybrid"] == "hybrid, not full integer: 1 depthwise convolutions in float32"
    row = next(r for r in hybrid.certificate if r.op == "DEPTHWISE_CONV_2D")
    assert row.types == "float32,float32,float32->float32"
    with pytest.raises(ConversionError, match="float is left"):
        require_integer(hybrid.data, "w8a16")
    outputs = [Interpreter(f.data).predict(x)["down"] for f in files.values()]
    step = Interpreter(hybrid.data).outputs[0].scale[0]
    for other in outputs[1:]:
        assert np.abs(outputs[0] - other).max() <= 4 * step
    assert all(r.layer for r in files["integer"].certificate)


def test_for_arm64_all_sums_have_64_bits(rng):
    """Its kernels with 32-bit sums are the slower ones, so nothing is rewritten."""
    i = keras.Input((16, 16, 8), name="x")
    y = L.Flatten()(separable()(i))
    model = keras.Model(i, L.Dense(3, use_bias=False, name="y")(y), name="n")
    x = rng.normal(size=(8, 16, 16, 8)).astype("f")
    file = tfedge.convert(model, "w8a16", calibration=x, int16={"cpu": "arm64"})
    assert op_names(file.data) == op_names(stock(model, x))
    found = list(int16_bias.summing_ops(fb.read(file.data)))
    assert len(found) == 4 and all(f.wide and f.bias.dtype == np.int64 for f in found)
    assert any(int16_bias.CHOSEN_WIDE in r.reason for r in file.certificate)
    hybrid = {"cpu": "arm64", "depthwise": "float"}
    file = tfedge.convert(model, "w8a16", calibration=x, int16=hybrid)
    assert float_ops(file.data) == ["DEQUANTIZE", "DEPTHWISE_CONV_2D", "QUANTIZE"]


def test_options_that_are_unknown_or_would_not_be_used(rng):
    model = separable()
    x = rng.normal(size=(8, 16, 16, 8)).astype("f")
    for option in ({"depthwise": "float"}, {"cpu": "arm64"}):
        with pytest.raises(InputError, match="16-bit activations"):
            tfedge.convert(model, "w8a8", calibration=x, int16=option)
    with pytest.raises(InputError, match="Did you mean 'float'"):
        tfedge.convert(model, "w8a16", calibration=x, int16={"depthwise": "floats"})
    with pytest.raises(InputError, match="Did you mean 'cpu'"):
        tfedge.convert(model, "w8a16", calibration=x, int16={"cpus": "arm64"})


def test_forms_keep_within_the_bytes(rng, monkeypatch):
    old = stock(separable(), rng.normal(size=(8, 16, 16, 8)).astype("f"))
    model = fb.read(old)
    grouped = list(forms.grouped_ops(model))
    assert int16_costs.choose_forms(model, grouped)
    monkeypatch.setattr(int16_costs, "FREE", 100)
    assert int16_costs.choose_forms(model, grouped) == {}


def test_quantize_aware_models_are_bounded_by_data_too():
    model, x = dense(2048, 1.0)
    x[:, 1:] *= 0.01
    x[:, 0] = 1.0
    aware = tfedge.quant.quantize_aware(model, "w8a16", calibration=x)
    alone, bounded = tfedge.convert(aware, "w8a16"), tfedge.convert(aware, "w8a16", calibration=x)
    reasons = [
        next(r.reason for r in f.certificate if r.op == "FULLY_CONNECTED") for f in (alone, bounded)
    ]
    assert int16_bias.WIDE in reasons[0]
    assert any(text in reasons[1] for text in int16_bias.CALIBRATED.values())


def test_arm_targets_say_what_was_written_for_x86(rng):
    model = net(L.Conv2D(8, 3), (6, 6, 3), rng)
    x = rng.normal(size=(16, 6, 6, 3)).astype("float32")
    files = {
        cpu: tfedge.convert(model, "w8a16", calibration=x, int16={"cpu": cpu}).data
        for cpu in ("x86_64", "arm64")
    }
    assert "1 of 1 16x8 ops are written for x86_64" in fast16.elsewhere_note(files["x86_64"])
    assert fast16.elsewhere_note(files["arm64"]) == fast16.elsewhere_note(stock(model, x)) == ""
    assert fast16.elsewhere_note(tfedge.convert(model, "w8a8", calibration=x).data) == ""


def test_tflm_refuses_what_it_would_compute_wrong(rng):
    pytest.importorskip("tflite_micro")
    model = net(L.DepthwiseConv2D(3, padding="same"), (12, 12, 8), rng)
    x = rng.normal(size=(16, 12, 12, 8)).astype("float32")
    bad = tfedge.convert(model, "w8a16", calibration=x)
    assert [row.op for row in bad.certificate] == ["TRANSPOSE_CONV"]
    (violation,) = get_target("tflm").check(bad.data)
    assert violation.fatal and violation.op == 0 and "--cpu=arm64" in violation.reason
    good = tfedge.convert(model, "w8a16", calibration=x, int16={"cpu": "arm64"})
    first, second = tfedge.benchmark([bad, good], "tflm")
    assert first.arena_bytes is None and "32-bit bias" in first.note and second.arena_bytes
    codes = {good.inputs[0].name: rng.integers(-3000, 3000, (4, 12, 12, 8)).astype(np.int16)}
    with pytest.raises(TargetError, match="32-bit bias"):
        get_target("tflm").run(bad.data, codes)
    there, here = (get_target(name).run(good.data, codes) for name in ("tflm", "host"))
    for name, value in here.items():
        np.testing.assert_array_equal(there[name], value)


@pytest.mark.slow
def test_the_note_stands_beside_emulated_counts(rng):
    emulator.needed()
    model = net(L.Conv2D(8, 3), (6, 6, 3), rng)
    x = rng.normal(size=(16, 6, 6, 3)).astype("float32")
    (timing,) = tfedge.benchmark(
        tfedge.convert(model, "w8a16", calibration=x), "arm64:cortex-a53", runs=1
    )
    assert "--cpu=arm64" in timing.note

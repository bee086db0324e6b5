"""Ranges in training: fake quantization's gradients, moving, fixed and learned ranges, kernels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tfedge
from tests.run_file import float_ops, steps_apart
from tfedge import quant
from tfedge._keras import keras, tf
from tfedge.distill import Distiller
from tfedge.errors import InputError
from tfedge.lower import lower
from tfedge.quant import fake_quant
from tfedge.quant.quantizers import ActivationQuantizer, WeightQuantizer
from tfedge.quantized import ranges, unset_ranges
from tfedge.tflite import flatbuffer

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8, 8, 2)).astype("float32")
Y = RNG.integers(0, 3, 64)
MODES = quant.RANGE_MODES


def network(seed=1):
    keras.utils.set_random_seed(seed)
    i = keras.Input((8, 8, 2), name="x")
    x = r = L.Conv2D(8, 3, padding="same", activation="relu", name="c")(i)
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw")(x)
    x = L.ReLU(6.0, name="r6")(L.BatchNormalization(name="bn")(x))
    x = L.ReLU(name="r")(L.Add(name="a")([L.Conv2D(8, 1, name="p")(x), r]))
    x = L.AveragePooling2D(name="pool")(x)
    return keras.Model(i, L.Dense(3, name="d")(L.GlobalAveragePooling2D(name="g")(x)))


def trained(model, optimizer="sgd", epochs=1, **kwargs):
    aware = quant.quantize_aware(model, calibration=kwargs.pop("calibration", X), **kwargs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    aware.compile(optimizer, loss)
    aware.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, shuffle=False)
    return aware


def activation_ranges(model):
    return {
        (r.layer, r.role): (float(r.low.numpy()), float(r.high.numpy()))
        for r in ranges(model)
        if r.role != "weight"
    }


def gradient_of(op, *values):
    tensors = [tf.constant(v) for v in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        out = op(*tensors)
        total = tf.reduce_sum(out * tf.constant(WEIGHTS[: np.size(values[0])].reshape(out.shape)))
    return out.numpy(), [None if g is None else g.numpy() for g in tape.gradient(total, tensors)]


R16 = np.float32(32768 / 32767)
WEIGHTS = RNG.normal(size=100_000).astype("float32")


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("low", "high", "bits"), [(-1.3, 2.1, 8), (0.0, 3.7, 8), (-2.0001, 2.0, 16)]
)
def test_forward_is_tensorflows_and_the_gradient_passes_inside(low, high, bits, traced):
    x = np.concatenate([RNG.normal(0, 2, 1000), [low, high]]).astype("float32")

    def op(x):
        return fake_quant.clipped(x, tf.constant(low), tf.constant(high), bits)

    out, (dx,) = gradient_of(tf.function(op) if traced else op, x)
    want = tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=bits)
    np.testing.assert_array_equal(out, want)
    inside = (x >= np.float32(low)) & (x <= np.float32(high))
    assert 0.2 < inside.mean() < 1.0
    np.testing.assert_array_equal(dx, np.where(inside, WEIGHTS[: x.size], 0.0))


def test_relu_by_the_range_is_relu_then_fake_quantization():
    x = np.concatenate([RNG.normal(0, 4, 1000), [0.0, 6.0, -1e-30, 1e-30]]).astype("float32")
    for end in (3.0, 6.0):
        out, (dx,) = gradient_of(lambda x, e=end: fake_quant.clipped_relu(x, tf.constant(e), 8), x)
        relu = tf.nn.relu6(x)
        want = tf.quantization.fake_quant_with_min_max_vars(relu, 0.0, end, num_bits=8)
        np.testing.assert_array_equal(out, want)
        np.testing.assert_array_equal(dx, np.where((x > 0) & (x <= end), WEIGHTS[: x.size], 0.0))


def reference_ends(x, upstream, low, high, bits):
    """LSQ+ in the ends of the range, written down from the papers."""
    q = 2.0**bits - 1
    y = tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=bits).numpy()
    step = (high - low) / q
    of_step = np.where(x > high, q, np.where(x < low, 0.0, (y - x) / step))
    of_offset = np.where((x > high) | (x < low), 1.0, 0.0)
    # low is the offset at a fixed step; high = low + q s.
    to_high = np.sum(upstream * of_step) / q
    to_low = np.sum(upstream * of_offset) - to_high
    scale = q**2 / np.sqrt(np.prod(x.shape[1:]) * q)
    return to_low * scale, to_high * scale


@pytest.mark.parametrize("bits", [8, 16])
def test_learned_ends_have_the_papers_gradients(bits):
    # 0 falls on a code, so that fake quantization does not shift the ends.
    low, high = (np.float32(-0.9), np.float32(1.65)) if bits == 8 else (-1.5 * R16, np.float32(1.5))
    x = RNG.normal(size=(16, 300)).astype("float32")
    _, (dx, d_low, d_high) = gradient_of(
        lambda x, lo, hi: fake_quant.learned(x, lo, hi, bits), x, low, high
    )
    upstream = WEIGHTS[: x.size].reshape(x.shape)
    inside = (x >= low) & (x <= high)
    np.testing.assert_array_equal(dx, np.where(inside, upstream, 0.0))
    want = reference_ends(x, upstream, low, high, bits)
    np.testing.assert_allclose((d_low, d_high), want, rtol=2e-3)


@pytest.mark.parametrize("rows", [1, 2, 7, 16])
def test_sampled_rows_stand_for_all(rows):
    """With equal rows, a fourth of them scaled up gives the sum over all."""
    x = np.repeat(RNG.normal(size=(8, 1, 20, 3)), rows, 1).astype("float32")
    upstream = np.repeat(RNG.normal(size=(8, 1, 20, 3)), rows, 1).astype("float32")
    low, high = tf.constant(-0.9), tf.constant(1.65)
    with tf.GradientTape() as tape:
        tape.watch([low, high])
        total = tf.reduce_sum(upstream * fake_quant.learned(tf.constant(x), low, high, 8))
    got = [float(g) for g in tape.gradient(total, [low, high])]
    want = reference_ends(x, upstream, np.float32(-0.9), np.float32(1.65), 8)
    np.testing.assert_allclose(got, want, rtol=2e-3)


def test_learned_kernel_limits_have_the_papers_gradient():
    w = RNG.normal(size=(3, 3, 2, 4)).astype("float32")
    limit = np.array([0.5, 1.0, 2.0, 4.0], "float32")
    out, (dw, d_limit) = gradient_of(lambda w, t: fake_quant.learned_kernel(w, t, 4), w, limit)
    upstream = WEIGHTS[: w.size].reshape(w.shape)
    step = limit / 7
    v = w / step
    codes = np.clip(np.round(v), -7, 7)
    np.testing.assert_allclose(out, codes * step, atol=1e-5)
    inside = np.abs(v) < 7.5
    np.testing.assert_array_equal(dw, np.where(inside, upstream, 0.0))
    of_step = np.where(inside, codes - v, codes)  # LSQ, eq. 3, with round(v) where it clips not
    want = (upstream * of_step).sum((0, 1, 2)) / np.sqrt(18 * 7)  # Of the step; limit = 7 step:
    np.testing.assert_allclose(d_limit, want / 7 * 7**2, rtol=1e-3, atol=1e-4)


def test_straight_through_is_exact_and_passes_the_gradient_on():
    w = (RNG.normal(size=200) * 10.0 ** RNG.integers(-6, 6, 200)).astype("float32")
    rounded = np.clip(np.round(w / 0.01), -127, 127).astype("float32") * np.float32(0.01)
    out, (dw,) = gradient_of(lambda w: fake_quant.straight_through(w, tf.constant(rounded)), w)
    np.testing.assert_array_equal(out, rounded)
    np.testing.assert_array_equal(dw, WEIGHTS[: w.size])


@pytest.mark.parametrize("mode", MODES)
def test_a_trained_model_agrees_with_its_files(mode):
    aware = trained(network(), keras.optimizers.Adam(1e-3), ranges=mode)
    data = lower(aware, "w8a8")
    assert float_ops(data) == []
    apart = steps_apart(aware, data, {"x": X})
    assert np.mean(apart <= 1.01) > 0.97 and apart.max() <= 2.01
    wide = quant.to_16x8(aware)
    assert steps_apart(wide, lower(wide, "w8a16"), {"x": X}).max() <= 12


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_modes_survive_saving_and_16_bits(tmp_path, suffix, scheme):
    for mode in MODES:
        aware = trained(network(), ranges=mode, scheme=scheme)
        aware.save(tmp_path / f"m{suffix}")
        again = tfedge.load_model(tmp_path / f"m{suffix}")
        assert activation_ranges(again) == activation_ranges(aware)
        np.testing.assert_array_equal(again(X[:4]), aware(X[:4]))
        for built in (again, quant.to_16x8(again)):
            wrapper = built.get_layer("quant_r6")
            assert wrapper.quantize_config.simulation.ranges == mode
            assert built.get_layer("quantize_x").quantizer.ranges == mode
            learned = [
                v for v in built.trainable_variables if v.name.endswith(("_min:0", "_max:0"))
            ]
            assert bool(learned) == (mode == "learned")


def test_fixed_ranges_stay_and_must_be_calibrated():
    before = activation_ranges(quant.quantize_aware(network(), calibration=X, ranges="fixed"))
    assert activation_ranges(trained(network(), ranges="fixed")) == before
    moving = activation_ranges(trained(network()))
    assert all(moving[k] != before[k] for k in before if k[0] != "quantize_x")
    with pytest.raises(InputError, match="fixed ranges must come from calibration"):
        quant.quantize_aware(network(), ranges="fixed")
    with pytest.raises(InputError, match="no such way to set ranges"):
        quant.quantize_aware(network(), ranges="ema")


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_learned_ranges_are_trained(scheme, distilled):
    aware = quant.quantize_aware(network(), scheme, calibration=X, ranges="learned")
    before = activation_ranges(aware)
    limits = {r.layer: np.asarray(r.high) for r in ranges(aware) if r.role == "weight"}
    fitted = Distiller(aware, network(2)) if distilled else aware
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fitted.compile(keras.optimizers.SGD(1e-3), loss)
    fitted.fit(X, Y, batch_size=16, verbose=0)
    after = activation_ranges(aware)
    assert all(after[k] != before[k] for k in before)
    for row in ranges(aware):
        if row.role == "weight":
            assert not np.array_equal(limits[row.layer], np.asarray(row.high))
            np.testing.assert_array_equal(np.asarray(row.low), -np.asarray(row.high))
        elif scheme == "w8a16":
            assert float(row.low) == pytest.approx(-float(row.high) * 32768 / 32767, rel=1e-6)
        elif row.layer in ("c", "r6", "r"):
            assert float(row.low) == 0.0
        else:
            assert float(row.low) <= 0.0 < float(row.high)


def test_learning_lowers_the_loss_of_a_bad_range():
    """A range twenty times too wide leaves 13 codes: gradients narrow it to what serves."""
    i = keras.Input((4,), name="x")
    model = keras.Model(i, L.Dense(4, use_bias=False, name="d")(i))
    model.set_weights([np.eye(4, dtype="float32")])
    x = RNG.uniform(-1, 1, size=(512, 4)).astype("float32")
    losses = {}
    for mode in ("fixed", "learned"):
        aware = quant.quantize_aware(model, calibration=x, ranges=mode)
        row = next(r for r in ranges(aware) if r.layer == "d" and r.role == "output")
        row.low.assign(-20.0)
        row.high.assign(20.0)
        aware.compile(keras.optimizers.Adam(0.05), "mse")
        losses[mode] = aware.fit(x, x, batch_size=64, epochs=60, verbose=0).history["loss"]
    assert losses["learned"][-1] < 0.2 * losses["fixed"][-1]
    low, high = float(row.low), float(row.high)
    assert -10 < low <= -0.5 and 0.5 <= high < 10


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_learned_ranges_never_cross(scheme):
    aware = trained(network(), keras.optimizers.SGD(1e4), ranges="learned", scheme=scheme, epochs=2)
    for row in ranges(aware):
        if row.role != "weight":
            low, high = float(row.low), float(row.high)
            assert low <= 0.0 < high
            assert row.layer != "r6" or high <= 6.0


def test_ranges_learn_from_the_first_batch_without_calibration():
    for scheme in ("w8a8", "w8a16"):
        aware = quant.quantize_aware(network(), scheme, ranges="learned")
        assert unset_ranges(aware)
        aware.compile(keras.optimizers.SGD(0.0), "mse")
        aware.fit(X[:16], np.zeros((16, 3)), batch_size=16, verbose=0)
        assert unset_ranges(aware) == []
        low, high = activation_ranges(aware)["quantize_x", "output"]
        most = np.abs(X[:16]).max()
        wanted = (X[:16].min(), X[:16].max()) if scheme == "w8a8" else (-most, most)
        np.testing.assert_allclose((low, high), wanted, rtol=1e-4)


def test_weight_decay_can_spare_ranges():
    aware = quant.quantize_aware(network(), calibration=X, ranges="learned")
    optimizer = keras.optimizers.SGD(1e-9, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=list(quant.RANGE_NAMES))
    before = activation_ranges(aware)
    kernel = aware.get_layer("quant_c").layer.kernel.numpy()
    aware.compile(optimizer, "mse")
    aware.optimizer.learning_rate = 1.0
    aware.compile(optimizer, lambda y, p: 0.0 * tf.reduce_sum(p))
    aware.fit(X[:16], np.zeros((16, 3)), batch_size=16, verbose=0)
    after = activation_ranges(aware)
    for key, ends in before.items():
        np.testing.assert_allclose(after[key], ends, rtol=1e-6)
    np.testing.assert_allclose(aware.get_layer("quant_c").layer.kernel, 0.5 * kernel, rtol=1e-5)


def test_codes_are_used_from_the_first_step():
    """tfmot's ranges leave most codes of a short training unused; calibrated ones use them all."""
    from tensorflow_model_optimization.quantization.keras import quantize_model

    i = keras.Input((8, 8, 2), name="x")
    x = L.Conv2D(8, 3, name="c")(i)
    model = keras.Model(i, L.Conv2D(4, 3, name="c2")(L.ReLU(name="r")(x)))
    used = {}
    for name, aware in {
        "stock": quantize_model(model),
        **{m: quant.quantize_aware(model, calibration=X, ranges=m) for m in MODES},
    }.items():
        aware.compile(keras.optimizers.SGD(1e-4), "mse")
        aware.fit(X, np.zeros((64, 4, 4, 4)), batch_size=64, verbose=0)
        used[name] = []
        for layer in ("quant_r", "quant_c2"):
            values = keras.Model(aware.inputs, aware.get_layer(layer).output)(X).numpy()
            step = np.diff(np.unique(values)).min()
            used[name].append(np.ptp(np.round(values / step)) / 255)
    assert max(used["stock"]) < 0.5
    assert all(min(used[m]) > 0.98 for m in MODES), used


def test_inference_takes_the_kernel_as_it_is():
    """tfmot keeps the range of the last training step, which the optimizer then leaves."""
    aware = trained(network(), keras.optimizers.SGD(0.5))
    for row in ranges(aware):
        if row.role == "weight":
            layer = aware.get_layer(f"quant_{row.layer}").layer
            kernel = np.abs(next(w for w in layer.weights if "kernel" in w.name).numpy())
            axes = {"c": (0, 1, 2), "p": (0, 1, 2), "dw": (0, 1, 3), "d": 0}[row.layer]
            np.testing.assert_array_equal(np.asarray(row.high), kernel.max(axes))


@pytest.mark.parametrize(("axis", "shape"), [
    ("channel", (3, 3, 2, 4)), ("depthwise", (3, 3, 4, 2)), ("tensor", (6, 5)),
])  # fmt: skip
def test_four_bit_kernels(axis, shape):
    quantizer = WeightQuantizer(axis, 4)
    kernel = tf.Variable(RNG.normal(size=shape).astype("float32"))
    variables = quantizer.with_ends(quantizer.build(shape, "w", L.Layer()), kernel)
    limit = variables["max_var"].numpy()
    out = quantizer(kernel, True, variables).numpy().reshape(-1, limit.size)
    codes = out / (limit.ravel() / 7)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
    assert np.abs(np.round(codes)).max() == 7
    with pytest.raises(InputError, match="4 or 8 bits"):
        WeightQuantizer(axis, 6)


def test_weight_bits_are_carried_by_the_config():
    config = quant.configs.LayerConfig({"kernel": "tensor"}, output="range", weight_bits=4)
    layer = quant.configs.TfedgeQuantizeWrapper(L.Dense(3, name="d"), config)
    layer(keras.Input((5,)))
    rows = {r.role: r.bits for r in ranges(keras.Sequential([keras.Input((5,)), layer]))}
    assert rows == {"weight": 4, "output": 8}
    again = quant.configs.LayerConfig.from_config(config.get_config())
    assert again.get_config() == config.get_config()
    assert config.changed(activation_bits=16).simulation.weight_bits == 4


def test_dead_channels_and_kernels_stay_zero():
    for axis, shape in (("channel", (3, 3, 2, 4)), ("tensor", (6, 5))):
        quantizer = WeightQuantizer(axis)
        kernel = tf.Variable(tf.zeros(shape))
        variables = quantizer.with_ends({}, kernel)
        np.testing.assert_array_equal(quantizer(kernel, True, variables), np.zeros(shape))
        assert variables["max_var"].numpy().min() == 1.0  # A scale of 0 would break the bias.


OPTIMIZERS = [
    lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    lambda: keras.optimizers.AdamW(1e-3, weight_decay=1e-2),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mode", ["moving_average", "learned"])
def test_sparse_kernels_keep_their_zeros(optimizer, mode, tmp_path):
    model = network()
    zeros = {}
    for name in ("c", "dw", "p", "d"):
        layer = model.get_layer(name)
        weights = layer.get_weights()
        weights[0] = np.where(RNG.random(weights[0].shape) < 0.6, 0, weights[0]).astype("float32")
        layer.set_weights(weights)
        zeros[name] = weights[0] == 0
    aware = trained(model, optimizer(), epochs=2, ranges=mode, preserve="sparsity")
    aware.save(tmp_path / "s.keras")
    aware = tfedge.load_model(tmp_path / "s.keras")
    aware.compile(optimizer(), "mse")
    aware.fit(X, np.ones((64, 3)), verbose=0)
    for name, zero in zeros.items():
        after = aware.get_layer(f"quant_{name}").layer.get_weights()[0]
        np.testing.assert_array_equal(after == 0, zero)
        assert not np.array_equal(after, model.get_layer(name).get_weights()[0])
    files = kernel_codes(lower(aware, "w8a8"))
    assert set(files) == set(zeros)
    for name, codes in files.items():
        assert np.mean(codes == 0) >= np.mean(zeros[name])
    with pytest.raises(InputError, match="nothing to preserve"):
        quant.quantize_aware(network(), calibration=X, preserve="sparsity")


def kernel_codes(data):
    """The int8 kernels of a file by layer, channels last."""
    model = flatbuffer.read(data)
    graph, found = model.subgraphs[0], {}
    names = ("c", "dw", "p", "d")
    for tensor in graph.tensors:
        buffer = model.buffers[tensor.buffer].data
        if buffer is None or flatbuffer.tensor_dtype(tensor) != "int8" or tensor.shape is None:
            continue
        codes = np.frombuffer(bytes(buffer), np.int8).reshape(tensor.shape)
        layer = (flatbuffer.tensor_name(tensor) + "/").split("/")[1]
        if codes.ndim >= 2 and layer in names:
            found[layer] = codes if layer == "dw" else np.moveaxis(codes, 0, -1)
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_clustered_kernels_keep_their_clusters(optimizer, tmp_path):
    model = network()
    centroids = np.array([-0.4, -0.1, 0.0, 0.2, 0.5], "float32")
    for name in ("c", "dw", "p", "d"):
        layer = model.get_layer(name)
        weights = layer.get_weights()
        weights[0] = centroids[RNG.integers(0, 5, weights[0].shape)]
        layer.set_weights(weights)
    aware = trained(model, optimizer(), epochs=2, preserve="clusters")
    aware.save(tmp_path / "c.keras")
    aware = tfedge.load_model(tmp_path / "c.keras")
    aware.compile(optimizer(), "mse")
    aware.fit(X, np.ones((64, 3)), verbose=0)
    for name in ("c", "dw", "p", "d"):
        before = model.get_layer(name).get_weights()[0]
        after = aware.get_layer(f"quant_{name}").layer.get_weights()[0]
        np.testing.assert_array_equal(after == 0, before == 0)
        for value in np.unique(before):
            assert np.ptp(after[before == value]) < 1e-6
        assert not np.array_equal(after, before)
    files = kernel_codes(lower(aware, "w8a8"))
    assert set(files) == {"c", "dw", "p", "d"}
    for codes in files.values():
        for channel in range(codes.shape[-1]):
            assert len(np.unique(codes[..., channel])) <= 5
    with pytest.raises(InputError, match="nothing to preserve"):
        quant.quantize_aware(network(), calibration=X, preserve="clusters")
    with pytest.raises(InputError, match="only zeros or clusters"):
        quant.quantize_aware(network(), calibration=X, preserve="zeros")


def test_a_centroid_moves_by_the_sum_of_its_gradients():
    kernel = tf.Variable([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]])
    clusters = tf.constant([[1, 2], [1, 2], [0, 1]])
    weights = tf.constant([[1.0, 10.0], [2.0, 20.0], [5.0, 4.0]])
    with tf.GradientTape() as tape:
        merged = quant.preserving.kept("clusters", kernel, {"clusters": clusters})
        total = tf.reduce_sum(weights * merged)
    np.testing.assert_array_equal(merged, kernel)
    np.testing.assert_array_equal(tape.gradient(total, kernel), [[7, 30], [7, 30], [0, 7]])


def test_training_may_be_a_tensor():
    quantizer = ActivationQuantizer(8)
    variables = quantizer.build(None, "a", L.Layer())

    @tf.function(input_signature=[tf.TensorSpec([None]), tf.TensorSpec([], tf.bool)])
    def run(x, training):
        return quantizer(x, training, variables)

    run(tf.constant([-1.0, 3.0]), tf.constant(False))
    assert (float(variables["min_var"]), float(variables["max_var"])) == (-6.0, 6.0)
    run(tf.constant([-1.0, 3.0]), tf.constant(True))
    assert (float(variables["min_var"]), float(variables["max_var"])) == (-1.0, 3.0)
    run(tf.constant([-9.0, 9.0]), tf.constant(False))
    assert (float(variables["min_var"]), float(variables["max_var"])) == (-1.0, 3.0)
    run(tf.constant([-2.0, 3.0]), tf.constant(True))
    assert float(variables["min_var"]) == pytest.approx(-1.001)


def test_a_relu6_range_wider_than_its_relu_is_still_clipped():
    model = keras.Sequential([keras.Input((1,), name="x"), L.ReLU(6.0, name="r")])
    aware = quant.quantize_aware(model, calibration=np.array([[0.0], [9.0]], "float32"))
    next(r for r in ranges(aware) if r.layer == "r").high.assign(12.0)
    assert aware(np.array([[9.0]], "float32")).numpy()[0, 0] == pytest.approx(6.0, abs=0.03)


MIRRORED = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfedge import quant
from tfedge._keras import keras
from tfedge.quantized import ranges

L = keras.layers
x = np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype("float32")
x[20] *= 3  # The second replica's share has the extreme values.
y = np.random.default_rng(1).integers(0, 3, 32)

def train(mode, calibration, preserve):
    keras.utils.set_random_seed(0)
    i = keras.Input((8, 8, 2), name="x")
    h = L.Conv2D(4, 3, activation="relu", name="c")(i)
    h = L.ReLU(6.0, name="r")(L.DepthwiseConv2D(3, name="dw")(h))
    model = keras.Model(i, L.Dense(3, name="d")(L.Flatten(name="f")(h)))
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([np.sign(kernel) * (np.abs(kernel) > 0.1) * 0.2, bias])
    aware = quant.quantize_aware(model, calibration=calibration, ranges=mode, preserve=preserve)
    aware.compile(keras.optimizers.SGD(0.01),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    aware.fit(x, y, batch_size=32, epochs=2, verbose=0, shuffle=False)
    rows = [np.ravel([r.low.numpy(), r.high.numpy()]) for r in ranges(aware)]
    return np.concatenate([*rows, *(np.ravel(w) for w in aware.get_weights())])

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
for mode, calibration, preserve in (
    ("moving_average", None, "clusters"), ("fixed", x, "sparsity"), ("learned", x[:8], ""),
):
    alone = train(mode, calibration, preserve)
    with strategy.scope():
        together = train(mode, calibration, preserve)
    np.testing.assert_allclose(together, alone, rtol=2e-4, atol=2e-5, err_msg=mode)
print("equal")
"""


@pytest.mark.slow
def test_two_replicas_train_as_one():
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]

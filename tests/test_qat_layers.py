"""quant: each layer kind of tests/qat_layers.py is integer and agrees, or is listed with why."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tfedge
from tests.qat_layers import CASES, MAP, RECURRENTS, SEQ
from tests.reference import difference
from tests.run_file import RESOLVERS, float_ops, op_names, run, steps_apart
from tfedge import quant
from tfedge._keras import keras, tf
from tfedge.graph.trace import trace
from tfedge.lower import lower
from tfedge.quant.divisors import divisor_bounds
from tfedge.quant.normalise import normalise
from tfedge.quantized import ranges
from tfedge.tflite import flatbuffer

L = keras.layers

FLOAT = {
    "x / y": "divisor's range is not known; give calibration data",
}
"""What has no integer form, and what is said about it."""

WITH_8_BITS = {
    "PReLU": "PRELU",
    "depth_to_space": "DEPTH_TO_SPACE",
    "space_to_depth": "SPACE_TO_DEPTH",
    "tf.tile": "TILE",
}
"""What is quantized as w8a8 where w8a16 was asked for: the op without an int16 kernel."""

AGREEING = {
    "w8a8": (
        "Conv3D", "Conv3DTranspose", "Conv3DTranspose strided", "LocallyConnected2D",
        "LocallyConnected1D", "ConvLSTM2D", "Conv2DTranspose", "Conv1DTranspose", "DepthwiseConv1D",
        "SeparableConv1D strided", "Dense 3-D", "EinsumDense abcd,cde->abe",
        "EinsumDense abc,bd->adc", "TimeDistributed(Conv2D)", "BatchNormalization twice",
        "BatchNormalization axis 1", "LayerNormalization", "LayerNormalization axis 1",
        "GroupNormalization", "UnitNormalization", "Rescaling channels", "activation elu",
        "activation softplus", "activation mish", "activation softsign", "activation hard_sigmoid",
        "keras3 hard_silu", "log_softmax", "activation gelu tanh", "ReLU max 1", "ReLU slope max",
        "Softmax axis 1", "MobileNetV3 hard_swish", "MobileNetV3 hard_sigmoid", "MaxPooling3D",
        "Resizing bilinear", "Multiply broadcast", "Squeeze and excite", "Average of three",
        "Concatenate same", "Dot 3-D", "Attention scaled self", "AdditiveAttention",
        "MultiHeadAttention cross", "MultiHeadAttention causal", "MultiHeadAttention mask",
        "Attention causal", "AdditiveAttention causal", "Softmax mask", "scores + mask",
        "x + positions", "x / y", "x / -y", "2 / y", "x / sum", "ReLU threshold",
        "ReLU threshold slope max", "ThresholdedReLU", "LSTM sequences", "GRU",
        "Bidirectional(LSTM)",
        "StackedRNNCells", "tf.stack", "tf.split", "tf.einsum heads", "tf.reduce_sum",
        "tf.clip_by_value", "tf.reverse",
    ),
    "w8a16": (
        "Dense relu", "Conv3DTranspose strided", "LocallyConnected2D", "ConvLSTM2D",
        "ReLU threshold", "x / sum", "Conv2DTranspose relu", "LayerNormalization 3-D",
        "activation gelu",
        "activation selu", "activation relu6", "keras3 celu", "PReLU shared", "Add broadcast",
        "RepeatVector", "MultiHeadAttention", "MultiHeadAttention causal", "scores + mask",
        "x + positions", "positions - x", "x * positions", "LSTM", "tf.reduce_min", "tf.sqrt",
    ),
}  # fmt: skip
"""Layers whose file is compared with the simulation; all of them: benchmarks/layer_zoo.py."""

_STEPS = {"w8a8": 3.01, "w8a16": 128.0}
"""Allowed distance. A 16-bit step of 1/65536 is nothing; a half of an 8-bit one is the measure."""


@pytest.mark.parametrize("name", [n for n in CASES if n not in FLOAT])
def test_what_is_written_equals_the_layer(name):
    case = CASES[name]
    model, data = case.alone(), case.data(8)
    flat = [tf.constant(data[n]) for n in model.input_names]
    want = [t.numpy() for t in tf.nest.flatten(model(flat, training=False))]
    for scheme in ("w8a8", "w8a16") if "gelu" in name else ("w8a8",):
        graph = trace(model)
        made = normalise(graph, scheme, bounds=divisor_bounds(graph, data))
        assert made.refused == []
        got = [t.numpy() for t in tf.nest.flatten(made.model(flat, training=False))]
        assert difference(got, want) < 1e-4


@pytest.mark.parametrize(
    ("scheme", "name"), [(s, n) for s, names in AGREEING.items() for n in names]
)
def test_integer_and_as_simulated(scheme, name):
    case = CASES[name]
    model, data = case.alone(), case.data()
    with warnings.catch_warnings():
        warnings.simplefilter("error", quant.QuantizationWarning)
        aware = quant.quantize_aware(model, scheme, data)
    file = lower(aware, scheme)
    assert float_ops(file) == []
    tight = _STEPS[scheme] if name not in RECURRENTS else 6.01
    for resolver in RESOLVERS:
        apart = steps_apart(aware, file, data, resolver)
        assert apart.max() <= (tight if scheme == "w8a8" else _STEPS[scheme])
        assert np.mean(apart <= _STEPS[scheme] - 1) > 0.98


@pytest.mark.parametrize("name", FLOAT)
def test_what_has_no_form_is_listed_with_the_reason(name):
    with pytest.warns(quant.QuantizationWarning, match=FLOAT[name]):
        quant.quantize_aware(CASES[name].inside())


@pytest.mark.parametrize("name", WITH_8_BITS)
def test_what_has_no_int16_kernel_gets_8_bits(name):
    said = f"is quantized as w8a8: TFLite has no int16 {WITH_8_BITS[name]}"
    with pytest.warns(quant.QuantizationWarning, match=said):
        quant.quantize_aware(CASES[name].alone(), "w8a16")


@pytest.mark.parametrize("name", ["MultiHeadAttention causal", "Attention causal", "scores + mask"])
def test_masks_leave_8_bits_their_accuracy(name):
    model, data = CASES[name].alone(), CASES[name].data()
    want, got = (m(data["x0"]).numpy() for m in (model, quant.quantize_aware(model, "w8a8", data)))
    assert 10 * np.log10(np.sum(want**2) / np.sum((want - got) ** 2)) >= 25


def test_what_a_causal_mask_hides_moves_nothing_but_roundings():
    case = CASES["MultiHeadAttention causal"]
    model, data = case.alone(), case.data()
    later = {"x0": np.concatenate([data["x0"][:, :3], data["x0"][::-1, 3:]], axis=1)}
    file = lower(quant.quantize_aware(model, "w8a8", data), "w8a8")
    (a, step, _), (b, _, _) = (next(iter(run(file, d).values())) for d in (data, later))
    assert np.abs(a - b)[:, :3].max() <= 4.01 * step
    assert np.abs(a - b)[:, 3:].max() > 20 * step


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
@pytest.mark.parametrize("theta", [0.0, 0.02, 9.0])
def test_a_threshold_may_lie_anywhere(scheme, theta):
    model = keras.Sequential([keras.Input((6,), name="x"), L.ThresholdedReLU(theta)])
    x = {"x": np.random.default_rng(0).normal(size=(64, 6)).astype("float32")}
    aware = quant.quantize_aware(model, scheme, x)
    file = lower(aware, scheme)
    assert float_ops(file) == []
    for resolver in RESOLVERS:
        assert steps_apart(aware, file, x, resolver).max() <= 2.01
    want, got = model(x["x"]).numpy(), aware(x["x"]).numpy()
    assert np.mean(np.abs(want - got)) < 0.005


def test_a_threshold_has_the_gradient_of_keras():
    layer = L.ThresholdedReLU(0.5)
    model = keras.Sequential([keras.Input((4,), name="x"), layer])
    x = tf.constant([[-1.0, 0.2, 0.7, 2.0]])
    aware = quant.quantize_aware(model, "w8a8", x.numpy())
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(aware(x, training=True))
    np.testing.assert_allclose(tape.gradient(y, x), [[0, 0, 1, 1]], atol=0.01)


def test_recurrent_dropout_is_said_to_be_left_out():
    model = keras.Sequential([keras.Input(SEQ), L.Bidirectional(L.LSTM(3, recurrent_dropout=0.3))])
    x = np.random.default_rng(0).normal(size=(16, *SEQ)).astype("float32")
    said = r"\(LSTM\): recurrent_dropout=0.3 is left out"
    with pytest.warns(quant.QuantizationWarning, match=said):
        aware = quant.quantize_aware(model, calibration=x, strict=True)
    assert any("recurrent_dropout" in note for note in quant.report(aware).notes)
    assert float_ops(lower(aware, "w8a8")) == []


def test_a_division_needs_a_divisor_away_from_0():
    i, j = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model, rng = keras.Model([i, j], L.Dense(2)(i / j)), np.random.default_rng(0)
    a, away = (rng.uniform(1, 2, (32, 4)).astype("float32") for _ in range(2))
    for near, said in ((away - 1.5, "0 is no divisor"), (away - 0.99, "too few codes")):
        with pytest.warns(quant.QuantizationWarning, match=said):
            aware = quant.quantize_aware(model, "w8a8", {"a": a, "b": near})
        assert "DIV" in op_names(lower(aware, "w8a8"))
    batches = iter([{"a": a, "b": away}])  # read twice: for the divisor, and for all ranges
    assert float_ops(lower(quant.quantize_aware(model, "w8a8", batches), "w8a8")) == []


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_a_causal_mask_of_keras_3_is_integer(scheme):
    import keras as keras3

    i = keras3.Input(SEQ, name="x")
    y = keras3.layers.MultiHeadAttention(2, 3, name="m")(i, i, use_causal_mask=True)
    y = keras3.layers.Attention(name="a")([y, i], use_causal_mask=True)
    x = np.random.default_rng(0).normal(size=(32, *SEQ)).astype("float32")
    aware = quant.quantize_aware(keras3.Model(i, y), scheme, x)
    file = lower(aware, scheme)
    assert float_ops(file) == []
    assert steps_apart(aware, file, {"x": x}).max() <= _STEPS[scheme]


def test_masks_from_data_stay_float_with_the_reason():
    i = keras.Input((5,), dtype="int32")
    x = L.Embedding(9, 6, mask_zero=True)(i)
    model = keras.Model(i, L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True))
    with pytest.warns(quant.QuantizationWarning, match="computed from data while the model runs"):
        quant.quantize_aware(model)


def _normed():
    i = keras.Input((4, 16), name="x")
    x = L.LayerNormalization(name="ln")(i)
    x = L.Add(name="sum")([x, L.MultiHeadAttention(2, 4, name="mha")(x, x)])
    x = L.GRU(5, name="gru")(L.Dense(8, activation="mish", name="up")(x))
    return keras.Model(i, L.Dense(3, name="head")(x))


def test_forms_learn_and_survive_a_file(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4, 16)).astype("float32")
    model = _normed()
    aware = quant.quantize_aware(model, calibration=x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(aware(x, training=True) - 1.0))
    gradients = tape.gradient(loss, aware.trainable_weights)
    for weight, gradient in zip(aware.trainable_weights, gradients, strict=True):
        # Softmax does not feel what all keys share.
        zero = "key" in weight.name and "bias" in weight.name
        assert gradient is not None and (zero or np.any(gradient)), weight.name
        assert np.all(np.isfinite(gradient)), weight.name
    assert len(aware.trainable_weights) == len(model.trainable_weights) + 1  # GRU's two biases
    aware.save(tmp_path / "aware.keras")
    again = tfedge.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(aware(x), again(x))
    assert lower(again, "w8a8") == lower(aware, "w8a8")
    wide = quant.to_16x8(again)
    assert steps_apart(wide, lower(wide, "w8a16"), {"x": x}).max() <= 256


def test_overrides_reach_into_forms_and_can_keep_a_layer_whole():
    x = np.random.default_rng(0).normal(size=(32, 4, 16)).astype("float32")
    given = {"ln": "float", "mha": "w8a16"}
    aware = quant.quantize_aware(_normed(), "w8a8", x, overrides=given)
    assert isinstance(aware.get_layer("ln"), L.LayerNormalization)
    bits = {r.layer: r.bits for r in ranges(aware) if r.role != "weight"}
    assert {b for n, b in bits.items() if n.startswith("mha_") and "boundary" not in n} == {16}
    assert bits["head"] == 8
    file = tfedge.convert(aware, "w8a8")
    floats = set(file.meta["float_layers"])
    assert {n for n in floats if not n.endswith("_dense_in")} == {"ln"}  # reshapes move floats
    with pytest.raises(tfedge.errors.InputError, match="names no layer"):
        quant.quantize_aware(_normed(), overrides={"mha_query": "float"})


def test_masks_are_refused():
    i = keras.Input((5,), dtype="int32")
    x = L.Embedding(10, 4, mask_zero=True)(i)
    model = keras.Model(i, L.Dense(2)(L.LSTM(3, name="lstm")(x)))
    with pytest.warns(quant.QuantizationWarning, match=r"'lstm' \(LSTM\) stays float: masks"):
        quant.quantize_aware(model)
    i = keras.Input((None, 4))
    model = keras.Model(i, L.Dense(2)(L.GRU(3)(i)))
    with pytest.warns(quant.QuantizationWarning, match="number of steps is free"):
        quant.quantize_aware(model)


def _uneven(layer, axis):
    """Kernels whose channels differ by a factor of 100."""
    kernel = layer.kernel.numpy()
    shape = [1] * kernel.ndim
    shape[axis] = -1
    layer.kernel.assign(kernel * np.geomspace(0.01, 1, kernel.shape[axis]).reshape(shape))


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16", "w4a8"])
@pytest.mark.parametrize(
    ("make", "axis", "op"),
    [
        (lambda: L.Dense(6, name="k"), -1, "FULLY_CONNECTED"),
        (lambda: L.Conv2DTranspose(6, 3, strides=2, name="k"), 2, "TRANSPOSE_CONV"),
    ],
)
def test_one_scale_a_channel_where_the_converter_has_none(scheme, make, axis, op):
    shape = (8,) if op == "FULLY_CONNECTED" else MAP
    model = keras.Sequential([keras.Input(shape, name="x"), make()])
    _uneven(model.get_layer("k"), axis)
    model.get_layer("k").bias.assign(np.linspace(-0.1, 0.1, 6))
    x = np.random.default_rng(0).normal(size=(64, *shape)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", quant.QuantizationWarning)
        aware = quant.quantize_aware(model, scheme, x)
    exact = "w8a8" if scheme == "w4a8" and op == "TRANSPOSE_CONV" else scheme
    file = tfedge.convert(aware, exact)
    row = next(r for r in file.certificate if r.op == op)
    assert row.delegated == (scheme != "w8a16")
    if scheme == "w8a16" and op == "FULLY_CONNECTED":
        assert row.types == "int16,int8,int32->int16"  # the fast kernel's bias
    content = flatbuffer.read(file.data)
    scales = [len(t.quantization.scale) for t in content.subgraphs[0].tensors if _is_kernel(t)]
    assert scales == [6]
    for resolver in RESOLVERS:
        assert steps_apart(aware, file.data, {"x": x}, resolver).max() <= 1.01
    # The smallest channel would be all zeros with the largest's scale in 4 bits, and coarse in 8.
    real = model(x).numpy().reshape(-1, 6)[:, 0]
    simulated = aware(x).numpy().reshape(-1, 6)[:, 0]
    assert np.abs(real - simulated).max() < np.abs(model(x).numpy()).max() / 64


def _is_kernel(tensor):
    dtype = flatbuffer.tensor_dtype(tensor)
    return (
        dtype in ("int8", "int4")
        and tensor.buffer
        and len(np.ravel(tensor.shape)) in (2, 4)
        and (tensor.quantization is not None and len(tensor.quantization.scale) > 1)
    )


def test_shared_dense_and_equal_kernels_get_their_scales():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared, twin = L.Dense(3, name="shared"), L.Dense(3, name="twin")
    model = keras.Model([a, b], L.Concatenate()([shared(a), shared(b), twin(a)]))
    _uneven(shared, -1)
    twin.set_weights(shared.get_weights())
    rng = np.random.default_rng(0)
    data = {k: s * rng.normal(size=(32, 4)).astype("float32") for k, s in (("a", 1), ("b", 5))}
    aware = quant.quantize_aware(model, calibration=data)
    assert steps_apart(aware, lower(aware, "w8a8"), data).max() <= 2.01


def test_constants_are_merged_into_their_neighbours():
    i = keras.Input(MAP, name="x")
    x = L.ReLU(6.0, name="r")(L.Conv2D(4, 1, name="c")(i) + 3.0) * (1.0 / 6.0)
    model = keras.Model(i, L.Multiply(name="m")([x, i]))
    data = np.random.default_rng(0).normal(size=(16, *MAP)).astype("float32")
    aware = quant.quantize_aware(model, calibration=data)
    assert op_names(lower(aware, "w8a8")) == ["CONV_2D", "MUL"]
    np.testing.assert_allclose(
        normalise(trace(model)).model(data), model(data), rtol=1e-5, atol=1e-5
    )


def test_a_file_lists_only_op_codes_that_it_uses():
    i = keras.Input(SEQ, name="x")
    model = keras.Model(i, L.Dense(2)(tf.math.sin(L.Dense(3)(i))))
    x = np.random.default_rng(0).normal(size=(8, *SEQ)).astype("float32")
    with pytest.warns(quant.QuantizationWarning):
        file = lower(quant.quantize_aware(model, calibration=x), "w8a8")
    content = flatbuffer.read(file)
    used = {int(op.opcodeIndex) for _, _, op in flatbuffer.operators(content)}
    assert used == set(range(len(content.operatorCodes)))
    run(file, {"x": x}, RESOLVERS[2])  # The reference kernels know no ELU, which stood in.

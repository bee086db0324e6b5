"""tflite/rewrite and standins: integer ends, bias types, names, ops put back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.run_file import float_ops, op_names, run
from tfedge._keras import keras
from tfedge.errors import ConversionError
from tfedge.lower import lower
from tfedge.tflite import flatbuffer as fb
from tfedge.tflite import int16_bias, int16_bounds, rewrite, standins

L = keras.layers
RNG = np.random.default_rng(2)
X = {"x": RNG.normal(size=(16, 8, 8, 4)).astype("float32")}


def network(scale=1.0):
    i = keras.Input((8, 8, 4), name="x")
    x = L.Conv2D(8, 3, activation="relu", name="conv")(i)
    x = L.DepthwiseConv2D(3, activation="relu", name="dw")(x)
    model = keras.Model(i, L.Dense(3, name="fc")(L.Flatten()(x)))
    for w in model.weights:
        w.assign(scale * RNG.normal(size=w.shape))
    return model


@pytest.fixture(scope="module")
def wide():
    """w8a16 with float ends, by calibration: all biases int64 in CONV and FC too, before."""
    return network()


def biases(data):
    model = fb.read(data)
    found = {}
    for _, graph, op in fb.operators(model):
        name = fb.op_name(model, op)
        if name in int16_bias.BIAS_OPS and len(op.inputs) > 2 and op.inputs[2] >= 0:
            found[name] = fb.tensor_dtype(graph.tensors[op.inputs[2]])
    return found


def stock(model, monkeypatch):
    """The file as the converter makes it, its biases untouched."""
    with monkeypatch.context() as patch:
        patch.setattr(int16_bias, "fit_int16_biases", lambda m: [])
        return lower(model, "w8a16", calibration=X)


def test_16x8_biases_are_what_the_kernels_want(wide, monkeypatch):
    data = lower(wide, "w8a16", calibration=X)
    before = stock(wide, monkeypatch)
    assert set(biases(before).values()) == {"int64"}
    want = {"CONV_2D": "int32", "DEPTHWISE_CONV_2D": "int64", "FULLY_CONNECTED": "int32"}
    assert biases(data) == want
    a, b = run(data, X)["fc"], run(before, X)["fc"]
    assert np.abs(a[0] - b[0]).max() / a[1] <= 8  # Three ops with other roundings, 65536 steps.


def fits(weights, bias):
    ends = np.array([-32768]), np.array([32767])
    sums = int16_bounds.largest_sums(weights[:, :, None], *ends, bias)
    return bool(np.all(sums < 2**31))


def test_a_sum_that_can_overflow_keeps_int64(wide):
    """A kernel of 3x3x4096 full weights could pass 2^31: 127*36864*32768."""
    model = fb.read(lower(wide, "w8a16", calibration=X))
    graph = model.subgraphs[0]
    fc = next(o for o in graph.operators if fb.op_name(model, o) == "FULLY_CONNECTED")
    weights = graph.tensors[fc.inputs[1]]
    values = fb.tensor_data(model, weights)
    row = np.full_like(values, 127)
    limit = 2**31 // (127 * 32768)  # 516 weights of 127
    assert values.shape[1] < limit
    assert fits(row, None)
    many = np.full((2, limit + 1), 127, np.int8)
    assert not fits(many, None)
    just = np.full((1, limit), -127, np.int8)
    room = 2**31 - limit * 127 * 32768
    assert fits(just, np.array([room - 1]))
    assert not fits(just, np.array([room]))
    assert fits(just, np.array([-room]))  # Downwards codes reach 32767 only.
    assert not fits(just, np.array([-room - limit * 127]))


def test_overflow_decides_the_type_in_a_file():
    i = keras.Input((600,), name="x")
    model = keras.Model(i, L.Dense(2, name="fc", kernel_initializer="ones")(i))
    data = lower(model, "w8a16", calibration=RNG.uniform(-1, 1, (8, 600)).astype("float32"))
    assert biases(data) in ({}, {"FULLY_CONNECTED": "int64"})
    parsed = fb.read(data)
    op = next(o for _, _, o in fb.operators(parsed) if fb.op_name(parsed, o) == "FULLY_CONNECTED")
    assert op.builtinOptions.quantizedBiasType == 0
    x = {"x": np.ones((1, 600), "float32")}
    found = run(data, x)["fc"]
    assert np.isfinite(found[0]).all()


def test_shared_bias_is_copied(wide, monkeypatch):
    model = fb.read(stock(wide, monkeypatch))
    graph = model.subgraphs[0]
    conv, dw = (
        next(o for o in graph.operators if fb.op_name(model, o) == n)
        for n in ("CONV_2D", "DEPTHWISE_CONV_2D")
    )
    dw.inputs = np.array([*dw.inputs[:2], conv.inputs[2]], np.int32)
    old = fb.tensor_data(model, graph.tensors[conv.inputs[2]]).copy()
    int16_bias.fit_int16_biases(model)
    first, second = (graph.tensors[o.inputs[2]] for o in (conv, dw))
    assert (fb.tensor_dtype(first), fb.tensor_dtype(second)) == ("int32", "int64")
    np.testing.assert_array_equal(fb.tensor_data(model, first), old)
    np.testing.assert_array_equal(fb.tensor_data(model, second), old)


def test_clipped_bias_is_an_error(wide):
    model = fb.read(lower(wide, "w8a16", calibration=X))
    graph = model.subgraphs[0]
    conv = next(o for o in graph.operators if fb.op_name(model, o) == "CONV_2D")
    bias = graph.tensors[conv.inputs[2]]
    values = fb.tensor_data(model, bias).copy()
    values[0] = 2**31 - 1
    bias.buffer = fb.add_buffer(model, values)
    with pytest.raises(ConversionError, match="was clipped"):
        int16_bias.fit_int16_biases(model)


def test_strip_float_io(wide):
    data = lower(wide, "w8a8", calibration=X, io="float")
    model = fb.read(data)
    rewrite.strip_float_io(model)
    stripped = fb.write(model)
    assert float_ops(stripped) == []
    assert len(op_names(stripped)) == len(op_names(data)) - 2
    graph = fb.read(stripped).subgraphs[0]
    assert not [t for t in graph.tensors if fb.tensor_dtype(t) == "float32"]
    np.testing.assert_allclose(run(stripped, X)["fc"][0], run(data, X)["fc"][0], atol=1e-6)


def test_strip_leaves_float_models_alone(wide):
    data = lower(wide, "float32")
    model = fb.read(data)
    rewrite.strip_float_io(model)
    np.testing.assert_array_equal(run(fb.write(model), X)["fc"][0], run(data, X)["fc"][0])


def test_compact_drops_only_what_nothing_names(wide):
    data = fb.set_metadata(lower(wide, "float32"), {"a": 1})
    model = fb.read(data)
    spare = fb.schema.TensorT()
    spare.name, spare.shape, spare.buffer = "spare", [4], fb.add_buffer(model, np.zeros(4))
    model.subgraphs[0].tensors.insert(0, spare)
    graph = model.subgraphs[0]
    for op in graph.operators:
        op.inputs = np.array([i + 1 if i >= 0 else i for i in op.inputs], np.int32)
        op.outputs = np.array([i + 1 for i in op.outputs], np.int32)
    graph.inputs = [i + 1 for i in graph.inputs]
    graph.outputs = [i + 1 for i in graph.outputs]
    for entry in [*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs]:
        entry.tensorIndex += 1
    rewrite.compact(model)
    small = fb.write(model)
    assert "spare" not in [fb.tensor_name(t) for t in fb.read(small).subgraphs[0].tensors]
    assert fb.get_metadata(small) == {"a": 1}
    np.testing.assert_array_equal(run(small, X)["fc"][0], run(data, X)["fc"][0])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model/quant_a/b/Conv2D", "model/a/b/Conv2D"),
        ("model/quant_a/b_1/Conv2D;model/quant_c/Relu", "model/a/b_1/Conv2D;model/c/Relu"),
        ("quant_c", "c"),
        ("model/quant_cc/Relu", "model/quant_cc/Relu"),
        ("model/xquant_c/Relu", "model/xquant_c/Relu"),
    ],
)
def test_rename_layers(wide, name, wanted):
    model = fb.read(lower(wide, "float32"))
    model.subgraphs[0].tensors[0].name = name
    rewrite.rename_layers(model, {"quant_a/b": "a/b", "quant_c": "c"})
    assert fb.text(model.subgraphs[0].tensors[0].name) == wanted


def test_users_own_leaky_relu_stays():
    i = keras.Input((4,), name="x")
    model = keras.Model(i, L.LeakyReLU(0.3)(L.Dense(3)(i)))
    parsed = fb.read(lower(model, "float32"))
    standins.restore_functions(parsed, {"sigmoid": 0.12345671})
    assert "LEAKY_RELU" in op_names(fb.write(parsed))


def test_stand_in_that_cannot_be_read_is_an_error():
    i = keras.Input((4, 4, 2), name="x")
    model = keras.Model(i, L.MaxPooling2D()(L.ZeroPadding2D(2)(L.Conv2D(2, 1)(i))))
    parsed = fb.read(lower(model, "float32"))
    graph = parsed.subgraphs[0]
    pad = next(o for o in graph.operators if fb.op_name(parsed, o) == "PAD")
    graph.tensors[pad.outputs[0]].name = "model/tfedge_concat/Pad"
    with pytest.raises(ConversionError, match="could not be put back"):
        standins.restore_concatenations(parsed, "tfedge_concat")

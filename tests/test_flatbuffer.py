"""tflite/flatbuffer: what is read is written again unchanged; damage is a clear error."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.run_file import run
from tfedge._keras import keras
from tfedge.errors import InputError
from tfedge.lower import lower
from tfedge.tflite import flatbuffer as fb

L = keras.layers
X = {"in/put": np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")}


def small_model():
    i = keras.Input((8, 8, 3), name="in/put")
    x = L.Flatten()(L.Conv2D(4, 3, activation="relu", name="c")(i))
    return keras.Model(i, [L.Dense(3, name="p")(x), L.Dense(2, name="q")(x)])


@pytest.fixture(scope="module")
def file():
    return lower(small_model(), "w8a8", calibration=X)


def test_writing_keeps_everything(file):
    once = fb.write(fb.read(file))
    assert fb.write(fb.read(once)) == once
    for name, (values, step, dtype) in run(file, X).items():
        again = run(once, X)[name]
        np.testing.assert_array_equal(values, again[0])
        assert (step, dtype) == again[1:]


def test_op_options_sparsity_and_unknown_fields_survive(file):
    model = fb.read(file)
    op = next(o for _, _, o in fb.operators(model) if fb.op_name(model, o) == "CONV_2D")
    op.builtinOptions.dilationHFactor = 3
    tensor = model.subgraphs[0].tensors[0]
    tensor.sparsity = schema.SparsityParametersT()
    tensor.sparsity.traversalOrder = [0, 1, 2, 3]
    model.description = "made by a test"
    again = fb.read(fb.write(model))
    op = next(o for _, _, o in fb.operators(again) if fb.op_name(again, o) == "CONV_2D")
    assert op.builtinOptions.dilationHFactor == 3
    assert list(again.subgraphs[0].tensors[0].sparsity.traversalOrder) == [0, 1, 2, 3]
    assert fb.text(again.description) == "made by a test"


def test_constants_lie_on_16_byte_borders(file):
    data = fb.write(fb.read(file))
    table = schema.Model.GetRootAs(data, 0)
    checked = 0
    for i in range(table.BuffersLength()):
        buffer = table.Buffers(i)
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0
            checked += 1
    assert checked >= 6


def test_truncated_files_are_input_errors(file):
    for size in (0, 4, 7, 8, 40, len(file) // 4, len(file) // 2, len(file) - 200):
        with pytest.raises(InputError):
            fb.read(file[:size])


def test_garbage_is_an_input_error_or_parses(file):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="not a TFLite file"):
        fb.read(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="damaged"):
        fb.read(b"\x20\0\0\0TFL3" + rng.bytes(500))
    refused = 0
    for _ in range(60):
        damaged = np.frombuffer(file, np.uint8).copy()
        damaged[rng.integers(8, len(file), 30)] = rng.integers(0, 256, 30)
        try:
            fb.read(damaged.tobytes())
        except InputError:
            refused += 1
    assert refused > 30


def test_numbers_out_of_range_are_refused(file):
    model = fb.read(file)
    model.subgraphs[0].tensors[1].buffer = 10_000
    with pytest.raises(InputError, match="names buffer 10000"):
        fb.read(fb.write(model))
    model = fb.read(file)
    model.subgraphs[0].operators[0].inputs = np.array([5000, 1, 2], np.int32)
    with pytest.raises(InputError, match="names a tensor outside"):
        fb.read(fb.write(model))


def test_buffers_behind_the_flatbuffer_are_taken_inline(file):
    """Files over 2 GB keep constants behind the flatbuffer, by file offset."""
    model = fb.read(file)
    sizes = [0 if b.data is None else len(b.data) for b in model.buffers]
    number = int(np.argmax(sizes))
    constant = bytes(bytearray(model.buffers[number].data))
    model.buffers[number].data = None
    for _ in range(2):  # The offset's own digits may move the end once.
        packed = _packed_with_offset(model, number, len(constant))
    data = packed + constant
    for name, (values, *_) in run(file, X).items():
        np.testing.assert_array_equal(values, run(fb.write(fb.read(data)), X)[name][0])
    with pytest.raises(InputError, match="damaged"):
        fb.read(packed + constant[:-1])


def _packed_with_offset(model, number, size):
    import flatbuffers

    buffer = model.buffers[number]
    buffer.offset, buffer.size = max(int(buffer.offset), 2), size
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), fb.IDENTIFIER)
    buffer.offset = len(builder.Output())
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), fb.IDENTIFIER)
    return bytes(builder.Output())


def test_metadata(file):
    assert fb.get_metadata(file) == {}
    facts = {"labels": ["a", "é"], "scale": 0.5, "deep": {"n": None}}
    data = fb.set_metadata(file, facts)
    assert fb.get_metadata(data) == facts
    again = fb.set_metadata(data, {"x": 1})
    assert fb.get_metadata(again) == {"x": 1}
    assert len(fb.read(again).metadata) == len(fb.read(data).metadata)
    for name, (values, *_) in run(file, X).items():
        np.testing.assert_array_equal(values, run(data, X)[name][0])
    with pytest.raises(InputError, match="no JSON"):
        fb.set_metadata(file, {"a": float("nan")})
    with pytest.raises(InputError, match="no JSON"):
        fb.set_metadata(file, {"a": object()})


def test_signature_names_and_orders(file):
    inputs, outputs = fb.get_signature(fb.read(file))
    swapped = {"second": outputs["q"], "first": outputs["p"]}
    data = fb.set_signature(file, {"image": inputs["in/put"]}, swapped)
    model = fb.read(data)
    assert list(fb.get_signature(model)[1]) == ["second", "first"]
    graph = model.subgraphs[0]
    assert [fb.tensor_name(graph.tensors[i]) for i in graph.outputs] == ["second", "first"]
    found = run(data, {"image": X["in/put"]})
    np.testing.assert_array_equal(found["second"][0], run(file, X)["q"][0])
    with pytest.raises(InputError, match="does not name the file's outputs"):
        fb.set_signature(file, inputs, {"only": outputs["p"]})


def test_tensor_data_and_op_names(file):
    model = fb.read(file)
    names = [fb.op_name(model, op) for _, _, op in fb.operators(model)]
    assert names == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED"]
    _, graph, conv = next(fb.operators(model))
    weights = fb.tensor_data(model, graph.tensors[conv.inputs[1]])
    assert (weights.shape, weights.dtype) == ((4, 3, 3, 3), np.int8)
    assert np.abs(weights).max() == 127
    assert fb.tensor_data(model, graph.tensors[conv.inputs[0]]) is None
    readers = fb.consumers(graph)
    assert len(readers[int(graph.operators[1].outputs[0])]) == 2

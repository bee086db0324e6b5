import math

import numpy as np
import pytest

from tests import tflite_files
from tfedge.errors import InputError
from tfedge.tflite import Interpreter, compare, flatbuffer


def case(name, kind="float", count=6):
    x = tflite_files.samples(name, count)
    return tflite_files.file(name, kind), x, tflite_files.outputs(name, x)


@pytest.mark.parametrize("name", ["image", "two"])
def test_a_float_file_hardly_drifts(name):
    data, x, ref = case(name)
    drift = compare(data, x, ref, tflite_files.activations(name, x))
    assert drift.sqnr_db > 100 and drift.cosine == pytest.approx(1.0)
    assert (drift.max_step, drift.within_one_step, drift.samples) == (0.0, 1.0, 6)
    assert drift.first_layer == "" and drift.worst_layer
    assert all(row.sqnr_db > 100 and row.max_step == 0 for row in drift.layers)


def test_every_fused_op_stands_for_the_right_layer():
    data, x, ref = case("image")
    rows = compare(data, x, ref, tflite_files.activations("image", x)).layers
    # The norm folded into the depthwise convolution is compared as itself, whatever name is left.
    assert [r.layer for r in rows] == ["relu", "bn_dw", "add", "gap", "p", "q"]


def test_an_8_bit_file_counts_in_steps():
    data, x, ref = case("image", "int8", 32)
    drift = compare(data, x, ref, tflite_files.activations("image", x))
    file = Interpreter(data)
    found = file.predict(x)
    steps = {s.name: np.abs(found[s.name] - ref[s.name]) / s.scale[0] for s in file.outputs}
    assert drift.max_step == pytest.approx(max(v.max() for v in steps.values()), abs=0.51)
    assert 0 < drift.within_one_step <= 1 and 20 < drift.sqnr_db < 60
    assert drift.first_layer == "" and drift.top1_agreement is not None
    exact = compare(data, x, found)
    assert (exact.max_step, exact.within_one_step, exact.sqnr_db) == (0, 1, math.inf)
    assert exact.layers == () and exact.top1_agreement == 1.0


def test_a_spoilt_weight_is_found_where_it_is():
    model = flatbuffer.read(tflite_files.file("image", "int8"))
    graph = model.subgraphs[0]
    op = next(o for o in graph.operators if flatbuffer.op_name(model, o) == "DEPTHWISE_CONV_2D")
    kernel = graph.tensors[op.inputs[1]]
    spoilt = -flatbuffer.tensor_data(model, kernel)
    kernel.buffer = flatbuffer.add_buffer(model, spoilt)
    _, x, ref = case("image")
    drift = compare(flatbuffer.write(model), x, ref, tflite_files.activations("image", x))
    assert drift.first_layer in ("dw", "bn_dw")
    assert {r.layer: r.sqnr_db > 20 for r in drift.layers}["relu"]


def test_a_quantized_reference_is_judged_by_steps():
    data, x, ref = case("image", "int8")
    layers = tflite_files.activations("image", x)
    scale = next(s for s in Interpreter(data).tensors().values() if "gap" in s.name and s.quantized)
    layers["gap"] = layers["gap"] + 8 * scale.scale[0]
    drift = compare(data, x, ref, {"gap": layers["gap"]}, quantized_reference=True)
    assert drift.first_layer == "gap" and drift.layers[0].max_step >= 6


def test_layers_may_cover_the_first_samples_only():
    data, x, ref = case("image")
    layers = {k: v[:2] for k, v in tflite_files.activations("image", x).items()}
    assert compare(data, x, ref, layers).samples == 6
    layers["gap"] = layers["gap"][:1]
    with pytest.raises(InputError, match="number of samples"):
        compare(data, x, ref, layers)


def test_larger_batches_and_free_axes_compare_alike():
    _, x, ref = case("image", count=5)
    layers = tflite_files.activations("image", x)
    for batch in (4, None):
        drift = compare(tflite_files.file("image", batch=batch), x, ref, layers)
        assert drift.sqnr_db > 100 and len(drift.layers) == 6


def test_outputs_go_by_name_and_else_by_order():
    data, x, ref = case("image")
    assert compare(data, x, dict(reversed(ref.items()))).sqnr_db > 100
    assert compare(data, x, {"a": ref["p"], "b": ref["q"]}).sqnr_db > 100
    assert compare(data, x, [ref["p"], ref["q"]]).sqnr_db > 100
    _, two, score = case("two")
    assert compare(tflite_files.file("two"), two, score["score"]).top1_agreement is None


def test_a_reference_that_does_not_fit_is_refused():
    data, x, ref = case("image")
    for bad, match in (
        ({"p": ref["p"]}, "lacks an output.*'q'"),
        ({"a": ref["p"]}, "not the file's"),
        ({**ref, "q": ref["q"][:, :1]}, "wrong shape"),
        ({**ref, "q": ref["q"] * np.nan}, "NaN"),
    ):
        with pytest.raises(InputError, match=match):
            compare(data, x, bad)
    with pytest.raises(InputError, match="layer 'gap' hold NaN"):
        compare(data, x, ref, {"gap": np.full((6, 8), np.nan)})


def test_constants_and_unknown_layers_are_left_out():
    data, x, ref = case("image")
    assert compare(data, x, ref, {"nowhere": np.ones((6, 3))}).layers == ()
    assert compare(data, x, ref, {"gap": np.ones((6, 9))}).layers == ()


def test_silence_against_silence_is_equal():
    data, x, ref = case("image")
    silent = {k: np.zeros_like(v) for k, v in ref.items()}
    drift = compare(data, x, silent)
    assert drift.sqnr_db == -math.inf and drift.cosine == 0.0

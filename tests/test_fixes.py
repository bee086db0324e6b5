"""Each fix: what it makes of a tiny file, that XNNPACK takes it, and that the outputs stay."""

from __future__ import annotations

import numpy as np
import pytest

from tests.doctor_files import CONV, SAME, VALID, Net, conv, kernel, quantized
from tests.run_file import op_names
from tfedge.errors import ConversionError
from tfedge.tflite import Interpreter, check_runs, flatbuffer
from tfedge.tflite.fixes import FIXES, ON_REQUEST
from tfedge.tflite.fixes_values import _steps
from tfedge.tflite.pieces import attempt, pieces
from tfedge.tflite.proof import compare
from tfedge.tflite.repair import repair
from tfedge.tflite.rewrite import compact

KINDS = ("float32", "int8", "uint8")


def fixed(data, name):
    """(places, the file after one fix)."""
    model = flatbuffer.read(data)
    places = {**FIXES, **ON_REQUEST}[name](model)
    compact(model)
    return places, flatbuffer.write(model)


def mend(data, name, places=1, steps=0.0):
    """Applies a fix; checks the number of places, the outputs, the ends, and a second time."""
    found, after = fixed(data, name)
    assert found == places
    proof = compare(data, after)
    assert proof.steps <= steps and proof.relative <= 1e-6
    assert fixed(after, name)[0] == 0, "not finished the first time"
    ends = [[(s.shape, s.dtype) for s in e] for e in (Interpreter(data).inputs,)]
    assert ends == [[(s.shape, s.dtype) for s in e] for e in (Interpreter(after).inputs,)]
    return after


def untouched(data, name):
    places, _ = fixed(data, name)
    assert places == 0


def outside(data):
    return [op.name for op in Interpreter(data).ops() if not op.delegated]


def resize(kind, size=(3, 5), to=(6, 15), channels=3, align=False, half=True):
    net, scale = Net(), quantized(kind)
    x = net.input((2, *size, channels), kind, scale, 2 if scale else 0)
    y = net.tensor((2, *to, channels), kind, scale, 2 if scale else 0)
    net.op("RESIZE_NEAREST_NEIGHBOR", [x, net.ints(*to)], [y], alignCorners=align,
           halfPixelCenters=half)  # fmt: skip
    return net.write(y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half", [True, False])
def test_nearest_resize(kind, half):
    before = resize(kind, half=half)
    assert outside(before) == ["RESIZE_NEAREST_NEIGHBOR"]
    after = mend(before, "nearest_resize")
    assert outside(after) == []
    assert op_names(after) == ["CONCATENATION", "RESHAPE"] * 2


def test_nearest_resize_leaves_what_is_no_repetition():
    untouched(resize("int8", to=(7, 15)), "nearest_resize")
    untouched(resize("int8", align=True, half=False), "nearest_resize")
    untouched(resize("int8", to=(15, 25)), "nearest_resize")  # Five-fold: too many at once.
    untouched(resize("int8", to=(3, 5)), "nearest_resize")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "ops"), [(6, 2), (9, 2), (10, 3), (17, 4)])
def test_wide_concat(kind, count, ops):
    net, scale = Net(), quantized(kind)
    widths = [1 + i % 3 for i in range(count)]
    inputs = [net.input((1, 2, w, 3), kind, scale) for w in widths]
    y = net.tensor((1, 2, sum(widths), 3), kind, scale)
    net.op("CONCATENATION", inputs, [y], axis=-2)
    before = net.write(y)
    assert outside(before) == ["CONCATENATION"]
    after = mend(before, "wide_concat")
    assert outside(after) == [] and op_names(after) == ["CONCATENATION"] * ops


def test_concat_of_five_is_delegated_and_left():
    net = Net()
    inputs = [net.input((1, 3), "int8", 0.1) for _ in range(5)]
    y = net.tensor((1, 15), "int8", 0.1)
    net.op("CONCATENATION", inputs, [y], axis=1)
    before = net.write(y)
    assert outside(before) == []
    untouched(before, "wide_concat")


def test_concat_of_other_codes_is_left():
    net = Net()
    inputs = [net.input((1, 3), "uint8", 0.1 * (1 + i)) for i in range(6)]
    y = net.tensor((1, 18), "uint8", 0.1)
    net.op("CONCATENATION", inputs, [y], axis=1)
    untouched(net.write(y), "wide_concat")


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("name", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize("absent", [[], [-1]])
def test_missing_bias_makes_a_file_run(kind, name, absent):
    net, scale = Net(), quantized(kind)
    x, y = (
        net.input((1, 5, 5, 4), kind, scale, 3 if scale else 0),
        net.tensor((1, 5, 5, 4), kind, scale),
    )
    options = {"depthMultiplier": 1} if name == "DEPTHWISE_CONV_2D" else {}
    shape = (1, 3, 3, 4) if options else (4, 3, 3, 4)
    weights = kernel(net, kind, shape, per_channel=False)
    net.op(name, [x, weights, *absent], [y], padding=SAME, **CONV, **options)
    before = net.write(y)
    with pytest.raises(ConversionError, match=name):
        check_runs(before)
    after, reports = repair(before)
    assert outside(after) == []
    assert [(r.name, r.kept) for r in reports] == [("missing_bias", True)]
    # Reference: a convolution at one inner pixel, in real numbers.
    runtime = Interpreter(after)
    values = np.random.default_rng(0).integers(-20, 20, (1, 5, 5, 4)).astype(kind)
    found = next(iter(runtime.run(values).values()))[0, 2, 2].astype("f")
    tensors = flatbuffer.read(after)
    w = flatbuffer.tensor_data(tensors, next(
        t for t in tensors.subgraphs[0].tensors if list(t.shape) == list(shape)
    )).astype("f")  # fmt: skip
    patch = values[0, 1:4, 1:4].astype("f") - (3 if scale else 0)
    want = (patch * w[0]).sum((0, 1)) if options else (patch[None] * w).sum((1, 2, 3))
    if scale:
        want = np.clip(np.rint(want * 0.01), -128, 127)  # 0.1 * 0.01 / 0.1
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1.0 if scale else 1e-4)


def padded(kind, amounts, stride, size=8, value=None):
    net, scale = Net(), quantized(kind)
    zero = 3 if scale else 0
    out = (size + sum(amounts) - 3) // stride + 1
    x = net.input((1, size, size, 4), kind, scale, zero)
    p = net.tensor((1, size + sum(amounts), size + sum(amounts), 4), kind, scale, zero)
    y = net.tensor((1, out, out, 8), kind, scale)
    pads = net.constant(np.array([[0, 0], amounts, amounts, [0, 0]], np.int32))
    if value is None:
        net.op("PAD", [x, pads], [p])
    else:
        net.op("PADV2", [x, pads, net.constant(np.array([value], kind), scale, zero)], [p])
    conv(net, p, y, kind, padding=VALID, strideW=stride, strideH=stride)
    return net.write(y)


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize(("amounts", "stride"), [((1, 1), 1), ((0, 1), 2)])
def test_padding_that_is_same_goes_into_the_convolution(kind, amounts, stride):
    after = mend(padded(kind, amounts, stride), "padding")
    assert op_names(after) == ["CONV_2D"]


def test_other_padding_stays():
    untouched(padded("int8", (1, 1), 2), "padding")  # SAME would put all of it behind.
    untouched(padded("int8", (1, 0), 2), "padding")
    untouched(padded("float32", (2, 2), 1), "padding")


@pytest.mark.parametrize(("kind", "zero"), [("float32", 0), ("int8", 3)])
def test_padv2_with_zero_is_a_pad(kind, zero):
    before = padded(kind, (2, 2), 1, value=zero)
    assert outside(before) == ["PADV2"]
    after = mend(before, "padding")
    assert outside(after) == [] and op_names(after) == ["PAD", "CONV_2D"]
    untouched(padded(kind, (2, 2), 1, value=zero + 1), "padding")


def activated(kind, name, same=True, ends=(-128, 0.05), twice=False):
    net, scale = Net(), quantized(kind)
    x, h = net.input((1, 4, 4, 4), kind, scale), net.tensor((1, 4, 4, 8), kind, scale, 0)
    y = net.tensor((1, 4, 4, 8), kind, *((scale, 0) if same or not scale else (ends[1], ends[0])))
    conv(net, x, h, kind)
    net.op(name, [h], [y])
    outputs = [y]
    if twice:
        z = net.tensor((1, 4, 4, 8), kind, scale)
        net.op("ADD", [h, h], [z])
        outputs.append(z)
    return net.write(*outputs)


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("name", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_activations_fuse(kind, name):
    after = mend(activated(kind, name), "unfused_activations")
    assert op_names(after) == ["CONV_2D"]


def test_activations_are_not_fused_where_their_input_serves_others():
    after = mend(activated("int8", "RELU", twice=True), "unfused_activations")
    assert op_names(after) == ["CONV_2D", "MUL", "ADD"] and outside(after) == []
    untouched(activated("float32", "RELU", twice=True), "unfused_activations")


@pytest.mark.parametrize(("name", "ends"), [("RELU", (-128, 0.05)), ("RELU6", (-128, 6 / 255))])
def test_an_activation_that_the_range_clips_is_a_quantize(name, ends):
    before = activated("int8", name, same=False, ends=ends)
    assert outside(before) == [name]
    after = mend(before, "unfused_activations", steps=1)
    assert outside(after) == [] and op_names(after) == ["CONV_2D", "QUANTIZE"]


@pytest.mark.parametrize(
    ("name", "ends"), [("RELU", (-100, 0.05)), ("RELU6", (-128, 0.05)), ("RELU_N1_TO_1", (0, 0.05))]
)
def test_an_activation_within_the_range_is_a_product_with_one(name, ends):
    before = activated("int8", name, same=False, ends=ends)
    assert outside(before) == [name]
    after = mend(before, "unfused_activations", steps=1)
    assert outside(after) == [] and op_names(after) == ["CONV_2D", "MUL"]


def seam(first, second, dtype="int8", end=False):
    """int8 -> float -> int8, then an ADD unless the codes are the file's output."""
    net = Net()
    x = net.input((1, 300), dtype, *first)
    h = net.tensor((1, 300), "float32")
    q = net.tensor((1, 300), dtype, *second)
    net.op("DEQUANTIZE", [x], [h])
    net.op("QUANTIZE", [h], [q])
    if end:
        return net.write(q)
    y = net.tensor((1, 300), dtype, 0.3)
    net.op("ADD", [q, q], [y])
    return net.write(y)


def test_quantize_pairs_with_the_same_codes_vanish():
    after = mend(seam((0.1, 4), (0.1, 4)), "quantize_pairs")
    assert op_names(after) == ["ADD"]


def test_a_pair_at_the_end_keeps_the_output():
    after = mend(seam((0.1, 4), (0.1, 4), end=True), "quantize_pairs")
    assert op_names(after) == ["QUANTIZE"]


def test_quantize_pairs_with_other_codes_become_one():
    after = mend(seam((0.1, 4), (0.07, -9)), "quantize_pairs", steps=1)
    assert op_names(after) == ["QUANTIZE", "ADD"]
    untouched(seam((0.1, 0), (50.0, 0)), "quantize_pairs")  # XNNPACK refuses such a QUANTIZE.


def test_a_float_that_others_read_keeps_its_dequantize():
    net = Net()
    x, h = net.input((1, 4), "int8", 0.1), net.tensor((1, 4), "float32")
    q, e = net.tensor((1, 4), "int8", 0.1), net.tensor((1, 4), "float32")
    y = net.tensor((1, 4), "int8", 0.2)
    net.op("DEQUANTIZE", [x], [h])
    net.op("QUANTIZE", [h], [q])
    net.op("EXP", [h], [e])
    net.op("ADD", [q, q], [y])
    after = mend(net.write(y, e), "quantize_pairs")
    assert op_names(after) == ["DEQUANTIZE", "EXP", "ADD"]


def test_a_quantize_of_floats_stays():
    net = Net()
    x, q, h = (
        net.input((1, 4), "float32"),
        net.tensor((1, 4), "int8", 0.1),
        net.tensor((1, 4), "float32"),
    )
    net.op("QUANTIZE", [x], [q])
    net.op("DEQUANTIZE", [q], [h])
    untouched(net.write(h), "quantize_pairs")


def squared(first, second, out, shapes=((1, 256, 1), (1, 1, 256))):
    net = Net()
    a, b = (net.input(s, "int8", *q) for s, q in zip(shapes, (first, second), strict=True))
    y = net.tensor((1, 256, 256), "int8", *out)
    net.op("SQUARED_DIFFERENCE", [a, b], [y])
    return net.write(y)


@pytest.mark.parametrize(
    ("first", "second", "out", "ops"),
    [
        ((0.02, 0), (0.02, 0), (0.1, -128), 5),
        ((0.02, -128), (0.01, 127), (0.23, -128), 5),
        ((0.03, 12), (0.001, 5), (0.004, -128), 5),
        ((0.01, 0), (0.01, 0), (0.9, -128), 2),
    ],
)
def test_squared_difference_is_within_a_step_for_all_pairs_of_codes(first, second, out, ops):
    before = squared(first, second, out)
    assert outside(before) == ["SQUARED_DIFFERENCE"]
    after = mend(before, "squared_difference", steps=1)
    assert outside(after) == [] and len(op_names(after)) == ops
    every = np.arange(-128, 128, dtype=np.int8)
    inputs = [every.reshape(1, 256, 1), every.reshape(1, 1, 256)]
    a, b = (next(iter(Interpreter(d).run(inputs).values())).astype(int) for d in (before, after))
    assert a.max() > a.min() and np.abs(a - b).max() <= 1


def test_one_difference_of_both_signs_would_be_two_steps_off():
    quants = [(0.02, 0), (0.02, 0), (0.1, -128)]
    far = (127 + 128) * 0.02
    assert _steps(quants, 2 * far / 255, both=False) == 2
    assert _steps(quants, far / 255, both=True) == 1


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_whole_average(kind):
    net = Net()
    x, y = net.input((1, 7, 5, 6), kind, 0.1, 3), net.tensor((1, 1, 1, 6), kind, 0.1, 3)
    options = {"strideW": 2, "strideH": 2, "padding": VALID}
    net.op("AVERAGE_POOL_2D", [x], [y], filterWidth=5, filterHeight=7, **options)
    before = net.write(y)
    assert outside(before) == ["AVERAGE_POOL_2D"]
    after = mend(before, "whole_average", steps=1)
    assert outside(after) == [] and op_names(after) == ["MEAN"]


def test_an_average_of_a_part_stays():
    net = Net()
    x, y = net.input((1, 7, 5, 6), "int8", 0.1), net.tensor((1, 1, 1, 6), "int8", 0.1)
    net.op("AVERAGE_POOL_2D", [x], [y], filterWidth=5, filterHeight=6, strideW=2, strideH=2,
           padding=VALID)  # fmt: skip
    untouched(net.write(y), "whole_average")


def cut(name, kind="int8"):
    """A file of one op that moves elements."""
    net, scale = Net(), quantized(kind)

    def tensor(*shape):
        return net.tensor(shape, kind, scale)

    x = net.input((2, 8, 3), kind, scale)
    if name == "SPLIT":
        y = [tensor(2, 1, 3) for _ in range(8)]
        net.op(name, [net.constant(np.array(1, np.int32)), x], y, numSplits=8)
    elif name == "SPLIT_V":
        y = [tensor(2, n, 3) for n in (1, 5, 2)]
        axis = net.constant(np.array(-2, np.int32))
        net.op(name, [x, net.ints(1, 5, 2), axis], y, numSplits=3)
    elif name == "UNPACK":
        y = [tensor(2, 3) for _ in range(8)]
        net.op(name, [x], y, axis=1, num=8)
    elif name == "PACK":
        y = [tensor(2, 8, 6, 3)]
        more = [net.input((2, 8, 3), kind, scale) for _ in range(5)]
        net.op(name, [x, *more], y, axis=2, valuesCount=6)
    else:
        y = [tensor(2, 3)]
        net.op(name, [x, net.ints(0, -3, 0), net.ints(2, -2, 0), net.ints(1, 1, 1)], y,
               shrinkAxisMask=2, endMask=4, beginMask=1)  # fmt: skip
    return net.write(*y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["SPLIT", "SPLIT_V", "UNPACK", "PACK", "STRIDED_SLICE"])
def test_moves_in_ops_that_xnnpack_has(name, kind):
    before = cut(name, kind)
    assert outside(before) == [name]
    after = mend(before, "slices")
    assert outside(after) == []


def test_a_free_batch_is_left_alone():
    model = flatbuffer.read(resize("int8"))
    for tensor in model.subgraphs[0].tensors:
        if tensor.shape is not None and len(tensor.shape) == 4:
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
    untouched(flatbuffer.write(model), "nearest_resize")


def test_names_and_signature_of_the_ends_stay():
    before = flatbuffer.set_signature(activated("float32", "RELU"), {"in": 0}, {"out": 2})
    after = mend(before, "unfused_activations")
    for data in (before, after):
        assert [s.name for s in Interpreter(data).inputs] == ["in"]
        assert [s.name for s in Interpreter(data).outputs] == ["out"]


def test_pieces_hold_the_touched_ops_alone():
    before = padded("int8", (2, 2), 1, value=3)
    change = attempt(before, FIXES["padding"])
    assert (change.places, change.old, change.new) == (1, (0,), (0,))
    old, new = pieces(before, change)
    assert (op_names(old), op_names(new)) == (["PADV2"], ["PAD"])
    assert compare(old, new).steps == 0


def test_a_fix_that_moves_an_output_is_undone(monkeypatch):
    def wrong(model, only=None):
        """Takes a pixel away."""
        op = model.subgraphs[0].operators[0]
        done = getattr(op.builtinOptions, "fusedActivationFunction", 1)
        if not done:
            op.builtinOptions.fusedActivationFunction = 1
        return int(not done)

    monkeypatch.setitem(FIXES, "wrong", wrong)
    net = Net()
    x, y = net.input((1, 4, 4, 4), "int8", 0.1), net.tensor((1, 4, 4, 8), "int8", 0.1)
    conv(net, x, y)
    before = net.write(y)
    after, reports = repair(before)
    assert after == before
    assert [(r.name, r.kept) for r in reports] == [("wrong", False)]
    assert "steps" in reports[0].said and reports[0].steps > 1


def test_a_fix_that_makes_a_file_slower_is_undone():
    before = resize("int8")
    after, (report,) = repair(before, pairs=lambda a, b: 1.5)
    assert after == before and not report.kept and "slower" in report.said
    after, (report,) = repair(before, pairs=lambda a, b: 1.0)
    assert after != before and report.kept and "no gain in time" in report.said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("padding", [SAME, VALID])
def test_subsampling(kind, name, padding):
    net, scale = Net(), quantized(kind)
    x, y = net.input((1, 7, 8, 5), kind, scale, 3), net.tensor((1, 4, 3, 5), kind, scale, 3)
    options = {"filterWidth": 1, "filterHeight": 1, "strideW": 3, "strideH": 2, "padding": padding}
    net.op(name, [x], [y], **options)
    before = net.write(y)
    assert outside(before) == [name]
    after = mend(before, "subsampling")
    assert outside(after) == [] and op_names(after) == ["DEPTHWISE_CONV_2D"]


def swish(scale=0.05, zero=-20, out=0.03, out_zero=-118):
    net = Net()
    x, y = (
        net.input((1, 256, 1), "int8", scale, zero),
        net.tensor((1, 256, 1), "int8", out, out_zero),
    )
    net.op("HARD_SWISH", [x], [y])
    return net.write(y)


@pytest.mark.parametrize(
    "codes", [(0.05, -20, 0.03, -118), (0.02, 0, 0.01, -100), (0.09, -99, 0.08, -122)]
)
def test_hard_swish_is_within_a_step_on_every_code(codes):
    before = swish(*codes)
    assert outside(before) == ["HARD_SWISH"]
    after = mend(before, "hard_swish", steps=1)
    assert outside(after) == [] and op_names(after) == ["MUL", "ADD", "MUL"]
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 256, 1)
    a, b = (next(iter(Interpreter(d).run(every).values())).astype(int) for d in (before, after))
    assert a.max() > a.min() and np.abs(a - b).max() <= 1


def test_hard_swish_with_finer_steps_than_the_gate_stays():
    untouched(swish(0.05, -20, 0.003, 0), "hard_swish")


def chain(count):
    """HARD_SWISH after HARD_SWISH: each may be a step off, and moves the next."""
    net = Net()
    x = net.input((1, 256, 16), "int8", 0.05, -20)
    for _ in range(count):
        y = net.tensor((1, 256, 16), "int8", 0.03, -118)
        net.op("HARD_SWISH", [x], [y])
        z = net.tensor((1, 256, 16), "int8", 0.01, 0)
        net.op("ADD", [y, y], [z])
        x = z
    return net.write(x)


def test_a_fix_is_kept_at_the_places_that_hold():
    before = chain(3)
    assert not compare(before, fixed(before, "hard_swish")[1]).holds(1)
    after, (report,) = repair(before)
    assert compare(before, after).holds(1)
    assert report.found == 3
    if report.kept:
        assert op_names(after).count("HARD_SWISH") == 3 - report.places > 0
        assert "other places" in report.said
    free, (report,) = repair(before, max_steps=100)
    assert report.kept and report.places == 3 and report.piece_steps <= 1 < report.steps
    assert outside(free) == []


def test_a_bias_with_the_axis_of_its_weights_is_mended():
    net = Net()
    x, y = net.input((1, 4, 4, 4), "int8", 0.1), net.tensor((1, 4, 4, 8), "int8", 0.1)
    conv(net, x, y)
    good = net.write(y)
    model = flatbuffer.read(good)
    (odd,) = (t for t in model.subgraphs[0].tensors if list(t.shape) == [8])
    odd.quantization.quantizedDimension = 3
    bad = flatbuffer.write(model)
    with pytest.raises(ConversionError, match="quantized_dimension"):
        check_runs(bad)
    after, (report,) = repair(bad)
    assert (report.name, report.places, report.kept) == ("quantized_axis", 1, True)
    assert compare(good, after).steps == 0


def test_vectors_without_quantization_or_elements_are_no_trouble():
    net = Net()
    x, y = net.input((2, 2), "float32"), net.tensor((0,), "float32")
    net.op("RESHAPE", [x, net.constant(np.zeros(0, np.int32))], [y])
    model = flatbuffer.read(net.write(y))
    assert sum(fix(model) for fix in FIXES.values()) == 0


@pytest.mark.parametrize("name", ["SOFTMAX", "EXP", "BATCH_MATMUL", "MAXIMUM"])
def test_float_islands_on_request(name):
    net = Net()
    x, y = net.input((1, 8, 8), "int8", 0.05, 3), net.tensor((1, 8, 8), "int8", 1 / 256, -128)
    inputs = [x]
    if name == "BATCH_MATMUL":
        inputs.append(net.input((1, 8, 8), "int8", 0.02, 5))
    if name == "MAXIMUM":
        x, y = net.input((1, 8, 8), "int8", 0.05, 3), net.tensor((1, 8, 8), "int8", 0.05, 3)
        net.inputs.pop(0)
        values = np.arange(8, dtype=np.int8).reshape(1, 1, 8)
        inputs = [x, net.constant(values, 0.05, 3)]
    net.op(name, inputs, [y], **({"beta": 1.0} if name == "SOFTMAX" else {}))
    before = net.write(y)
    assert outside(before) == [name]
    after = mend(before, "float_islands", steps=1)
    assert outside(after) == []
    assert repair(before) == (before, [])
    assert repair(before, allow_float=True)[0] != before


def test_no_float_island_where_codes_may_be_outside_the_domain():
    net = Net()
    x, y = net.input((1, 8), "int8", 0.05, 3), net.tensor((1, 8), "int8", 0.05, -128)
    net.op("RSQRT", [x], [y])
    untouched(net.write(y), "float_islands")

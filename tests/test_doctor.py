"""The doctor: each rule holds on this runtime, and any file gets an answer or a clear error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tfedge
from tests import tflite_files
from tests.doctor_files import CONV, SAME, VALID, Net, bias, conv, kernel
from tests.run_file import op_names
from tfedge.cli.main import main
from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.targets import get_target
from tfedge.tflite import Interpreter, TFLiteModel, delegation, flatbuffer
from tfedge.tflite.doctor import diagnose
from tfedge.tflite.doctor_rules import RULES
from tfedge.tflite.fixes import FIXES
from tfedge.tflite.op_times import OpTimes
from tfedge.tflite.proof import compare
from tfedge.tflite.repair import repair

TANH = 4
Q = 0.1


def one(name, shapes, out, kind="int8", constants=(), options=None, zeros=(0, 0, 0), scale=Q):
    """A file of one op: inputs of given shapes, then constants, one output."""
    net, s = Net(), None if kind == "float32" else Q
    inputs = [net.input(shape, kind, s, z) for shape, z in zip(shapes, zeros, strict=False)]
    inputs += [net.constant(c) for c in constants]
    y = net.tensor(out, kind, s and scale)
    net.op(name, inputs, [y], **(options or {}))
    return net.write(y)


def weighted(kind, weights, name="FULLY_CONNECTED", moving=False):
    net = Net()
    x = net.input(
        (1, 4, 4, 4) if "CONV" in name else (1, 4), kind, None if kind == "float32" else Q
    )
    shape = (1, 3, 3, 4) if "CONV" in name else (8, 4)
    w = net.input(shape, weights) if moving else kernel(net, weights, shape, per_channel=False)
    y = net.tensor(
        (1, 4, 4, 4) if "CONV" in name else (1, 8), kind, None if kind == "float32" else Q
    )
    options = {**CONV, "padding": SAME, "depthMultiplier": 1} if "CONV" in name else {}
    net.op(name, [x, w, bias(net, kind, shape[-1] if options else 8)], [y], **options)
    return net.write(y)


def low_bit(dtype, width):
    net = Net()
    per = 2 if dtype == "int4" else 4
    x, y = net.input((1, width), "float32"), net.tensor((1, 8), "float32")
    data = np.zeros(-(-8 * width // per), np.uint8)
    w = net.tensor((8, width), dtype, np.full(8, 0.1), 0, data)
    net.op("FULLY_CONNECTED", [x, w], [y])
    return net.write(y)


def sliced(strides=(1, 1), shrink=0):
    ends = [np.int32(v) for v in ((0, 0), (1, 6), strides)]
    out = (6,) if shrink else (1, -(-6 // strides[1]))
    return one("STRIDED_SLICE", [(2, 6)], out, constants=ends, options={"shrinkAxisMask": shrink})


POOL = {"filterWidth": 1, "filterHeight": 1, "strideW": 2, "strideH": 2, "padding": VALID}
SPLIT = np.array(1, np.int32)


def split(count):
    net = Net()
    x, axis = net.input((1, 12), "int8", Q), net.constant(SPLIT)
    y = [net.tensor((1, 12 // count), "int8", Q) for _ in range(count)]
    net.op("SPLIT", [axis, x], y, numSplits=count)
    return net.write(*y)


def concat(count):
    return one("CONCATENATION", [(1, 2)] * count, (1, 2 * count), options={"axis": 1},
               zeros=(0,) * count)  # fmt: skip


def reshaped(moving):
    net = Net()
    x = net.input((2, 8), "float32")
    shape = net.input((2,), "int32") if moving else net.ints(4, 4)
    y = net.tensor((4, 4), "float32")
    net.op("RESHAPE", [x, shape], [y])
    return net.write(y)


def fused(activation):
    net = Net()
    x, y = net.input((1, 4, 4, 4), "float32"), net.tensor((1, 4, 4, 8), "float32")
    conv(net, x, y, "float32", fusedActivationFunction=activation)
    return net.write(y)


# rule -> a file that breaks it, and one next to it that does not
BROKEN = {
    "int16_activations": lambda: (one("ADD", [(1, 4)] * 2, (1, 4), "int16"),
                                  one("ADD", [(1, 4)] * 2, (1, 4), "int8")),
    "no_such_op": lambda: (
        one("FLOOR_DIV", [(1, 4)] * 2, (1, 4), "float32"),
        one("DIV", [(1, 4)] * 2, (1, 4), "float32")),
    "float_only": lambda: (one("SQUARED_DIFFERENCE", [(1, 4)] * 2, (1, 4)),
                           one("SQUARED_DIFFERENCE", [(1, 4)] * 2, (1, 4), "float32")),
    "plain_integers": lambda: (one("MUL", [(1, 4)] * 2, (1, 4), "int32"),
                               one("MUL", [(1, 4)] * 2, (1, 4))),
    "dynamic_depthwise": lambda: (weighted("float32", "int8", "DEPTHWISE_CONV_2D"),
                                  weighted("float32", "float32", "DEPTHWISE_CONV_2D")),
    "moving_weights": lambda: (weighted("float32", "float32", moving=True),
                               weighted("float32", "float32")),
    "odd_int4": lambda: (low_bit("int4", 7), low_bit("int4", 8)),
    "slice_of_axes": lambda: (sliced(shrink=1), sliced()),
    "slice_with_steps": lambda: (sliced((1, 2)), sliced()),
    "offset_matmul": lambda: (
        one("BATCH_MATMUL", [(2, 4, 4)] * 2, (2, 4, 4), zeros=(0, 5), scale=0.3),
        one("BATCH_MATMUL", [(2, 4, 4)] * 2, (2, 4, 4), zeros=(5, 0), scale=0.3)),
    "many_inputs": lambda: (concat(6), concat(5)),
    "many_outputs": lambda: (split(6), split(4)),
    "many_axes": lambda: (one("ADD", [(1,) * 6 + (4,)] * 2, (1,) * 6 + (4,)),
                          one("ADD", [(1,) * 5 + (4,)] * 2, (1,) * 5 + (4,))),
    "fused_tanh": lambda: (fused(TANH), fused(1)),
    "wide_stride": lambda: (
        one("MAX_POOL_2D", [(1, 4, 4, 3)], (1, 2, 2, 3), options=POOL),
        one("MAX_POOL_2D", [(1, 4, 4, 3)], (1, 2, 2, 3),
            options={**POOL, "filterWidth": 2, "filterHeight": 2})),
    "scale_ratio": lambda: (one("QUANTIZE", [(1, 4)], (1, 4), scale=50.0),
                            one("QUANTIZE", [(1, 4)], (1, 4), scale=0.2)),
    "leaky_range": lambda: (one("LEAKY_RELU", [(1, 4)], (1, 4), options={"alpha": 1e-4}),
                            one("LEAKY_RELU", [(1, 4)], (1, 4), options={"alpha": 0.1})),
    "softmax_beta": lambda: (one("SOFTMAX", [(1, 4)], (1, 4), "float32", options={"beta": 2.0}),
                             one("SOFTMAX", [(1, 4)], (1, 4), "float32", options={"beta": 1.0})),
}  # fmt: skip
# Rules whose files do not run here, or whose op needs a loop: tested below or elsewhere.
ELSEWHERE = {"custom_op", "control_flow", "no_bias", "shape_at_run_time", "low_bit_weights",
             "odd_int2"}  # fmt: skip


def test_every_rule_and_fix_has_a_message_and_a_test():
    assert set(BROKEN) | ELSEWHERE == set(RULES)
    for rule in RULES:
        first, _, rest = delegation.message(rule).partition("\n")
        assert first and rest and len(first) < 90, rule
        assert not delegation.reason(rule).endswith(".")
    assert all(fix.__doc__ for fix in FIXES.values())
    guide = (Path(tfedge.__file__).parents[1] / "docs" / "DOCTOR.md").read_text()
    assert all(f"| `{name}` |" in guide for name in FIXES)


@pytest.mark.parametrize("rule", BROKEN)
def test_rule_holds_on_this_runtime(rule):
    breaking, keeping = BROKEN[rule]()
    assert [op.delegated for op in Interpreter(breaking).ops()] == [False]
    view = next(delegation.views(flatbuffer.read(breaking)))
    assert delegation.broken_rule(view) == rule
    assert all(op.delegated for op in Interpreter(keeping).ops())


def test_a_shape_that_comes_at_run_time():
    view = next(delegation.views(flatbuffer.read(reshaped(moving=True))))
    assert delegation.broken_rule(view) == "shape_at_run_time"
    assert [op.delegated for op in Interpreter(reshaped(moving=False)).ops()] == [True]


def test_findings_name_op_tensor_rule_message_cost_and_fix():
    found = diagnose(concat(7), clock=lambda data: (OpTimes({0: 2.0}), 8.0))
    (finding,) = found.findings
    assert (finding.index, finding.op, finding.tensor) == (0, "CONCATENATION", "t7")
    assert (finding.rule, finding.fix) == ("many_inputs", "wide_concat")
    assert finding.message == delegation.message("many_inputs")
    assert (finding.cost_us, finding.share) == (2.0, 0.25)
    assert (found.total_ops, found.outside, found.partitions) == (1, 1, ())
    assert (found.total_us, found.outside_us) == (8.0, 2.0)


def test_findings_stand_by_cost_and_partitions_in_order():
    net = Net()
    x = net.input((1, 4), "int8", Q)
    for name in ("EXP", "ADD", "EXP", "ADD"):
        y = net.tensor((1, 4), "int8", Q)
        net.op(name, [x] * (2 if name == "ADD" else 1), [y])
        x = y
    found = diagnose(net.write(x), clock=lambda data: (OpTimes({0: 1.0, 2: 3.0}), 9.0))
    assert [f.index for f in found.findings] == [2, 0]
    assert [(p.first, p.last, p.ops) for p in found.partitions] == [(1, 1, 1), (3, 3, 1)]


def test_an_op_inside_with_a_fix_is_a_finding_too():
    net = Net()
    x, h = net.input((1, 4, 4, 4), "float32"), net.tensor((1, 4, 4, 8), "float32")
    y = net.tensor((1, 4, 4, 8), "float32")
    conv(net, x, h, "float32")
    net.op("RELU", [h], [y])
    found = diagnose(net.write(y))
    assert found.outside == 0
    assert {(f.index, f.rule, f.fix) for f in found.findings} == {
        (0, "unfused_activations", "unfused_activations"),
        (1, "unfused_activations", "unfused_activations"),
    }


def test_sixteen_bits_are_told_what_they_buy():
    found = tfedge.doctor(tflite_files.file("image", "int16"), fix=True)
    assert found.file.data == tflite_files.file("image", "int16") and found.fixes == ()
    assert {f.rule for f in found.before.findings} == {"int16_activations"}
    assert "slower than the float32 one" in found.before.findings[0].message
    assert "precision" in found.before.findings[0].message
    # Measured: every op has a cost, and together they are most of an inference.
    assert all(f.cost_us is not None for f in found.before.findings)
    assert 0.3 < found.before.outside_us / found.before.total_us < 3


def test_the_profile_sees_what_the_interpreter_leaves_outside():
    data = tflite_files.file("image", "int8")
    outside = [op.index for op in Interpreter(data).ops() if not op.delegated]
    times = get_target("host").profile(data)
    assert list(times.ops) == outside and all(us >= 0 for us in times.ops.values())
    heavy = get_target("host").profile(tflite_files.file("large", "int16"))
    assert heavy.ops[1] > heavy.ops[0] > 0 and heavy.delegated_us == 0
    with pytest.raises(InputError, match="not a TFLite file"):
        get_target("host").profile(b"x")


def test_ops_are_timed_alone_where_the_profiler_cannot():
    """Text has no buffers to profile with."""
    net = Net()
    x, y = net.input((64, 4), "string"), net.tensor((4, 64), "string")
    f, e = net.input((64, 64), "int8", Q), net.tensor((64, 64), "int8", Q)
    net.op("RESHAPE", [x, net.ints(4, 64)], [y])
    net.op("EXP", [f], [e])
    times = get_target("host").profile(net.write(y, e))
    assert "alone" in times.note and times.delegated_us is None
    assert set(times.ops) == {0, 1} and times.ops[1] > 0


def test_a_file_is_mended_and_proved():
    net = Net()
    x, y, z = (net.input((1, 4, 4, 8), "int8", Q), net.tensor((1, 8, 8, 8), "int8", Q),
               net.tensor((1, 8, 8, 8), "int8", Q))  # fmt: skip
    net.op("RESIZE_NEAREST_NEIGHBOR", [x, net.ints(8, 8)], [y], halfPixelCenters=True)
    conv(net, y, z, channels=(8, 8))
    samples = np.random.default_rng(0).random((3, 4, 4, 8)).astype("f")
    found = tfedge.doctor(net.write(z), fix=True, data=samples)
    (report,) = found.fixes
    assert report.name == "nearest_resize" and report.steps == report.piece_steps == 0
    assert report.outside == (1, 0) and report.partitions == (1, 1) and report.ratio > 0
    if report.kept:
        assert found.after.outside == 0 and not found.after.findings
        assert "RESIZE_NEAREST_NEIGHBOR" not in op_names(found.file.data)
        again = tfedge.doctor(found.file, fix=True)
        assert again.fixes == () and again.file.data == found.file.data
    with pytest.raises(InputError):
        tfedge.doctor(net.write(z), fix=True, data=samples[..., :3])
    with pytest.raises(TargetError, match="unknown target"):
        tfedge.doctor(net.write(z), target="moon")


def custom():
    net = Net()
    x, h, y = (net.input((1, 4), "float32"), net.tensor((1, 4), "float32", name="odd"),
               net.tensor((1, 4), "float32"))  # fmt: skip
    net.op("FlexOdd", [x], [h])
    net.op("ADD", [h, h], [y])
    return net.write(y)


def test_a_file_that_does_not_run_says_which_op_and_why():
    found = tfedge.doctor(custom())
    assert "FlexOdd" in found.before.problem
    (finding,) = found.before.findings
    assert (finding.op, finding.tensor, finding.rule) == ("FlexOdd", "odd", "custom_op")
    with pytest.raises(ConversionError, match="FlexOdd"):
        tfedge.doctor(custom(), fix=True)


def test_damaged_files_are_input_errors():
    data = concat(7)
    for bad in (b"", b"not a file at all", data[: len(data) // 2], data[:8] + b"\xff" * 60):
        with pytest.raises(InputError):
            tfedge.doctor(bad)


def test_loops_and_further_subgraphs():
    from tfedge._keras import tf
    from tfedge.capture import captured

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def loop(x):
        return tf.while_loop(lambda i, y: tf.reduce_sum(y) < 9.0 + i,
                             lambda i, y: (i + 1.0, y * 1.5 + 0.1), (0.0, x))[1]  # fmt: skip

    converter = tf.lite.TFLiteConverter.from_concrete_functions([loop.get_concrete_function()])
    with captured():
        data = bytes(converter.convert())
    after, reports = repair(data)
    assert compare(data, after).holds(0) or not reports
    found = diagnose(data)
    assert [f.rule for f in found.findings if f.op == "WHILE"] == ["control_flow"]
    assert any("subgraphs" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["float", "float16", "int8"])
def test_a_free_batch_runs_through(kind):
    data = tflite_files.file("two", kind, batch=None)
    assert diagnose(data).problem == ""
    after, _ = repair(data)
    assert compare(data, after).holds(1)


def test_files_without_names_text_tensors_and_low_bits():
    net = Net()
    x, y = net.input((1, 4), "int8", Q), net.tensor((1, 4), "int8", Q, name="")
    net.op("EXP", [x], [y])
    (finding,) = diagnose(net.write(y)).findings
    assert finding.tensor == ""
    assert [f.rule for f in diagnose(low_bit("int4", 7)).findings] == ["odd_int4"]
    assert repair(low_bit("int4", 7)) == (low_bit("int4", 7), [])
    net = Net()
    x, y = net.input((1, 4), "string"), net.tensor((4, 1), "string")
    net.op("RESHAPE", [x, net.ints(4, 1)], [y])
    found = tfedge.doctor(net.write(y)).before  # Text has no buffers to profile with.
    assert [f.rule for f in found.findings] == ["plain_integers"] and not found.problem


def test_command(tmp_path, capsys):
    path = tmp_path / "m.tflite"
    path.write_bytes(concat(7))
    assert main(["doctor", str(path)]) == 0
    text = capsys.readouterr().out
    assert "many_inputs (1 op" in text and "tree of concatenations" in text
    assert "0 of 1 ops in XNNPACK" in text
    assert main(["doctor", str(path), "--fix", "--json=-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"]["findings"][0]["fix"] == "wide_concat"
    kept = found["fixes"][0]["kept"]
    assert (tmp_path / "m.fixed.tflite").exists() == kept == bool(found["output"])
    if kept:
        assert op_names(TFLiteModel.load(found["output"]).data) == ["CONCATENATION"] * 2
    assert main(["doctor", str(path), "--output=x.tflite"]) == 1
    assert "--output is for --fix" in capsys.readouterr().err
    assert main(["doctor"]) == 1
    path.write_bytes(custom())
    assert main(["doctor", str(path)]) == 1
    said = capsys.readouterr()
    assert "custom_op (1 op)" in said.out and "FlexOdd" in said.err

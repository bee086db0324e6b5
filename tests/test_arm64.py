"""Emulated Arm cores: what is read from the emulator, and the real thing."""

import ctypes
import dataclasses
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests import emulator, tflite_files
from tests.doctor_files import Net
from tfedge import convert, doctor
from tfedge._keras import keras
from tfedge.bench import count_ops, measure
from tfedge.cli.main import main
from tfedge.errors import InputError, TargetError
from tfedge.report.checkup import checkup_tables
from tfedge.report.costs import costs_table
from tfedge.report.table import timing_table
from tfedge.targets import TARGETS, get_target
from tfedge.targets.arm64 import guest
from tfedge.targets.arm64.costs import op_costs, outside, partitions
from tfedge.targets.arm64.cpus import CPUS
from tfedge.targets.arm64.guest import Event, Mix, parse_log, parse_report
from tfedge.targets.arm64.target import COUNTED, Arm64Target
from tfedge.targets.kernels import align
from tfedge.tflite import Interpreter, flatbuffer
from tfedge.tflite.check import random_inputs
from tfedge.tflite.tensors import TensorSpec

SOURCES = Path(guest.__file__).parent

# ---- what comes back -----------------------------------------------------------------------------


def line(event, number, *counts):
    return " ".join(map(str, [event, number, *counts, *[0] * (9 - len(counts))])) + "\n"


def test_the_log_gives_inferences_and_clocks():
    text = line("mark", 1_000_000, 10, 1) + line("mark", 2_000_000, 30, 4)
    text += line("mark", 1_000_001, 31, 4) + line("mark", 2_000_001, 50, 5)
    text += line("clock", 0, 60) + line("exit", 0, 70)
    inferences, clocks = parse_log(text)
    assert inferences == (Mix(20, 3), Mix(19, 1)) and clocks == (Mix(60),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        line("mark", 1_000_000, 1),
        line("mark", 1_000_000, 1) + line("exit", 0, 2),
        "mark 1 2 3\n" + line("exit", 0, 2),
        line("exit", "x", 2).replace(" 0", " ?"),
    ],
)
def test_a_log_that_is_cut_short_is_an_error(text):
    with pytest.raises(TargetError, match="log cannot be read"):
        parse_log(text)


def test_the_report_gives_outputs_and_events_whatever_their_names():
    name = "a b\n{}=é"
    text = f"input ={b'x'.hex()} 4\noutput ={name.encode().hex()} 6 1,3\n"
    text += f"output ={b's'.hex()} 4 \nevent 8 2 0 5 7 ={b'Add (ND)'.hex()}\n"
    ends, events = parse_report(text)
    assert [(e.name, e.bytes, e.shape) for e in ends] == [(name, 6, (1, 3)), ("s", 4, ())]
    assert events == (Event(8, 2, 0, 5, 7, "Add (ND)"),)
    for bad in ("output =zz 6 1\n", "event 8 2\n", "output =61 x 1\n"):
        with pytest.raises(TargetError, match="report"):
            parse_report(bad)


def test_kernels_are_aligned_with_ops_in_order():
    ops = ["CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE", "FULLY_CONNECTED", "LOGISTIC", "ELU"]
    kernels = ["Convert (NC)", "Convolution (NHWC, F32) IGEMM", "Convolution (NHWC, QC8) DWConv"]
    kernels += ["Fully Connected (NC, F32) GEMM", "Sigmoid (NC)", "Copy (NC, X8)", "ELU (NC)"]
    assert align(ops, kernels) == [None, 0, 1, 3, 4, None, 5]
    # A 1x1 convolution may be a matrix product, a function of 8-bit codes a table.
    kernels = ["Fully Connected (NC, F32) GEMM", "Invalid Unary Op", "Clamp (NC)"]
    assert align(["CONV_2D", "LOGISTIC", "ADD"], kernels) == [0, 1, None]
    assert align([], ["Add"]) == [None] and align(["ADD"], []) == []


def test_events_get_the_counts_between_the_looks_at_the_clock():
    data = tflite_files.file("two", "int8")
    names = [flatbuffer.op_name(m, o) for m in [flatbuffer.read(data)] for _, _, o in
             flatbuffer.operators(m)]  # fmt: skip
    assert names[1] == "CONV_2D"
    at = [100, 110, 150, 170, 200, 260, 300]
    clocks = [Mix(t, t // 2) for t in at]
    inside = [
        Event(8, 0, 0, 0, 30, "Convolution (NHWC, QC8) IGEMM"),  # 170 to 200
        Event(8, 1, 0, 0, 100, "Mean (ND) Reduce"),  # 200 to 300, two looks
    ]
    outer = Event(2, 0, 0, 110, 40, "RESHAPE")
    rows = op_costs(data, [Event(1, 0, 0, 100, 200, "Invoke"), *inside, outer], clocks)
    # A look takes 10 instructions and 5 loads; 0 to 1 measures it.
    assert [(r.index, r.op) for r in rows] == [(0, "RESHAPE"), (1, "CONV_2D"), (3, "MEAN")]
    assert [r.mix for r in rows] == [Mix(30, 15), Mix(20, 10), Mix(80, 40)]
    assert outside([*inside, outer]) == {0} and partitions(inside, clocks) == 1
    loop = [Event(2, 0, 0, 100, 60, "WHILE"), Event(2, 0, 1, 110, 40, "ADD"), *inside]
    rows = op_costs(data, loop, clocks)
    assert [r.mix for r in rows] == [Mix(30, 15), Mix(20, 10), Mix(80, 40)]
    odd = [Event(8, i, 0, 0, 31, "Convolution (NHWC, QC8) IGEMM") for i in range(2)]
    assert [r.mix for r in op_costs(data, odd, clocks)] == [Mix(31), Mix(31)]


WORDS = {
    0x4E829420: ("neon", "dot"),  # sdot v0.4s, v1.16b, v2.16b
    0x4F82E020: ("neon", "dot"),  # sdot v0.4s, v1.16b, v2.4b[0]
    0x4E82A420: ("neon", "dot"),  # smmla v0.4s, v1.16b, v2.16b
    0x4F821020: ("neon", "fmla"),  # fmla v0.4s, v1.4s, v2.s[0]
    0x4E22CC20: ("neon", "fmla"),  # fmla v0.4s, v1.4s, v2.4s
    0x0F422020: ("neon", "smlal"),  # smlal v0.4s, v1.4h, v2.h[0]
    0x0E22C020: ("neon", "smlal"),  # smull v0.8h, v1.8b, v2.8b
    0x4E22D420: ("neon",),  # fadd v0.4s, v1.4s, v2.4s
    0xF9400020: ("loads", 8),  # ldr x0, [x1]
    0xB9000020: ("stores", 4),  # str w0, [x1]
    0x39C00020: ("loads", 1),  # ldrsb w0, [x1]
    0x3DC00020: ("loads", 16),  # ldr q0, [x1]
    0xAD400400: ("loads", 32),  # ldp q0, q1, [x0]
    0xA9007BFD: ("stores", 16),  # stp x29, x30, [sp]
    0x4C402000: ("loads", 64),  # ld1 {v0.16b-v3.16b}, [x0]
    0x0D408000: ("loads", 4),  # ld1 {v0.s}[0], [x0]
    0x4D40C800: ("loads", 4),  # ld1r {v0.4s}, [x0]
    0xF9800020: (),  # prfm pldl1keep, [x1]
    0x8B020020: (),  # add x0, x1, x2
    0xD65F03C0: ("branches",),  # ret
    0xB8220020: ("loads", "stores", 8),  # ldadd w2, w0, [x1]
}


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_instructions_are_classed_by_what_they_do(tmp_path):
    source = tmp_path / "one.c"
    source.write_text(
        '#include "classes.h"\nvoid one(word_t w, count_t *c) { tfe_classify(w, c); }\n'
    )
    command = ["cc", "-shared", "-fPIC", "-I", SOURCES, "-o", tmp_path / "one.so", source]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(tmp_path / "one.so"))
    for word, expected in WORDS.items():
        counts = (ctypes.c_ulong * len(dataclasses.fields(Mix)))()
        library.one(ctypes.c_uint(word), counts)
        size = sum(e for e in expected if isinstance(e, int))
        wanted = {e: 1 for e in expected if isinstance(e, str)}
        assert Mix(*counts) == Mix(instructions=1, bytes=size, **wanted), hex(word)


def test_every_core_is_a_target():
    assert {f"arm64:{name}" for name in CPUS} == {n for n in TARGETS if n.startswith("arm64:")}
    assert all(get_target(f"arm64:{name}").cpu == name for name in CPUS)
    with pytest.raises(TargetError, match="Did you mean 'arm64:cortex-a53'"):
        get_target("arm64:cortex-53")
    with pytest.raises(TargetError, match="unknown arm64 core"):
        Arm64Target("m4")
    assert "asimddp" in CPUS["cortex-a76"].isa and "asimddp" not in CPUS["cortex-a72"].isa


class Mute:
    """A target that says nothing of ops."""

    name, source = "mute", "measured"


def test_targets_without_counts_are_refused_for_ops(capsys, monkeypatch):
    monkeypatch.setitem(TARGETS, "mute", Mute)
    with pytest.raises(TargetError, match="mute.*arm64:cortex-a53"):
        count_ops(tflite_files.file("two"), "mute")
    assert main(["target", "sutup"]) == 1 and "'setup'" in capsys.readouterr().err
    assert main(["target", "setup", "host"]) == 1 and "setup arm64" in capsys.readouterr().err


def test_the_targets_are_listed(capsys):
    assert main(["target", "list", "--json=-"]) == 0
    rows = json.loads(capsys.readouterr().out)[: len(TARGETS)]
    assert [row["target"] for row in rows] == list(TARGETS)
    assert {row["source"] for row in rows if row["target"].startswith("arm64")} == {"emulated"}
    assert {row["source"] for row in rows if row["target"].startswith("sim")} == {"simulated"}


# ---- the real emulator ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    emulator.needed()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
@pytest.mark.parametrize(("name", "kind"), [("image", "int8"), ("image", "int16")])
def test_integer_files_are_exact_and_counts_repeat(real, cpu, name, kind):
    data, target = tflite_files.file(name, kind), Arm64Target(cpu)
    specs = Interpreter(data).inputs
    rng = np.random.default_rng(0)
    limits = np.iinfo(kind)
    x = {s.name: rng.integers(limits.min, limits.max, (5, *s.shape[1:]), kind, True) for s in specs}
    found, expected = target.run(data, x), Interpreter(data).run_all(x)
    assert found.keys() == expected.keys()
    for output, value in expected.items():
        np.testing.assert_array_equal(found[output], value)
    first, *others = [target.costs(data) for _ in range(3)]
    assert first.total.instructions > 1000 and others == [first] * 2
    (timing,) = target.time({"m": data}, 9, 1)
    assert timing.instructions == first.total.instructions and timing.runs == COUNTED


@pytest.mark.slow
def test_kernels_are_those_of_the_core(real):
    data = tflite_files.file("large", "int8")
    old, new = (Arm64Target(f"cortex-{n}").costs(data) for n in ("a53", "a76"))
    assert old.total.dot == 0 < old.total.smlal and new.total.dot > 1000
    assert new.total.instructions < old.total.instructions
    for costs in (old, new):
        convolutions = [r for r in costs.ops if r.op == "CONV_2D"]
        assert [r.index for r in convolutions] == [0, 1] and not costs.note
        inside = sum(r.mix.instructions for r in costs.ops)
        assert inside + costs.rest.instructions == costs.total.instructions
        # Two convolutions are nearly all of it, and a multiply takes 16 or 8 lanes at most.
        assert sum(r.mix.instructions for r in convolutions) > 0.9 * costs.total.instructions
    macs = 48 * 48 * 64 * 9 * 8 + 46 * 46 * 32 * 9 * 64
    assert macs / 16 <= new.total.dot < 1.5 * macs / 16
    assert macs / 8 <= old.total.smlal < 1.5 * macs / 4


@pytest.mark.slow
def test_float_files_agree_and_are_delegated_as_on_the_host(real):
    data = tflite_files.file("image")
    x = tflite_files.samples("image", 3)
    found, expected = get_target("arm64:cortex-a72").run(data, x), Interpreter(data).run_all(x)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    host, arm = measure(data, target=["host", "arm64:cortex-a72"], runs=2)
    assert (host.delegated_ops, host.total_ops) == (arm.delegated_ops, arm.total_ops)
    assert arm.min_ms is arm.p50_ms is None and arm.source == "emulated" and arm.isa


@pytest.mark.slow
def test_what_runs_in_a_loop_belongs_to_the_loop(real):
    x = keras.Input((6, 4), name="x")
    net = keras.Model(x, keras.layers.Dense(3, name="d")(keras.layers.SimpleRNN(5, name="r")(x)))
    file = convert(net, "float32")
    costs = get_target("arm64:cortex-a53").costs(file.data)
    (loop,) = [row for row in costs.ops if row.op == "WHILE"]
    assert loop.layer == "r" and 0.1 < loop.mix.instructions / costs.total.instructions < 1
    assert sum("Fully" in row.kernel for row in costs.ops) == 1
    host, arm = measure(file, target=["host", "arm64:cortex-a53"], runs=1)
    assert (arm.delegated_ops, arm.partitions) == (host.delegated_ops, host.partitions)


@pytest.mark.slow
def test_files_without_names_and_with_a_free_batch_run(real):
    model = flatbuffer.read(tflite_files.file("two", "int8"))
    model.signatureDefs = []
    plain = flatbuffer.write(model)
    for data in (plain, tflite_files.file("two", "int8", batch=None)):
        specs = Interpreter(data).inputs
        x = {s.name: np.repeat(random_inputs((one(s),))[s.name], 3, 0) for s in specs}
        found, expected = get_target("arm64:cortex-a53").run(data, x), Interpreter(data).run_all(x)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[k], expected[k]) for k in expected)


def one(spec: TensorSpec) -> TensorSpec:
    return dataclasses.replace(spec, shape=(1, *spec.shape[1:]))


def lacking():
    """A file with an op that no runtime has."""
    model = flatbuffer.read(tflite_files.file("two"))
    code = model.operatorCodes[flatbuffer.read(tflite_files.file("two")).subgraphs[0]
                               .operators[0].opcodeIndex]  # fmt: skip
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, "Nowhere"
    return flatbuffer.write(model)


@pytest.mark.slow
def test_wrong_input_is_told(real):
    target, good = get_target("arm64:cortex-a53"), tflite_files.file("two")
    (violation,) = target.check(lacking())
    assert violation.fatal and "Nowhere" in violation.reason
    with pytest.raises(TargetError, match="'odd'.*arm64:cortex-a53.*Nowhere"):
        target.time({"odd": lacking()}, 1, 1)
    with pytest.raises(TargetError, match="'slow' did not finish within 0.01 s on arm64"):
        Arm64Target("cortex-a53", timeout_s=0.01).time({"slow": good}, 1, 1)
    with pytest.raises(InputError, match="counts one thread"):
        target.time({"m": good}, 1, 2)


@pytest.mark.slow
def test_the_doctor_judges_by_instructions(real):
    net = Net()
    x, h = net.input((1, 40), "int8", 0.1), net.tensor((1, 40), "float32")
    q, y = net.tensor((1, 40), "int8", 0.1), net.tensor((1, 40), "int8", 0.2)
    net.op("DEQUANTIZE", [x], [h])
    net.op("QUANTIZE", [h], [q])
    net.op("ADD", [q, q], [y])
    found = doctor(net.write(y), fix=True, target="arm64:cortex-a53")
    assert found.before.total_us is None and "counts instructions" in found.before.notes[-1]
    (kept,) = [report for report in found.fixes if report.kept]
    assert kept.name == "quantize_pairs"
    before, after = found.timing
    assert after.instructions < before.instructions
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(checkup_tables(found.before, found.fixes, found.timing))
    text = console.export_text()
    assert f"{before.instructions:,} -> {after.instructions:,} instructions" in text


@pytest.mark.slow
def test_no_name_is_taken_for_a_command(real, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "--x;touch hacked $(touch hacked) `touch hacked`,out=hacked\n.tflite"
    (tmp_path / name).write_bytes(tflite_files.file("two", "int8"))
    words = ["benchmark", f"--model=./{name}", "--target=arm64:cortex-a53", "--ops", "--outputs"]
    assert main([*words, "--json=-"]) == 0
    found = json.loads(capsys.readouterr().out)
    (timing,), (costs,) = found["timings"], found["ops"][name.removesuffix(".tflite")]
    assert timing["model"] == name.removesuffix(".tflite")
    assert costs["total"]["instructions"] == timing["instructions"] > 0
    (match,) = found["outputs"]
    assert match["values"] == 4 and match["different"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_tables_keep_sources_apart(real):
    files = [tflite_files.file("image", k) for k in ("float", "int8")]
    timings = measure(files, target=["host", "arm64:cortex-a76"], runs=2)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(timing_table(timings))
    text = console.export_text()
    assert text.count("model 0") == text.count("model 1") == 2
    emulated = text[text.index("arm64:cortex-a76, emulated") :]
    assert "instructions" in emulated and "not a latency" in emulated
    assert " ms" not in emulated and "speed-up" not in emulated and "load" not in emulated
    (costs,) = count_ops(files[1:], "arm64:cortex-a76")["model 0"]
    console.print(costs_table("image", costs))
    shown = console.export_text()
    assert "DEPTHWISE_CONV_2D" in shown and f"{costs.total.instructions:,}" in shown

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import tflite_files
from tfedge.bench import compare_outputs, count_ops, measure
from tfedge.cli.main import main
from tfedge.errors import InputError, TargetError
from tfedge.targets import host, machine
from tfedge.tflite import TFLiteModel


def test_files_are_measured_in_pairs(tmp_path):
    large = tflite_files.file("large")
    path = tmp_path / "again.tflite"
    path.write_bytes(large)
    small = TFLiteModel.from_bytes(tflite_files.file("image", "int8"), scheme="w8a8")
    first, second, third = measure([large, str(path), small], runs=15)
    assert [t.model for t in (first, second, third)] == ["model 0", "again", "w8a8"]
    assert first.ratio_p50 == first.ratio_min == 1.0
    # The same file twice costs the same; bounds are wide because the machine may be busy.
    assert 0.5 < second.ratio_min < 2 and 0.4 < second.ratio_p50 < 2.5
    assert third.ratio_min < 0.5 and third.min_ms < first.min_ms
    assert third.ratio_min == pytest.approx(third.min_ms / first.min_ms)


def test_a_timing_says_what_it_was_measured_on():
    (timing,) = measure(tflite_files.file("image", "int8"), runs=4)
    assert (timing.target, timing.source, timing.runs) == ("host", "measured", 4)
    assert (timing.delegated_ops, timing.total_ops, timing.partitions) == (6, 7, 1)
    assert timing.isa == machine.isa(amx=False) and timing.isa.startswith(os.uname().machine)
    assert timing.load >= 0 and timing.ratio_p50 is timing.ratio_min is None
    assert timing.init_ms > 0 and timing.peak_mb > 0
    # CPU time of one thread is not far above the wall's; both are per inference, not per sample.
    assert 0 < timing.cpu_min_ms < 2 * timing.p99_ms and timing.min_ms < 1


def test_outputs_are_compared_bit_for_bit(monkeypatch):
    files = [tflite_files.file("image", "int8"), tflite_files.file("image")]
    same, floats = compare_outputs(files, "host")
    assert (same.model, same.target, same.values) == ("model 0", "host", 20)
    assert same.different == floats.different == 0 == same.largest
    assert same.relative is None and floats.relative == 0.0
    run = host.HostTarget.run

    def spoilt(self, data, inputs):
        found = run(self, data, inputs)
        if self.amx:
            found["q"] ^= 1
        return found

    monkeypatch.setattr(host.HostTarget, "run", spoilt)
    monkeypatch.setattr(host, "isa", lambda: "x86_64 amx_int8")
    assert compare_outputs(files[0], "host").pop().different == 0
    (other,) = compare_outputs(files[0], ["host:amx"])
    assert (other.different, other.largest) == (8, 1.0)


def test_a_nan_is_a_difference_without_bounds(monkeypatch):
    run = host.HostTarget.run

    def spoilt(self, data, inputs):
        found = run(self, data, inputs)
        if self.amx:
            next(iter(found.values()))[0, 0] = np.nan
        return found

    monkeypatch.setattr(host.HostTarget, "run", spoilt)
    monkeypatch.setattr(host, "isa", lambda: "x86_64 amx_int8")
    (match,) = compare_outputs(tflite_files.file("image"), ["host:amx"])
    assert match.different == 1 and match.largest == match.relative == float("inf")


def test_amx_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(host, "isa", lambda: "x86_64 avx2")
    with pytest.raises(TargetError, match="no AMX.*avx2"):
        measure(tflite_files.file("image"), target="host:amx")


def test_unlike_batches_are_noted():
    one, four = (tflite_files.file("image", batch=n) for n in (1, 4))
    assert [t.note for t in measure([one, one], runs=1)] == ["", ""]
    notes = [t.note for t in measure([one, four], runs=1)]
    assert notes == ["An inference is 1 sample", "An inference is 4 samples"]


def test_ops_of_this_machine_add_up_to_the_profile():
    data = tflite_files.file("large", "int8")
    (table,) = next(iter(count_ops(data, "host").values()))
    assert (table.target, table.source, table.columns) == ("host", "measured", ("us",))
    times = host.HostTarget().profile(data)
    assert times.kernels and times.delegated_us == pytest.approx(sum(u for _, u in times.kernels))
    rows = [r for r in table.rows if r.index is not None]
    assert [r.index for r in rows] == list(range(len(rows)))
    convolutions = [r for r in rows if r.op == "CONV_2D"]
    assert convolutions and all("Convolution" in r.why and r.values[0] > 0 for r in convolutions)
    assert 0.2 < table.total("us") / (times.delegated_us + sum(times.ops.values())) < 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TFLM", "Did you mean 'tflm'"),
        ("arm64", "For example arm64:cortex-a35"),
        ("ssh", "Write ssh:..."),
        ("pi4", "tfedge target list"),
        ("sim:cortex-72", "Did you mean 'sim:cortex-a72'"),
    ],
)
def test_unknown_targets_are_answered_with_what_helps(name, said):
    with pytest.raises(TargetError, match="unknown target") as caught:
        measure(tflite_files.file("image"), target=name)
    assert said in str(caught.value)


def test_equal_names_get_numbers():
    model = TFLiteModel.from_bytes(tflite_files.file("two"), meta={"label": "x"})
    assert [t.model for t in measure([model] * 3, runs=1)] == ["x", "x (2)", "x (3)"]


@pytest.mark.parametrize(
    ("word", "bad"),
    [(word, bad) for word in ("runs", "threads") for bad in (0, -1, 1.5, True)] + [("runs", None)],
)
def test_numbers_below_one_are_refused(word, bad):
    with pytest.raises(InputError, match=f"{word} must be"):
        measure(tflite_files.file("two"), **{word: bad})


def test_bad_models_are_named(tmp_path):
    with pytest.raises(InputError, match="no model"):
        measure([])
    with pytest.raises(InputError, match="cannot read.*none.tflite"):
        measure(tmp_path / "none.tflite")
    with pytest.raises(InputError, match="model 1 is not a TFLite file"):
        measure([tflite_files.file("two"), b"x"])
    with pytest.raises(InputError, match="model 0 cannot be measured.*int"):
        measure([3])
    with pytest.raises(TargetError, match="unknown target"):
        measure(tflite_files.file("two"), target="phone")


def test_a_model_that_kills_its_process_is_named(tmp_path, monkeypatch):
    (tmp_path / "odd_host.py").write_text(
        "from tfedge.shell import Answer, serve\nimport os\n"
        "def f(values, arrays):\n"
        "    if arrays['file'].size > 10_000: os.write(2, b'kernel.cc:3 boom'); os.abort()\n"
        "    return Answer({})\nserve(f)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(host, "WORKER", "odd_host")
    with pytest.raises(TargetError, match="'model 1' ended the process.*SIGABRT; kernel.cc:3 boom"):
        measure([tflite_files.file("two"), tflite_files.file("large")], runs=1)


def test_several_threads_count_the_cpu_time_of_all():
    (timing,) = measure(tflite_files.file("large"), runs=3, threads=2)
    assert timing.threads == 2 and timing.cpu_min_ms > 0


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "x86_64",
            "flags\t\t: fpu avx avx2 avx512_vnni\nflags : fpu avx avx2\n",
            "x86_64 avx2 avx",
        ),
        ("aarch64", "Features\t: fp asimd asimddp i8mm\n", "aarch64 i8mm asimddp asimd"),
        ("arm64", "", "arm64"),
    ],
)
def test_the_instruction_sets_are_those_of_all_cores(name, text, expected):
    assert machine.isa_of(name, text) == expected


# In a process of its own, as the worker uses it: here, whatever the tests before left for the
# garbage collector may go while this one counts.
_PEAK = """
from tfedge.targets import machine
earlier = bytearray(b"1") * 64_000_000
del earlier
memory = machine.PeakMemory()
print(memory.megabytes())
used = bytearray(b"1") * 48_000_000
print(memory.megabytes())
del used
print(memory.megabytes())
"""


def test_peak_memory_counts_from_where_it_began():
    out = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    start, used, after = (float(line) for line in out.stdout.split())
    assert start < 32 and 40 < used < 120 and after > 40


@pytest.mark.skipif("amx_int8" not in machine.isa(), reason="this machine has no AMX")
def test_amx_is_off_unless_asked_for():
    data = tflite_files.file("image", "int8")
    assert "amx_off" in measure(data, runs=2)[0].isa
    assert "amx_int8" in measure(data, target="host:amx", runs=2)[0].isa


def test_an_interrupt_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "m.tflite", tmp_path / "found.json"
    path.write_bytes(tflite_files.file("image", "int8"))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfedge.bench.count_ops", interrupted)
    assert main(["benchmark", str(path), "--runs=2", "--ops", f"--json={out}"]) != 0
    assert [row["model"] for row in json.loads(out.read_text())["timings"]] == ["m"]
    assert "host, measured" in capsys.readouterr().out

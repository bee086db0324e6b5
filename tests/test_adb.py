"""adb:SERIAL over a pretended device, and the real tool's output as recorded."""

import struct
import time
from pathlib import Path

import numpy as np
import pytest

from tests import phone, tflite_files
from tfedge.errors import InputError, TargetError
from tfedge.targets import get_target
from tfedge.targets.adb.output import parse
from tfedge.targets.adb.target import AdbTarget

RECORDED = Path(__file__).parent / "golden/benchmark_model"


def recorded(name):
    return parse((RECORDED / f"{name}.txt").read_text())


def test_a_recent_output_is_read_whole():
    found = recorded("2025_xnnpack")
    assert (found.count, found.min, found.max, found.mean, found.std) == (
        55, 17688, 19105, 18064.2, 240,
    )  # fmt: skip
    assert (found.median, found.p95, found.init, found.first) == (18018, 18511, 31416, 21843)
    assert found.peak_mb == pytest.approx(15.5 * 1.048576)
    assert found.applied is True and found.complaint == "" and found.ops == ()


def test_an_old_output_has_no_median_and_names_memory_otherwise():
    found = recorded("2021_profile")
    assert (found.count, found.mean, found.median, found.p95) == (8, 2069.69, None, None)
    assert found.peak_mb == pytest.approx(3.75 * 1.048576)


def test_the_profile_is_that_of_the_regular_runs_in_order():
    rows = recorded("2021_profile").ops
    assert [(r.kind, r.node, r.us) for r in rows] == [
        ("TfLiteXNNPackDelegate", 7, 1210), ("RESHAPE", 3, 3),
        ("TfLiteXNNPackDelegate", 8, 841), ("SOFTMAX", 6, 18),
    ]  # fmt: skip
    assert [r.delegate for r in rows] == [True, False, True, False]


def test_columns_are_found_by_their_titles():
    text = (RECORDED / "2021_profile.txt").read_text()
    without = "\n".join(
        "\t".join(c for i, c in enumerate(line.split("\t")) if i != 2) if "\t" in line else line
        for line in text.splitlines()
    )
    assert "[start]" in text and "[start]" not in without
    assert parse(without).ops == parse(text).ops


@pytest.mark.parametrize(
    ("name", "words"), [("unresolved_op", "TFLite_Detection"), ("wrong_binary", "not executable")]
)
def test_a_failure_says_what_the_tool_said(name, words):
    found = recorded(name)
    assert found.count == 0 and words in found.complaint


def test_one_run_and_none():
    assert parse("").count == 0
    one = "count=1 curr=70\n\nInference timings in us: Init: 1, First inference: 2, "
    found = parse("count=1 curr=2\n" + one + "Warmup (avg): 2, Inference (avg): 70")
    assert (found.count, found.min, found.max, found.mean) == (1, 70, 70, 70)


@pytest.fixture
def device(tmp_path, monkeypatch):
    made = phone.plug_in(tmp_path / "phone", monkeypatch)
    yield made
    end = time.monotonic() + 3
    while made.left() and time.monotonic() < end:
        time.sleep(0.05)
    assert made.left() == []


def target():
    return get_target("adb:PHONE")


def test_several_files_take_turns_and_are_related(device):
    files = {k: tflite_files.file("image", k) for k in ("float", "int8")}
    first, second = target().time(files, 7, 1)
    calls = [line for line in device.log().splitlines() if "num_runs" in line]
    timed = [line for line in calls if "op_profiling" not in line]
    assert [("m0" in line, "m1" in line) for line in timed] == [(True, False), (False, True)] * 3
    assert all("--use_xnnpack=true" in line and "--num_threads=1" in line for line in calls)
    assert (first.runs, second.runs, first.ratio_p50, first.ratio_min) == (7, 7, 1.0, 1.0)
    assert second.ratio_p50 > 0 and second.ratio_min == second.min_ms / first.min_ms
    assert first.p90_ms is first.p99_ms is first.cpu_min_ms is None and first.p50_ms
    assert "no p90" in first.note and first.device == "Example Phone; Android 14"
    assert second.total_ops == 7 and second.delegated_ops == 6 and second.partitions == 1


def test_outputs_need_a_recent_tool(device):
    device.use(old=True)
    data = tflite_files.file("image", "int8")
    with pytest.raises(TargetError, match="does not write outputs"):
        target().run(data, {"image": np.zeros((1, 8, 8, 3), np.int8)})


def test_the_profile_gives_the_ops_outside(device):
    found = target().profile(tflite_files.file("image", "int8"), 2)
    assert set(found.ops) == {5} and found.ops[5] == 1.0 and found.delegated_us == 1.0


def test_old_devices_lose_no_exit_status(device):
    device.has("old")
    bad = bytearray(tflite_files.file("image"))
    bad[60:400] = bytes(340)
    with pytest.raises(TargetError, match="model 'b'.*cannot be run on adb:PHONE"):
        target().time({"b": bytes(bad)}, 1, 1)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("gone", "cannot be reached.*'PHONE' not found"),
        ("unauthorized", "Allow this computer"),
        ("full", "No space left.*Make room"),
    ],
)
def test_faults_of_the_device_are_told(device, flag, words):
    device.has(flag)
    with pytest.raises(TargetError, match=words):
        target().time({"m": tflite_files.file("image")}, 1, 1)


def test_a_lost_connection_ends_the_tool_and_its_folder(device):
    device.use(slow=True)
    device.has("cut")
    with pytest.raises(TargetError, match="connection to adb:PHONE was lost"):
        target().time({"m": tflite_files.file("image")}, 1, 1)


def test_a_timeout_is_told_and_leaves_nothing(device):
    device.use(slow=True)
    with pytest.raises(TargetError, match="model 'm' did not finish on adb:PHONE within 1.5 s"):
        AdbTarget("PHONE", timeout_s=1.5).time({"m": tflite_files.file("image")}, 1, 1)


def test_the_tool_must_be_there_and_of_the_devices_architecture(device, monkeypatch, tmp_path):
    tool = tmp_path / "other"
    tool.write_bytes(b"\x7fELF" + bytes(14) + struct.pack("<H", 62) + bytes(40))
    monkeypatch.setenv("TFEDGE_BENCHMARK_MODEL", str(tool))
    with pytest.raises(TargetError, match="other is for x86_64, the device runs arm64-v8a"):
        target().prepare()
    for value in ("", str(tmp_path / "none")):
        monkeypatch.setenv("TFEDGE_BENCHMARK_MODEL", value)
        with pytest.raises(TargetError, match="there is no benchmark_model"):
            target().prepare()


def test_adb_must_be_there(monkeypatch, device):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TargetError, match="adb cannot be started.*platform-tools"):
        target().prepare()


@pytest.mark.parametrize("serial", ["", "-d", "a b", "a;b", "$(x)", "a\nb", "a'b"])
def test_serials_that_could_be_more_are_refused(serial):
    with pytest.raises(TargetError, match="this is no device"):
        get_target(f"adb:{serial}")


def test_wrong_numbers_are_input_errors(device):
    with pytest.raises(InputError):
        target().time({"m": tflite_files.file("image")}, 0, 1)

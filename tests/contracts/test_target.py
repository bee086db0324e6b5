"""What every target must do; each new one is in TARGETS or FAMILIES, and so in these tests."""

import math

import numpy as np
import pytest

from tests import board, emulator, phone, tflite_files
from tfedge.errors import InputError, TargetError
from tfedge.record import SOURCES
from tfedge.targets import FAMILIES, TARGETS, Foreign, Target, get_target
from tfedge.targets.extras import PACKAGES, package_version
from tfedge.targets.machine import isa
from tfedge.tflite import Interpreter, flatbuffer

# Cores differ in their kernels only: one without dot products, one with them.
CORES = ("arm64:cortex-a53", "arm64:cortex-a76", "sim:cortex-a72")
EMULATED = ("arm64:", "sim:")
# One NPU of each generation's memories.
NPUS = ("ethosu:u55-128", "ethosu:u85-256")
TESTED = [n for n in sorted(TARGETS) if not n.startswith((*EMULATED, "ethosu:"))]
TESTED += NPUS
TESTED += [pytest.param(n, marks=pytest.mark.slow) for n in CORES]


# A real sshd on loopback, and a device that only pretends.
TESTED += ["ssh:board", "adb:PHONE"]


@pytest.fixture(scope="module")
def loopback(tmp_path_factory):
    made = board.start(tmp_path_factory.mktemp("b"))
    yield made
    board.stop(made)


@pytest.fixture(params=TESTED)
def target(request, monkeypatch, tmp_path):
    if request.param.startswith(EMULATED):
        emulator.needed()
    if request.param == "host:amx" and "amx_int8" not in isa():
        pytest.skip("this machine has no AMX")
    if (extra := request.param.partition(":")[0]) in PACKAGES:
        try:
            package_version(extra)
        except TargetError as error:
            pytest.skip(str(error))
    if request.param == "ssh:board":
        monkeypatch.setenv("PATH", board.on_path(request.getfixturevalue("loopback")))
    if request.param == "adb:PHONE":
        phone.plug_in(tmp_path / "phone", monkeypatch)
    return get_target(request.param)


def executes(target):
    return not isinstance(target, Foreign) or target.executes


def test_it_is_a_target(target):
    assert isinstance(target, Target)
    assert target.name in TARGETS or target.name.partition(":")[0] in FAMILIES
    assert target.source in SOURCES
    target.prepare()
    with pytest.raises(InputError):
        target.prepare(0)


def stored(name, kind, count):
    data = tflite_files.file(name, kind)
    rng = np.random.default_rng(0)
    shapes = {s.name: (count, *s.shape[1:]) for s in Interpreter(data).inputs}
    return data, {n: rng.integers(-128, 128, s).astype(kind) for n, s in shapes.items()}


@pytest.mark.parametrize("name", ["image", "two"])
def test_integer_files_give_the_interpreters_very_codes(target, name):
    data, x = stored(name, "int8", 3)
    if not executes(target):
        with pytest.raises(TargetError, match="cannot run a file"):
            target.run(data, x)
        return
    kernels, steps = ("reference", 1) if isinstance(target, Foreign) else ("xnnpack", 0)
    found, expected = target.run(data, x), Interpreter(data, kernels=kernels).run_all(x)
    assert found.keys() == expected.keys()
    for output in expected:
        assert found[output].dtype == np.int8
        np.testing.assert_allclose(found[output], expected[output], atol=steps, rtol=0)


def test_a_good_file_has_no_fatal_violation(target):
    violations = target.check(tflite_files.file("image", "int8"))
    assert not any(v.fatal for v in violations)
    assert all(v.reason for v in violations)


def cut_short():
    """Starts like a TFLite file and cannot be run."""
    model = flatbuffer.read(tflite_files.file("image", "int16"))
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shape = [1, 8, 8, 5]
    return flatbuffer.write(model)


def test_a_file_that_cannot_run_is_fatal_and_never_a_crash(target):
    assert any(v.fatal for v in target.check(cut_short()))
    with pytest.raises(TargetError):
        target.run(cut_short(), {"image": np.zeros((1, 8, 8, 5), np.int16)})
    with pytest.raises(TargetError, match="'bad'"):
        target.time({"good": tflite_files.file("image"), "bad": cut_short()}, 1, 1)


def test_what_is_no_file_is_an_input_error(target):
    for call in (
        lambda: target.check(b"none"),
        lambda: target.run(b"none", {}),
        lambda: target.time({"m": b"none"}, 1, 1),
    ):
        with pytest.raises(InputError, match="not a TFLite file"):
            call()


def test_inputs_that_do_not_fit_are_an_input_error(target):
    data, x = stored("image", "int8", 1)
    for bad in ({"imege": x["image"]}, {"image": x["image"][..., :2]}, {"image": x["image"] * 1.0}):
        # A target that runs nothing says that first.
        with pytest.raises(InputError if executes(target) else TargetError):
            target.run(data, bad)


def test_timings_are_complete_and_in_order(target):
    files = {k: tflite_files.file("image", k) for k in ("float", "int8")}
    found = target.time(files, 3, 1)
    assert [t.model for t in found] == list(files)
    for timing in found:
        assert (timing.target, timing.source) == (target.name, target.source)
        # What is the same each time need not be repeated.
        assert timing.threads == 1 and timing.runs in (1, 3)
        assert timing.bytes == len(files[timing.model]) and timing.total_ops == 7
        assert 0 <= timing.delegated_ops <= 7
        if timing.source == "simulated" and timing.min_ms is not None:
            assert 0 < timing.min_ms < math.inf and timing.cycles > 0
            assert timing.p50_ms in (None, timing.min_ms)
        if timing.source == "simulated":
            assert timing.p90_ms is timing.p99_ms is None
        if timing.source == "measured":
            # benchmark_model gives no p90 and no p99.
            found_ms = (timing.min_ms, timing.p50_ms, timing.p90_ms, timing.p99_ms)
            times = [t for t in found_ms if t is not None]
            assert len(times) == (2 if target.name.startswith("adb:") else 4)
            assert times == sorted(times) and times[0] > 0 and math.isfinite(times[-1])
        if timing.source == "emulated":
            assert timing.min_ms is timing.p50_ms is None
            assert timing.instructions or timing.arena_bytes
    # No ratio where a file has nothing to compare: an NPU runs no floats, an arena is no time.
    compared = all(t.p50_ms or t.instructions for t in found)
    for ratio in (found[0].ratio_p50, found[0].ratio_min):
        assert ratio == (1.0 if compared else None)
    for number in (0, -1):
        with pytest.raises(InputError):
            target.time(files, number, 1)
        with pytest.raises(InputError):
            target.time(files, 1, number)


def test_an_unknown_target_is_answered_with_the_nearest():
    with pytest.raises(TargetError, match="Did you mean 'host'"):
        get_target("hsot")

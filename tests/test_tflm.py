"""Files on microcontroller kernels; the contract tests hold the rest."""

import numpy as np
import pytest

from tests import doctor_files, tflite_files
from tests.doctor_files import Net
from tfedge import bench
from tfedge.errors import InputError, TargetError
from tfedge.report.costs import costs_table
from tfedge.report.table import make_console, timing_table
from tfedge.targets import extras, get_target
from tfedge.targets.tflm.target import TflmTarget
from tfedge.tflite import Interpreter, flatbuffer


@pytest.fixture(autouse=True)
def installed():
    try:
        extras.package_version("tflm")
    except TargetError as error:
        pytest.skip(str(error))


def shown(thing):
    console = make_console()
    with console.capture() as captured:
        console.print(thing)
    return " ".join(captured.get().split())


def codes(data, count, seed=0):
    rng = np.random.default_rng(seed)
    specs = Interpreter(data).inputs
    return {s.name: rng.integers(-128, 128, (count, *s.shape[1:])).astype(s.dtype) for s in specs}


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_convolutions_give_the_reference_kernels_very_codes(kind):
    data = tflite_files.file("large", kind)
    x = codes(data, 2)
    found = get_target("tflm").run(data, x)
    expected = Interpreter(data, kernels="reference").run_all(x)
    for name, value in expected.items():
        assert found[name].dtype == kind and len(np.unique(value)) > 50
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("name", ["image", "two"])
def test_whole_nets_are_within_a_step_of_the_reference_kernels(name):
    data = tflite_files.file(name, "int8")
    x = codes(data, 40)
    found = get_target("tflm").run(data, x)
    for output, value in Interpreter(data, kernels="reference").run_all(x).items():
        gaps = np.abs(found[output].astype(int) - value)
        assert gaps.max() <= 1 and (gaps == 0).mean() > 0.9


def test_float_outputs_are_close():
    data = tflite_files.file("image")
    x = {"image": tflite_files.samples("image", 3)["image"]}
    found, expected = get_target("tflm").run(data, x), Interpreter(data).run_all(x)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_the_arena_is_told_and_no_time():
    files = {n: tflite_files.file(n, "int8") for n in ("two", "image", "large")}
    found = get_target("tflm").time(files, 5, 1)
    sizes = [t.arena_bytes for t in found]
    assert sizes == sorted(sizes) and 0 < sizes[0] < sizes[1] < sizes[2]
    # At least a layer's input and output live at once.
    assert sizes[2] > 48 * 48 * (8 + 64)
    for timing in found:
        assert (timing.source, timing.delegate, timing.runs) == ("emulated", "TFLM", 1)
        times = (timing.min_ms, timing.p50_ms, timing.cpu_min_ms, timing.init_ms)
        assert times == (None,) * 4 and timing.instructions is timing.ratio_p50 is None
    text = shown(timing_table(found))
    assert f"{sizes[0]:,} B" in text and "TFLM ops" in text and "nothing was timed" in text
    assert " ms" not in text and "speed-up" not in text and "instructions" not in text


def grown(channels):
    net = Net()
    x = net.input((1, 8, 8, 4), "int8", 0.1)
    y = net.tensor((1, 8, 8, channels), "int8", 0.1)
    doctor_files.conv(net, x, y, channels=(4, channels))
    return net.write(y)


def test_the_arena_grows_with_the_activations():
    target = get_target("tflm")
    small, large = target.time({str(c): grown(c) for c in (8, 16)}, 1, 1)
    # 8 more channels of 64 positions, and what the runtime keeps for each channel.
    assert 8 * 64 <= large.arena_bytes - small.arena_bytes < 8 * 64 + 8 * 64
    assert target.time({"8": grown(8)}, 1, 1)[0].arena_bytes == small.arena_bytes


def test_ops_are_listed_with_their_bytes():
    data = tflite_files.file("image", "int8")
    table = get_target("tflm").costs(data)
    model = flatbuffer.read(data)
    ops = [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators]
    assert [row.op for row in table.rows] == ops
    assert table.rows[0].values == (8 * 8 * 8, 8 * 27 + 4 * 8)
    text = shown(costs_table("m", table))
    assert "64-bit" in text and "arena" in text and "CONV_2D" in text


def test_variables_begin_anew_for_each_batch():
    data = doctor_files.remembering()
    x = {"t0": np.ones((3, 3), np.float32)}
    found = get_target("tflm").run(data, x)["y"]
    np.testing.assert_allclose(found, np.full((3, 4), 0.75))
    assert bench.compare_outputs(data, "tflm")[0].largest < 1e-5


def test_outputs_are_compared_with_this_machines():
    (match,) = bench.compare_outputs(tflite_files.file("image", "int8"), "tflm")
    assert (match.target, match.values) == ("tflm", 20) and match.largest <= 4


def test_what_it_lacks_is_named_with_the_op():
    net = Net()
    x = net.input((1, 4, 4, 4), "int8", 0.1)
    y, z = (net.tensor((1, 4, 4, 4), "int8", 0.1) for _ in "yz")
    net.op("ADD", [x, x], [y])
    net.op("RELU_N1_TO_1", [y], [z])
    (missing,) = get_target("tflm").check(net.write(z))
    assert missing.fatal and (missing.op, missing.name) == (1, "RELU_N1_TO_1")
    assert "no such op" in missing.reason
    (half,) = get_target("tflm").check(tflite_files.file("image", "float16"))
    assert half.fatal and half.name == "DEQUANTIZE" and "float16" in half.reason
    files = {k: tflite_files.file("image", k) for k in ("int8", "float16")}
    whole, none = get_target("tflm").time(files, 1, 1)
    assert none.arena_bytes is None and (none.delegated_ops, none.total_ops) == (0, 13)
    assert "op 0 (DEQUANTIZE)" in none.note and "DEQUANTIZE" not in whole.note
    text = shown(timing_table([whole, none]))
    assert text.count("times smaller") == 1 and "0/13" in text and "op 0 (DEQUANTIZE)" in text
    with pytest.raises(TargetError, match=r"cannot be run on tflm.*op 0 \(DEQUANTIZE\)"):
        get_target("tflm").run(files["float16"], tflite_files.samples("image", 1))


def test_a_file_that_ends_the_process_is_named_with_the_op():
    net = Net()
    x = net.input((1, 10), "int8", 1e-9)
    y, z = net.tensor((1, 10), "int8", 1e-9), net.tensor((1, 10), "int8", 1 / 256, -128)
    net.op("RESHAPE", [x, net.ints(1, 10)], [y])
    net.op("SOFTMAX", [y], [z], beta=1.0)
    with pytest.raises(TargetError, match=r"'soft' ends.*SIGABRT at op 1 \(SOFTMAX"):
        get_target("tflm").time({"soft": net.write(z)}, 1, 1)


def test_a_timeout_names_the_file():
    with pytest.raises(TargetError, match="'m'"):
        TflmTarget(timeout_s=0.01).time({"m": tflite_files.file("image", "int8")}, 1, 1)


def test_sizes_and_threads_that_it_has_not():
    data = tflite_files.file("image", "int8", batch=None)
    assert len(get_target("tflm").run(data, codes(data, 5))["p"]) == 5
    with pytest.raises(InputError, match="one thread"):
        bench.measure(data, target="tflm", threads=2)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(extras.PACKAGES, "tflm", "no-such-package-here")
    data = tflite_files.file("image", "int8")
    for call in (get_target("tflm").prepare, lambda: get_target("tflm").check(data)):
        with pytest.raises(TargetError, match=r"pip install 'tfedge\[tflm\]'"):
            call()

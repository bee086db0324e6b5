"""Vela's estimates, laid over the file's ops; the contract tests hold the rest."""

import pytest

from tests import doctor_files, tflite_files
from tests.doctor_files import Net
from tfedge import bench
from tfedge.errors import InputError, TargetError
from tfedge.record import Timing, from_json, to_json
from tfedge.report.costs import costs_table
from tfedge.report.table import make_console, timing_table
from tfedge.targets import TARGETS, extras, get_target
from tfedge.targets.ethosu import vela
from tfedge.targets.ethosu.chips import MODES, NPUS, SYSTEMS, chip
from tfedge.tflite import flatbuffer


@pytest.fixture(autouse=True)
def installed():
    try:
        extras.package_version("ethosu")
    except TargetError as error:
        pytest.skip(str(error))


def shown(thing):
    console = make_console()
    with console.capture() as captured:
        console.print(thing)
    return " ".join(captured.get().split())


def names(data):
    model = flatbuffer.read(data)
    return [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators]


def test_a_full_integer_net_is_on_the_npu_op_by_op():
    data = tflite_files.file("image", "int8")
    target = get_target("ethosu:u55-128")
    (timing,) = target.time({"m": data}, 5, 1)
    table = target.costs(data)
    assert target.check(data) == []
    assert (timing.source, timing.delegate, timing.runs) == ("simulated", "NPU", 1)
    assert (timing.delegated_ops, timing.total_ops, timing.partitions) == (7, 7, 1)
    # The ops' cycles and traffic add up to what Vela says of the whole.
    assert table.total("cycles") == timing.cycles > 0
    assert table.total("flash bytes moved") == timing.flash_traffic_bytes > 0
    assert table.total("DRAM bytes moved") == timing.dram_traffic_bytes == 0
    position = table.columns.index("SRAM in use, bytes")
    assert max(row.values[position] for row in table.rows) == timing.sram_peak_bytes
    # 500 MHz; the time is that of the cycles.
    assert timing.min_ms == timing.p50_ms == pytest.approx(timing.cycles / 500e3)
    assert [row.op for row in table.rows] == names(data)
    assert [row.index for row in table.rows] == list(range(7))
    assert {row.place for row in table.rows} == {"NPU"} and not table.notes
    conv, depthwise = table.rows[0], table.rows[1]
    assert conv.values[1] == 8 * 8 * 8 * 27 and depthwise.values[1] == 8 * 8 * 8 * 9


def test_the_configuration_is_always_shown():
    data = tflite_files.file("image", "int8")
    for name, words in {
        "ethosu:u55-128": ("Ethos_U55_High_End_Embedded", "Shared_Sram", "500 MHz"),
        "ethosu:u55-128:Ethos_U55_Deep_Embedded:Sram_Only":
            ("Ethos_U55_Deep_Embedded", "Sram_Only", "200 MHz"),
    }.items():  # fmt: skip
        (timing,) = bench.measure(data, target=name)
        assert timing.target == name
        table = bench.count_ops(data, name)["model 0"][0]
        for text in (shown(timing_table([timing])), shown(costs_table("m", table))):
            assert "simulated" in text and "Vela" in text
            for word in words:
                assert word in text


def test_other_npus_and_systems_give_other_numbers():
    data = tflite_files.file("large", "int8")
    slow, fast, low = bench.measure(
        data,
        target=["ethosu:u55-32", "ethosu:u55-256", "ethosu:u55-32:Ethos_U55_Deep_Embedded"],
    )
    assert slow.cycles > 2 * fast.cycles and low.min_ms > 2 * slow.min_ms


def test_ops_left_to_the_cpu_are_named_with_their_reason():
    data, target = tflite_files.file("elu", "int8"), get_target("ethosu:u55-128")
    found = target.check(data)
    assert [(v.op, v.name, v.fatal) for v in found] == [
        (1, "DEQUANTIZE", False), (2, "ELU", False), (3, "QUANTIZE", False),
    ]  # fmt: skip
    assert "Float32" in found[1].reason and "s0t" not in found[1].reason
    table = target.costs(data)
    assert [r.place for r in table.rows] == ["NPU", "CPU", "CPU", "CPU", "NPU"]
    assert "Float32" in table.rows[2].why and "Float32" in shown(costs_table("m", table))


def test_what_the_cpu_does_is_in_no_time():
    files = {"whole": tflite_files.file("image", "int8"), "part": tflite_files.file("elu", "int8")}
    whole, part = get_target("ethosu:u85-256").time(files, 1, 1)
    assert part.p50_ms is None and part.min_ms > 0 and part.ratio_p50 is None
    assert (part.delegated_ops, part.total_ops) == (2, 5)
    assert "3 ops left to the CPU" in part.note and not whole.note
    text = shown(timing_table([whole, part]))
    assert "2/5" in text and "> 0.00" in text and part.note in text


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_a_float_file_has_nothing_for_the_npu(kind):
    data, target = tflite_files.file("image", kind), get_target("ethosu:u55-128")
    first, *rest = target.check(data)
    assert first.fatal and "No op runs on the NPU" in first.reason and "w8a8" in first.reason
    assert len(rest) == len(names(data)) and all(v.name and v.reason for v in rest)
    (timing,) = target.time({"m": data}, 1, 1)
    assert timing.min_ms is timing.p50_ms is timing.cycles is None
    assert timing.delegated_ops == 0 and timing.note == first.reason


def test_names_in_the_file_confuse_nothing():
    net = Net()
    x = net.input((1, 4, 4, 4), "int8", 0.1)
    y = net.tensor((1, 4, 4, 4), "int8", 0.1, name='a"b,c]]></table>\n"')
    net.op("RELU_N1_TO_1", [x], [y])
    z = net.tensor((1, 4, 4, 8), "int8", 0.1, name='a"b,c]]></table>\n"')
    doctor_files.conv(net, y, z)
    table = get_target("ethosu:u55-128").costs(net.write(z))
    assert [(r.op, r.place) for r in table.rows] == [("RELU_N1_TO_1", "NPU"), ("CONV_2D", "NPU")]
    assert table.rows[1].values[1] == 4 * 4 * 8 * 36


def test_branches_give_no_time():
    piece = dict(on_npu=True, cycles=9, macs=0, staging=0, sram=0, dram=0, flash=0)
    from tfedge.targets.ethosu.target import _Mapped

    data = tflite_files.file("two", "int8")
    model = flatbuffer.read(data)
    model.subgraphs.append(model.subgraphs[0])
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = flatbuffer.schema.BuiltinOperator.WHILE
    found = vela.Estimate(
        (vela.Piece((1, 1), **piece),), {}, 1, 9, 1e-6, 500.0, 0, 0, 0, 0, 0
    )  # fmt: skip
    mapped = _Mapped(model, data, found)
    assert mapped.branches and mapped.rows[0].place == "CPU"
    assert "once each" in mapped.note and mapped.rows[-1].op == "subgraph 1: CONV_2D"


def test_a_file_that_ends_vela_is_named_with_the_likely_cause():
    net = Net()
    x = net.input((1, 8), "int8", 0.1)
    w = net.tensor((4, 8), "int4", [0.1] * 4, data=doctor_files.RNG.bytes(16))
    y = net.tensor((1, 4), "int8", 0.1)
    net.op("FULLY_CONNECTED", [x, w], [y])
    with pytest.raises(TargetError, match=r"model 'low' cannot be compiled.*int4"):
        get_target("ethosu:u55-128").time({"low": net.write(y)}, 1, 1)


def test_a_timeout_names_the_file():
    from tfedge.targets.ethosu.target import EthosuTarget

    target = EthosuTarget("u55-128", timeout_s=0.01)
    with pytest.raises(TargetError, match=r"did not finish model 'm' within 0.01 s"):
        target.time({"m": tflite_files.file("image", "int8")}, 1, 1)


def test_it_runs_nothing_and_says_so_before_anything_is_measured():
    data = tflite_files.file("image", "int8")
    with pytest.raises(TargetError, match="compute no outputs.*ethosu:u55-128"):
        bench.compare_outputs(data, "ethosu:u55-128")
    with pytest.raises(InputError, match="no threads"):
        bench.measure(data, target="ethosu:u55-128", threads=2)


def test_a_device_file_stands_for_it(tmp_path):
    path = tmp_path / "board.yaml"
    path.write_text(
        "target: ethosu:u55-128:Ethos_U55_Deep_Embedded:Sram_Only\noptions: {timeout_s: 60}\n"
    )
    data = tflite_files.file("two", "int8")
    (timing,) = bench.measure(data, target=str(path))
    assert timing.target == "board" and "Sram_Only" in timing.isa and timing.cycles > 0
    assert bench.count_ops(data, str(path))["model 0"][0].target == "board"
    with pytest.raises(TargetError, match="compute no outputs.*board"):
        bench.compare_outputs(data, str(path))
    path.write_text("target: ethosu:u55-128\noptions: {executes: true}\n")
    with pytest.raises(InputError, match="no such option"):
        get_target(str(path))


def test_the_doctor_sends_elsewhere():
    from tfedge.checkup import check_up
    from tfedge.tflite import TFLiteModel

    file = TFLiteModel.from_bytes(tflite_files.file("two", "int8"))
    with pytest.raises(TargetError, match="benchmark --ops --target=ethosu:u55-128"):
        check_up(file, False, "ethosu:u55-128")


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(extras.PACKAGES, "ethosu", "no-such-package-here")
    target = get_target("ethosu:u55-128")
    for call in (target.prepare, lambda: target.check(tflite_files.file("image", "int8"))):
        with pytest.raises(TargetError, match=r"pip install 'tfedge\[ethosu\]'"):
            call()
    assert "pip install" in extras.state("ethosu") and extras.state("tflm") != ""


def test_names_of_chips_are_checked():
    assert {f"ethosu:{npu}" for npu in NPUS} == {n for n in TARGETS if n.startswith("ethosu:")}
    for npu, system in NPUS.items():
        assert chip(npu) == chip(f"{npu}:{system}") and chip(npu).name == npu
        assert chip(npu).mode == MODES[SYSTEMS[system]][0]
    flash = chip("u85-256:Ethos_U85_SYS_Flash_High")
    assert flash.mode == "Shared_Sram" and chip(flash.name) == flash
    for bad, match in {
        "u55-100": "Ethos-U NPU.*'u55-100'",
        "u55-128:Ethos_U85_SYS_DRAM_Mid": "system configuration of Ethos-U55",
        "u55-128:Ethos_U55_High_End_Embeded": "Did you mean 'Ethos_U55_High_End_Embedded'",
        "u55-128:Ethos_U55_High_End_Embedded:Dedicated_Sram": "memory mode.*flash",
        "u55-128:a:b:c": "too many parts",
        "u55-128; rm -rf /": "Ethos-U NPU",
    }.items():
        with pytest.raises(TargetError, match=match):
            get_target(f"ethosu:{bad}")


def test_old_records_stay_readable_and_new_ones_come_back():
    (timing,) = bench.measure(tflite_files.file("two", "int8"), target="ethosu:u85-256")
    value = to_json(timing)
    assert from_json(Timing, value) == timing and timing.dram_traffic_bytes > 0
    for field in ("delegate", "cycles", "sram_peak_bytes", "dram_traffic_bytes", "arena_bytes"):
        del value[field]
    old = from_json(Timing, value)
    assert (old.delegate, old.cycles, old.arena_bytes) == ("XNNPACK", None, None)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_and_mode_is_one_that_vela_knows(system):
    family = system.split("_")[1].lower()
    npu = next(n for n in NPUS if n.startswith(family))
    data = tflite_files.file("two", "int8")
    for mode in MODES[SYSTEMS[system]]:
        (timing,) = bench.measure(data, target=f"ethosu:{npu}:{system}:{mode}")
        assert timing.cycles > 0 and mode in timing.isa


def test_other_targets_outputs_are_compared_all_the_same():
    data = tflite_files.file("image", "int8")
    (match,) = bench.compare_outputs(data, ["ethosu:u55-128", "host"])
    assert match.target == "host" and match.different == 0

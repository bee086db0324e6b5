"""What a machine says about its CPU and its power, from pretended files under /sys."""

import dataclasses
import time

import pytest

from tfedge.record import Record, Timing, from_json, to_json
from tfedge.report import rows, timing_table
from tfedge.report.table import make_console
from tfedge.targets import conditions, counters, power

CPU = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
ZONE, COOLER = "sys/class/thermal/thermal_zone{}/", "sys/class/thermal/cooling_device{}/"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def put(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_governor_and_temperature_are_the_cpus(tmp_path):
    put(tmp_path, {
        CPU.format(0): "ondemand", CPU.format(10): "ondemand", CPU.format(4): "performance",
        f"{ZONE.format(0)}type": "gpu-thermal", f"{ZONE.format(0)}temp": 91000,
        f"{ZONE.format(1)}type": "cpu-thermal", f"{ZONE.format(1)}temp": 54500,
        f"{ZONE.format(2)}type": "cpu1-thermal", f"{ZONE.format(2)}temp": 48000,
    })  # fmt: skip
    before = conditions.read(tmp_path)
    put(tmp_path, {f"{ZONE.format(1)}temp": 61000})
    assert conditions.compare(before, conditions.read(tmp_path)) == {
        "governor": "ondemand+performance", "temperature_before": 54.5,
        "temperature_after": 61.0, "throttled": "",
    }  # fmt: skip


def test_a_system_that_says_nothing_leaves_everything_open(tmp_path):
    assert conditions.read(tmp_path) == {}
    assert conditions.compare({}, {"x": "y", f"{ZONE.format(0)}temp": "n/a"}) == {
        "governor": "", "temperature_before": None, "temperature_after": None, "throttled": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({FIRMWARE: "0"}, {FIRMWARE: "0"}, ""),
        ({FIRMWARE: "0"}, {FIRMWARE: "50005"}, "under-voltage, throttled"),
        ({FIRMWARE: "throttled=0x0"}, {FIRMWARE: "throttled=0x20000"}, "frequency capped"),
        ({FIRMWARE: "20000"}, {FIRMWARE: "20000"}, ""),  # Of earlier.
        ({FIRMWARE: "8"}, {FIRMWARE: "0"}, "soft temperature limit"),
        (
            {},
            {f"{COOLER.format(0)}type": "cpufreq-cpu0", f"{COOLER.format(0)}cur_state": "2"},
            "cooled by cpufreq-cpu0",
        ),
        ({}, {f"{COOLER.format(0)}type": "pwm-fan", f"{COOLER.format(0)}cur_state": "2"}, ""),
        (
            {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7"},
            {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "9"},
            "throttled",
        ),
    ],
)
def test_what_held_the_cpu_back_is_named(before, after, expected):
    assert conditions.compare(before, after)["throttled"] == expected


def test_counts_of_unlike_cores_are_added():
    text = """# started on Mon

120,,armv8_cortex_a53/instructions:u/,9,50.00,,
30,,armv8_cortex_a73/instructions:u/,9,50.00,,
<not supported>,,cache-misses:u,0,100.00,,
77,,cycles:u,9,100.00,,
"""
    assert counters.parse(text) == {"instructions": 150, "cycles": 77}
    assert counters.parse("") == {}


HWMON = "sys/class/hwmon/hwmon{}/"


def test_the_boards_whole_supply_is_the_sensor(tmp_path):
    put(tmp_path, {
        f"{HWMON.format(1)}name": "ina3221", f"{HWMON.format(1)}in1_label": "VDD_IN",
        f"{HWMON.format(1)}in1_input": 5000, f"{HWMON.format(1)}curr1_input": 800,
        f"{HWMON.format(1)}in2_label": "VDD_CPU", f"{HWMON.format(1)}in2_input": 5000,
        f"{HWMON.format(1)}curr2_input": 100,
    })  # fmt: skip
    sensor = power.find(tmp_path)
    assert sensor.name == "ina3221 VDD_IN" and not sensor.counts
    assert sensor.read() == pytest.approx(4.0)


def test_of_several_rails_none_stands_for_the_whole(tmp_path):
    put(tmp_path, {f"{HWMON.format(i)}power1_input": 10**6 for i in (0, 1)})
    assert power.find(tmp_path) is None
    assert power.find(tmp_path / "none") is None


def test_an_energy_counter_comes_first(tmp_path):
    rapl = "sys/class/powercap/intel-rapl:0"
    put(tmp_path, {
        f"{HWMON.format(0)}power1_input": 10**6, f"{rapl}/name": "package-0",
        f"{rapl}/energy_uj": 3_000_000, f"{rapl}/max_energy_range_uj": 10_000_000,
        f"{rapl}:0/name": "core", f"{rapl}:0/energy_uj": 1,
    })  # fmt: skip
    sensor = power.find(tmp_path)
    assert (sensor.name, sensor.counts, sensor.read(), sensor.wraps) == (
        "RAPL package", True, 3.0, 10.0,
    )  # fmt: skip


def test_energy_is_that_of_one_run():
    joules = iter([9.0, 3.0])  # A counter that began anew at 12.
    runs = []
    found = power.joules_per_run(
        power.Sensor("s", lambda: next(joules), True, 12.0), lambda: runs.append(0), 0.0
    )
    assert len(runs) == 3 and found == pytest.approx(2.0)
    constant = power.Sensor("s", lambda: 5.0, False)
    found = power.joules_per_run(constant, lambda: time.sleep(0.01), 0.1)
    assert 0.05 <= found < 0.2  # 5 W for 10 ms and what a sleep takes longer.


def timing(threads=1, **more):
    return Timing("m", "ssh:b", "measured", threads, 5, 1.0, 2.0, 3.0, 4.0, **more)


@pytest.mark.parametrize(
    ("more", "marked"),
    [
        ({}, False),
        ({"load": 9.0}, False),  # Of how many is not known.
        ({"load": 0.4, "cpus": 1}, False),
        ({"load": 1.2, "cpus": 4}, False),
        ({"load": 3.8, "cpus": 4}, True),
        ({"load": float("nan"), "cpus": 4}, False),
        ({"throttled": "under-voltage"}, True),
        ({"cpus": 1}, False),
        ({"cpus": 1, "threads": 2}, True),
        ({"cpus": 0, "threads": 2}, False),
        ({"cpus": 2, "threads": 2}, False),
    ],
)
def test_loaded_and_throttled_results_are_marked(more, marked):
    assert rows.latency_text(timing(**more)).endswith("*") is marked
    notes = rows.condition_notes([Record("s", "m", timing=[timing(**more)])])
    assert any(n.startswith("* ssh:b") for n in notes) is marked


def test_more_threads_than_processors_are_named():
    found = timing(threads=4, cpus=2, load=0.3)
    assert rows.disturbances(found) == ["4 threads on 2 CPUs"]
    assert rows.disturbances(dataclasses.replace(found, source="simulated")) == []
    load = {"threads": 4, "cpus": 2, "load": 2.0}
    assert rows.disturbances(timing(**load)) == ["4 threads on 2 CPUs", "load 2.0 on 2 CPUs"]


def test_the_benchmarks_table_says_what_was_read(capsys):
    found = timing(
        device="Board 3; LiteRT 2.3.0", governor="ondemand", temperature_before=50.2,
        temperature_after=61.0, throttled="under-voltage", instructions=1234567, cycles=7,
        energy_mj=1.5, power_sensor="ina VDD_IN", note="odd",
    )  # fmt: skip
    console = make_console()
    console.print(timing_table([found]))
    said = capsys.readouterr().out
    for words in ("1.00 / 2.00 / 3.00 *", "Board 3; LiteRT 2.3.0; governor ondemand; 50 to 61 °C",
                  "throttled (under-voltage)", "1,234,567 instructions, 7 cycles, 1.5 mJ (ina VDD",
                  "ssh:b: odd."):  # fmt: skip
        assert words in said
    assert from_json(Timing, to_json(found)) == found


def test_old_records_stay_readable():
    old = {"model": "m", "target": "host", "source": "measured", "threads": 1, "runs": 5}
    assert from_json(Timing, old) == Timing("m", "host", "measured", 1, 5)

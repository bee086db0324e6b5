"""Energy of an inference, from a sensor of the board itself.

What a sensor covers is the board's matter: a rail of the CPU, or all of the board. Idle power is
part of it. The sensor is named with the result.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TOTAL = re.compile(r"vdd_in|5v_in|\bvin\b|\btotal\b", re.IGNORECASE)
"""Labels of rails that supply the whole board."""

SECONDS, _SAMPLE_S = 1.0, 0.01
_LEAST = 3


@dataclass(frozen=True)
class Sensor:
    """A power or energy sensor.

    Attributes:
        name: What it is called, with its label.
        read: Joules so far where `counts`, else watts at the moment.
        counts: True for a counter of energy.
        wraps: Joules at which a counter begins anew; 0 where unknown.
    """

    name: str
    read: Callable[[], float]
    counts: bool
    wraps: float = 0.0


def find(root: Path = Path("/")) -> Sensor | None:
    """The sensor to use: an energy counter, else one of power; None where none can be read.

    Args:
        root: The folder that stands for /.
    """
    found = [*_packages(root), *_counters(root)] or _only([*_powers(root), *_rails(root)])
    for sensor in found:
        try:
            sensor.read()
        except (OSError, ValueError):  # Often for the superuser only.
            continue
        return sensor
    return None


def _packages(root: Path) -> list[Sensor]:
    """Intel's and AMD's counters (RAPL): all processor packages together."""
    zones = [
        z for z in sorted(root.glob("sys/class/powercap/*-rapl:[0-9]*"))
        if z.name.count(":") == 1 and _text(z / "name").startswith("package")
    ]  # fmt: skip
    if not zones:
        return []
    paths = [z / "energy_uj" for z in zones]
    # Two packages begin anew at different times: only one can be followed round.
    wraps = _number(zones[0] / "max_energy_range_uj") / 1e6 if len(zones) == 1 else 0.0
    return [Sensor("RAPL package", lambda: sum(map(_number, paths)) / 1e6, True, wraps)]


def _counters(root: Path) -> list[Sensor]:
    paths = sorted(root.glob("sys/class/hwmon/hwmon*/energy[0-9]*_input"))
    return [_hwmon(path, 1e6, True) for path in paths[:1]] if len(paths) == 1 else []


def _powers(root: Path) -> list[Sensor]:
    hwmon = [
        _hwmon(p, 1e6, False) for p in sorted(root.glob("sys/class/hwmon/hwmon*/power[0-9]*_input"))
    ]
    iio = sorted(root.glob("sys/bus/iio/devices/iio:device*/in_power[0-9]*_input"))
    for path in iio:
        number = re.sub(r"\D", "", path.name)
        label = _text(path.with_name(f"rail_name_{number}"))
        hwmon.append(Sensor(f"{path.name} {label}".strip(), _reader(path, 1e3), False))
    return hwmon


def _rails(root: Path) -> list[Sensor]:
    """Sensors of voltage and current (INA3221): watts are their product."""
    found = []
    for label in sorted(root.glob("sys/class/hwmon/hwmon*/in[0-9]*_label")):
        number = re.sub(r"\D", "", label.name)
        volt, ampere = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        if volt.is_file() and ampere.is_file():
            name = f"{_text(label.with_name('name'))} {_text(label)}"
            found.append(Sensor(name, _product(volt, ampere), False))
    return found


def _only(sensors: list[Sensor]) -> list[Sensor]:
    """The board's whole supply, or the one there is; of several others none says the whole."""
    total = [s for s in sensors if _TOTAL.search(s.name)]
    return total[:1] or (sensors if len(sensors) == 1 else [])


def _hwmon(path: Path, scale: float, counts: bool) -> Sensor:
    label = _text(path.with_name(path.name.replace("_input", "_label")))
    name = " ".join(w for w in (_text(path.with_name("name")), label or path.stem) if w)
    return Sensor(name, _reader(path, scale), counts)


def _reader(path: Path, scale: float) -> Callable[[], float]:
    return lambda: _number(path) / scale


def _product(volt: Path, ampere: Path) -> Callable[[], float]:
    return lambda: _number(volt) * _number(ampere) / 1e6  # mV * mA


def _text(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.is_file() else ""


def _number(path: Path) -> float:
    return float(path.read_text())


def joules_per_run(sensor: Sensor, run: Callable[[], object], seconds: float = SECONDS) -> float:
    """Mean energy of one call of `run`, over at least `seconds` and three calls.

    Power is sampled every 10 ms by a thread beside the calls, and its mean times the time is
    taken; sensors that look less often than that only need more seconds to be right.

    Raises:
        OSError: The sensor cannot be read any more.
        ValueError: It gives no number.
    """
    samples, done = [sensor.read()], threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            samples.append(sensor.read())

    watcher = threading.Thread(target=watch, daemon=True)
    if not sensor.counts:
        watcher.start()
    begin, calls = time.perf_counter(), 0
    while calls < _LEAST or time.perf_counter() - begin < seconds:
        run()
        calls += 1
    elapsed = time.perf_counter() - begin
    done.set()
    if not sensor.counts:
        watcher.join()
        return sum(samples) / len(samples) * elapsed / calls
    used = sensor.read() - samples[0]
    return (used + sensor.wraps if used < 0 else used) / calls

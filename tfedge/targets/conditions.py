"""What a machine's CPU was like around a measurement: governor, temperature, throttling.

Linux tells these in files under /sys. They are read as text first, also on machines that are
reached by a shell alone, and understood afterwards. What a system does not tell stays empty: no
sign of throttling is no proof that there was none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PATTERNS = (
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count",
    "sys/class/thermal/thermal_zone*/type",
    "sys/class/thermal/thermal_zone*/temp",
    "sys/class/thermal/cooling_device*/type",
    "sys/class/thermal/cooling_device*/cur_state",
    "sys/devices/platform/soc*/soc*firmware/get_throttled",
)
"""Files below / that say something, as the shell's patterns."""

_FIRMWARE = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Bits 0 to 3 of a Raspberry Pi's get_throttled: now; 16 to 19: since it was last asked or on."""

_CPU_ZONE = re.compile(r"cpu|soc|pkg|core|cluster", re.IGNORECASE)
_CPU_COOLER = re.compile(r"cpufreq|processor", re.IGNORECASE)

Files = Mapping[str, str]
"""Text by path below /, for those of `PATTERNS` that are there and can be read."""


def read(root: Path = Path("/")) -> dict[str, str]:
    """Reads the files of this machine.

    Args:
        root: The folder that stands for /.
    """
    found: dict[str, str] = {}
    for pattern in PATTERNS:
        for path in sorted(root.glob(pattern)):
            try:
                found[path.relative_to(root).as_posix()] = path.read_text(errors="replace").strip()
            except OSError:  # Some sensors are there and have nothing to say.
                continue
    return found


def compare(before: Files, after: Files) -> dict[str, Any]:
    """What the files say about the time between two readings.

    Returns:
        "governor" (several joined by "+", "" where unknown), "temperature_before" and
        "temperature_after" (degrees Celsius of the CPU's hottest zone, None where unknown), and
        "throttled": what held the CPU back, or "".
    """
    governors = sorted({v for p, v in after.items() if p.endswith("/scaling_governor") and v})
    return {
        "governor": "+".join(governors),
        "temperature_before": _temperature(before),
        "temperature_after": _temperature(after),
        "throttled": ", ".join(dict.fromkeys(_held_back(before, after))),
    }


def _temperature(files: Files) -> float | None:
    """The hottest of the zones whose type names the CPU; of all, where none does."""
    zones = [
        (bool(_CPU_ZONE.search(files.get(f"{path[:-5]}/type", ""))), value / 1000)
        for path, value in _numbers(files, "/temp")
    ]
    of_cpu = [t for cpu, t in zones if cpu] or [t for _, t in zones]
    return max(of_cpu, default=None)


def _held_back(before: Files, after: Files) -> Iterator[str]:
    for path, text in after.items():
        if path.endswith("/get_throttled"):
            now, earlier = _hex(text), _hex(before.get(path, ""))
            fresh = (now | earlier | ((now & ~earlier) >> 16)) & 0xF
            yield from (word for bit, word in enumerate(_FIRMWARE) if fresh >> bit & 1)
    for files in (before, after):
        for path, state in _numbers(files, "/cur_state"):
            kind = files.get(f"{path[:-10]}/type", "")
            if state > 0 and _CPU_COOLER.search(kind):
                yield f"cooled by {kind}"
    counts = dict(_numbers(before, "/core_throttle_count"))
    if any(n > counts.get(p, n) for p, n in _numbers(after, "/core_throttle_count")):
        yield "throttled"


def _numbers(files: Files, ending: str) -> Iterator[tuple[str, int]]:
    for path, text in files.items():
        if path.endswith(ending) and re.fullmatch(r"-?\d+", text):
            yield path, int(text)


def _hex(text: str) -> int:
    digits = text.rpartition("=")[2].strip().removeprefix("0x")
    return int(digits, 16) if re.fullmatch(r"[0-9a-fA-F]+", digits) else 0

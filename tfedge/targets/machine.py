"""What the machine is: instruction sets that matter to the kernels, load, memory."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path

_FEATURES = (
    "amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx", "sse4_1",
    "sme2", "sme", "sve2", "sve", "i8mm", "asimddp", "asimdhp", "asimd", "neon",
)  # fmt: skip
_BOARD = "/proc/device-tree/model"
_CPUINFO, _STATUS, _CLEAR_REFS = "/proc/cpuinfo", "/proc/self/status", "/proc/self/clear_refs"


def isa(*, amx: bool = True) -> str:
    """This machine's architecture and the instruction sets that XNNPACK's kernels go by.

    Args:
        amx: False where the process is refused AMX; a machine that has it then shows "amx_off".

    Returns:
        For example "x86_64 avx512_vnni avx512f avx2 avx sse4_1" or "aarch64 i8mm asimddp asimd";
        the architecture alone where the system does not list its features (macOS, Windows).
    """
    path = Path(_CPUINFO)
    text = path.read_text(errors="replace") if path.is_file() else ""
    found = isa_of(platform.machine(), text)
    return found if amx else found.replace("amx_int8", "amx_off")


def isa_of(machine: str, cpuinfo: str) -> str:
    """The string of `isa` from an architecture and the text of /proc/cpuinfo.

    Args:
        machine: For example "x86_64".
        cpuinfo: The text; features are words of its "flags" (x86) or "Features" (ARM) lines. On a
            machine of unlike cores only what all cores have counts.
    """
    sets = [
        set(value.split())
        for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())
        if key.strip() in ("flags", "Features")
    ]
    common = set.intersection(*sets) if sets else set()
    return " ".join([machine, *(f for f in _FEATURES if f in common)])


def load_average() -> float:
    """Processes running or waiting, mean of the last minute; NaN where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def processors() -> int:
    """Processors that this process may run on; 0 where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def describe(runtime: str) -> str:
    """The board's own name where the system knows it, else the CPU's, and the runtime.

    Args:
        runtime: Version of LiteRT.

    Returns:
        For example "Raspberry Pi 4 Model B Rev 1.4; LiteRT 2.3.0".
    """
    board, cpus = Path(_BOARD), Path(_CPUINFO)
    name = board.read_text(errors="replace").strip("\0 \n") if board.is_file() else ""
    if not name and cpus.is_file():
        lines = [line.partition(":") for line in cpus.read_text(errors="replace").splitlines()]
        name = next((v.strip() for k, _, v in lines if k.strip() == "model name"), "")
    return "; ".join(part for part in (name, f"LiteRT {runtime}") if part)


class PeakMemory:
    """Peak of this process's resident memory since the object was made.

    On Linux the kernel's own mark is reset and read; elsewhere (or where the reset is refused) the
    mark of the whole process's life is taken, which hides a peak that is lower than an earlier one.
    Windows gives 0.
    """

    def __init__(self) -> None:
        # Some containers refuse the write: then an earlier peak may hide this one's start.
        with contextlib.suppress(OSError):
            Path(_CLEAR_REFS).write_text("5")
        self._start = _status_kb("VmRSS") or _lifetime_kb()

    def megabytes(self) -> float:
        """Peak above the start, in 10^6 bytes; at least 0."""
        peak = _status_kb("VmHWM") or _lifetime_kb()
        return max(0.0, (peak - self._start) * 1024 / 1e6)


def _status_kb(key: str) -> float:
    path = Path(_STATUS)
    if not path.is_file():
        return 0.0
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return float(value.split()[0])
    return 0.0


def _lifetime_kb() -> float:
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak / 1024 if sys.platform == "darwin" else peak

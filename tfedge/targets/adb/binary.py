"""The benchmark_model that the user gives."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tfedge.errors import TargetError

VARIABLE = "TFEDGE_BENCHMARK_MODEL"
_FIX = f"Let ${VARIABLE} name the benchmark_model built for the device"
_ABIS = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86", 243: "riscv64"}
"""ELF's numbers of machines -> Android's names."""


def find() -> Path:
    """The tool.

    Raises:
        TargetError: $TFEDGE_BENCHMARK_MODEL names no file.
    """
    given = os.environ.get(VARIABLE, "")
    path = Path(given).expanduser().absolute()
    if not given or not path.is_file():
        found = f"{VARIABLE}={given}" if given else f"{VARIABLE} is not set"
        raise TargetError("there is no benchmark_model", found, _FIX)
    return path


def require_fit(path: Path, abis: str, device: str) -> None:
    """Refuses a tool of another architecture than the device's.

    Args:
        path: The tool; what is no ELF file (a script) is left to the device.
        abis: What the device runs, for example "arm64-v8a,armeabi-v7a"; "" where unknown.
        device: Its name, for the message.

    Raises:
        TargetError: It is of another.
    """
    with path.open("rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20 or not abis:
        return
    (number,) = struct.unpack("<H", head[18:20])
    abi = _ABIS.get(number, f"ELF machine {number}")
    if abi not in abis.split(","):
        found = f"{path.name} is for {abi}, the device runs {abis}"
        raise TargetError(f"this benchmark_model does not run on {device}", found, _FIX)

"""On the board: unpacks the runtime's wheels into the user's cache folder, or removes it.

The bootstrap calls `main`. The place is $TFEDGE_RUNTIME; it is there as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tfedge.shell import run

_TRY = "import flatbuffers, numpy, ai_edge_litert.interpreter as i; i.Interpreter"


def main(folder: Path) -> tuple[str, bytes]:
    """Installs the wheels of request.zip in a folder, or removes the runtime where there are none.

    Returns:
        "reply" and JSON: "place", and "removed" or "problem": why the runtime does not load (""
        where it does).
    """
    return "reply", json.dumps(_install(folder)).encode()


def _install(folder: Path) -> dict[str, Any]:
    place = Path(os.environ["TFEDGE_RUNTIME"])
    with zipfile.ZipFile(folder / "request.zip") as request:
        wheels = [name for name in request.namelist() if name.endswith(".whl")]
        if not wheels:
            there = place.is_dir()
            shutil.rmtree(place, ignore_errors=True)
            return {"place": str(place), "removed": there}
        place.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            for name in wheels:
                with request.open(name) as data, zipfile.ZipFile(data) as wheel:
                    _unpack(wheel, building)
            problem = _problem(building)
            if not problem:
                shutil.rmtree(place, ignore_errors=True)
                building.rename(place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return {"place": str(place), "problem": problem}


def _unpack(wheel: zipfile.ZipFile, into: Path) -> None:
    wheel.extractall(into)  # zipfile itself keeps names inside the folder.
    for data in into.glob("*.data"):
        for part in ("purelib", "platlib"):
            if (data / part).is_dir():
                shutil.copytree(data / part, into, dirs_exist_ok=True)
        shutil.rmtree(data)


def _problem(place: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(place)}
    ended = run([sys.executable, "-B", "-c", _TRY], env=env, timeout=300)
    said = [line for line in ended.error_text.splitlines() if line.strip()]
    return "; ".join([ended.ending, *said[-1:]]) if ended.code else ""

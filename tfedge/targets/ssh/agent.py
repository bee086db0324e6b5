"""On the board: runs the requests of one connection, each in a process of its own.

`python3 -m` this, with the folder that holds request.zip. It stops at the first request that
fails, and puts what there is into reply.zip.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tfedge.errors import TargetError
from tfedge.shell import run_module
from tfedge.targets.ssh import wire

NEEDED = ("numpy", "flatbuffers", "ai_edge_litert")
"""Packages that the worker imports."""

WORKER, MISSING = "tfedge.targets.host_worker", 3


def main(folder: Path) -> int:
    """Answers request.zip of a folder by reply.zip.

    The values of a reply are "late" (what was said when a process took too long), or "code", "err"
    (the last of standard error) and "answer" (its values, None where it died).

    Returns:
        Exit status: 0, or `MISSING` where the board lacks a package, named on standard output.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(", ".join(missing))
        return MISSING
    replies: list[wire.Item] = []
    for values, arrays in wire.unpack((folder / "request.zip").read_bytes()):
        replies.append(_answer(values, arrays))
        found = replies[-1][0].get("answer")
        if found is None or "error" in found:
            break
    (folder / "reply.zip").write_bytes(wire.pack(replies))
    return 0


def _answer(request: dict[str, Any], arrays: dict[str, Any]) -> wire.Item:
    try:
        ended = run_module(WORKER, request["values"], arrays, timeout=request["timeout_s"])
    except TargetError as error:
        return {"late": error.found}, {}
    values = {"code": ended.finished.code, "err": ended.finished.error_text[-4000:]}
    if ended.answer is None:
        return {**values, "answer": None}, {}
    return {**values, "answer": ended.answer.values}, ended.answer.arrays


def _end(number: int, _: Any) -> None:
    sys.exit(128 + number)  # An exception, so that a worker is ended too.


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(Path(sys.argv[1])))

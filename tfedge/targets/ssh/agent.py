"""On the board: runs the requests of one connection, each in a process of its own.

The bootstrap calls `main`. Where it raises one of its signals' exceptions meanwhile, the process
that runs is ended. numpy may be missing there: it is imported late.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tfedge.errors import TargetError
from tfedge.shell import run_module
from tfedge.targets.ssh import wire

NEEDED = ("numpy", "flatbuffers", "ai_edge_litert")
"""Packages that the worker imports."""

WORKER = "tfedge.targets.host_worker"


def main(folder: Path) -> tuple[str, bytes]:
    """Answers request.zip of a folder; stops at the first request that fails.

    The values of a reply are "late" (what was said when a process took too long), or "code", "err"
    (the last of standard error) and "answer" (its values, None where it died).

    Returns:
        "reply" and the packed replies; or "missing" and the packages that the board lacks.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return "missing", ", ".join(missing).encode()
    replies: list[wire.Item] = []
    for values, arrays in wire.unpack((folder / "request.zip").read_bytes()):
        replies.append(_answer(values, arrays))
        found = replies[-1][0].get("answer")
        if found is None or "error" in found:
            break
    return "reply", wire.pack(replies)


def _answer(request: dict[str, Any], arrays: dict[str, Any]) -> wire.Item:
    try:
        ended = run_module(WORKER, request["values"], arrays, timeout=request["timeout_s"])
    except TargetError as error:
        return {"late": error.found}, {}
    values = {"code": ended.finished.code, "err": ended.finished.error_text[-4000:]}
    if ended.answer is None:
        return {**values, "answer": None}, {}
    return {**values, "answer": ended.answer.values}, ended.answer.arrays

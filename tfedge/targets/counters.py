"""Hardware events of one inference, from `perf stat`.

perf counts a whole process. Two processes that differ in their number of inferences only are
counted, and their difference is divided by the difference in number: start-up falls out. Events of
user space only, of all threads.
"""

from __future__ import annotations

import shutil
from typing import Any

from tfedge.errors import TargetError
from tfedge.shell import Answer, run_module

EVENTS = ("instructions", "cycles", "cache-misses")
_FEW, _MORE_S, _TIMEOUT_S = 5, 0.3, 600.0
_LEAST, _MOST = 10, 20_000
_OUTPUT = "perf.txt"


def count(module: str, values: dict[str, Any], arrays: dict[str, Any], seconds: float) -> Answer:
    """Counts a file's events.

    Args:
        module: The worker, which knows the task "repeat" with "times".
        values: Further values for it.
        arrays: "file", uint8.
        seconds: About what an inference takes.

    Returns:
        "instructions", "cycles", "cache_misses" per inference, None where the processor or the
        system does not count them; "why" says what failed, or "".
    """
    perf = shutil.which("perf")
    if perf is None:
        return Answer({"why": "perf is not installed"})
    many = _FEW + int(min(max(_MORE_S / max(seconds, 1e-9), _LEAST), _MOST))
    found = []
    for times in (_FEW, many):
        request = {**values, "do": "repeat", "times": times}
        under = [
            perf,
            "stat",
            "-x",
            ",",
            "-o",
            _OUTPUT,
            "-e",
            ",".join(f"{e}:u" for e in EVENTS),
        ]
        with_text = _Counted(module, request, arrays, [*under, "--"])
        if with_text.why:
            return Answer({"why": with_text.why})
        found.append(with_text.events)
    per = {e: _per(found[0].get(e), found[1].get(e), many - _FEW) for e in EVENTS}
    why = "" if any(v is not None for v in per.values()) else "perf cannot count events here"
    return Answer({**{e.replace("-", "_"): v for e, v in per.items()}, "why": why})


class _Counted:
    """One process under perf: its events, or why there are none."""

    def __init__(
        self, module: str, values: dict[str, Any], arrays: dict[str, Any], under: list[str]
    ) -> None:
        self.why, self.events = "", dict[str, int]()
        try:
            ended = run_module(
                module, values, arrays, timeout=_TIMEOUT_S, under=under, kept=(_OUTPUT,)
            )
        except TargetError as error:
            self.why = error.found or error.what
            return
        if ended.answer is None:
            said = ended.finished.error_text.strip().splitlines()
            self.why = "perf: " + (said[0] if said else ended.finished.ending)
        self.events = parse(ended.kept.get(_OUTPUT, b"").decode("utf-8", "replace"))


def parse(text: str) -> dict[str, int]:
    """Counts by event from the output of `perf stat -x ,`.

    Args:
        text: Lines "value,unit,event,..."; processors with unlike cores have a line for each kind
            of core ("armv8_cortex_a53/instructions:u/"), which are added. What was not counted is
            left out.
    """
    found: dict[str, int] = {}
    for line in text.splitlines():
        value, _, rest = line.partition(",")
        fields = rest.split(",")
        event = next((e for e in EVENTS if len(fields) > 1 and e in fields[1]), None)
        if event and value.strip().isdigit():
            found[event] = found.get(event, 0) + int(value)
    return found


def _per(few: int | None, many: int | None, inferences: int) -> int | None:
    if few is None or many is None or many < few:
        return None
    return round((many - few) / inferences)

"""Hardware events of one inference, from `perf stat`.

perf counts a whole process. Two processes that differ in their number of inferences only are
counted, and their difference is divided by the difference in number: start-up falls out. Events of
user space only, of all threads.
"""

from __future__ import annotations

import shutil
from typing import Any

from tfedge.errors import TargetError
from tfedge.shell import Answer, run, run_module

EVENTS = ("instructions", "cycles", "cache-misses")
_FEW, _MORE_S, _TIMEOUT_S = 5, 0.3, 600.0
_LEAST, _MOST = 10, 20_000
_OUTPUT = "perf.txt"


def problem() -> str:
    """Why perf cannot count events on this machine, or ""."""
    if not shutil.which("perf"):
        return "perf is not installed"
    ended = run([*_command("-"), "true"], timeout=_TIMEOUT_S)
    return "" if parse(ended.error_text) else "perf cannot count events here"


def _command(output: str) -> list[str]:
    """Perf with its options; the program follows. "-" for standard error."""
    into = [] if output == "-" else ["-o", output]
    events = ",".join(f"{event}:u" for event in EVENTS)
    return ["perf", "stat", "-x", ",", *into, "-e", events, "--"]


def count(module: str, values: dict[str, Any], arrays: dict[str, Any], seconds: float) -> Answer:
    """Counts a file's events.

    Args:
        module: The worker, which knows the task "repeat" with "times".
        values: Further values for it.
        arrays: "file", uint8.
        seconds: About what an inference takes.

    Returns:
        "instructions", "cycles", "cache_misses" per inference, None where the processor or the
        system does not count them; or "why": what failed.
    """
    many = _FEW + int(min(max(_MORE_S / max(seconds, 1e-9), _LEAST), _MOST))
    found = []
    for times in (_FEW, many):
        one = _Counted(
            module, {**values, "do": "repeat", "times": times}, arrays, _command(_OUTPUT)
        )
        if one.why:
            return Answer({"why": one.why})
        found.append(one.events)
    per = {e: _per(found[0].get(e), found[1].get(e), many - _FEW) for e in EVENTS}
    return Answer({e.replace("-", "_"): v for e, v in per.items()})


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

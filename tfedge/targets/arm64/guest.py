"""One run of the emulator: a file and its inputs in; outputs, counts and profile out.

All that the emulator is told of are fixed names in a folder of its own, so that no name of a
model, and no folder of the user's, can be taken for an option.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tfedge.errors import TargetError
from tfedge.shell import Finished, run
from tfedge.targets.arm64.installation import Installation

_BEFORE, _AFTER = 1_000_000, 2_000_000
_MODEL, _INPUTS, _OUTPUTS, _LOG, _COUNTER = "model", "inputs", "outputs", "log", "counter"
_FIX = "Check the file with tfedge inspect; it may run on other targets"


@dataclass(frozen=True)
class Mix:
    """Instructions by class; see classes.h. The classes overlap: `dot` is a part of `neon`.

    Attributes:
        instructions: All of them.
        loads: That read memory, scalar or vector.
        stores: That write memory.
        neon: SIMD and floating-point arithmetic and moves.
        dot: Of these, 8-bit dot and matrix products: SDOT, UDOT, SMMLA, UMMLA and their like.
        fmla: Of these, fused multiply-adds of float vectors.
        smlal: Of these, widening integer multiplications: SMLAL, SMULL and their like.
        branches: Branches and system instructions.
        bytes: Bytes that loads and stores move between registers and memory (or cache).
    """

    instructions: int = 0
    loads: int = 0
    stores: int = 0
    neon: int = 0
    dot: int = 0
    fmla: int = 0
    smlal: int = 0
    branches: int = 0
    bytes: int = 0

    def __sub__(self, other: Mix) -> Mix:
        """What lies between two counts."""
        pairs = zip(self.values, other.values, strict=True)
        return Mix(*(a - b for a, b in pairs))

    def __add__(self, other: Mix) -> Mix:
        """Both together."""
        pairs = zip(self.values, other.values, strict=True)
        return Mix(*(a + b for a, b in pairs))

    def less(self, other: Mix, times: int) -> Mix:
        """Without some times another count, nowhere below 0."""
        pairs = zip(self.values, other.values, strict=True)
        return Mix(*(max(0, a - times * b) for a, b in pairs))

    @property
    def values(self) -> tuple[int, ...]:
        """The counts in the order of the fields, which is that of the log."""
        return tuple(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True)
class End:
    """An input or output as the runtime has it: its name, bytes, and sizes (outputs only)."""

    name: str
    bytes: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Event:
    """An event of the runtime's profiler, in instructions instead of time.

    Attributes:
        type: 2 an op of the file, 8 an op inside the delegate, others the runtime's own.
        index: Position in the file, or in the delegate's partition.
        subgraph: Subgraph of the file.
        start: Instructions before it; 0 for those inside the delegate.
        length: Instructions it took.
        tag: Its name.
    """

    type: int
    index: int
    subgraph: int
    start: int
    length: int
    tag: str


@dataclass(frozen=True)
class Reply:
    """What a run of the emulator gave.

    Attributes:
        inferences: Counts of each inference, in order.
        clocks: Counts at each look at the clock of the profiled inference. Two that follow each
            other come first: they lie as far apart as a look takes.
        events: The profile; empty where none was asked for.
        ends: Outputs, in the order of `outputs`.
        outputs: Bytes of the outputs, one inference after another.
    """

    inferences: tuple[Mix, ...]
    clocks: tuple[Mix, ...]
    events: tuple[Event, ...]
    ends: tuple[End, ...]
    outputs: bytes


def emulate(
    found: Installation, cpu: str, data: bytes, inputs: Sequence[bytes], timeout: float
) -> Reply:
    """Runs a file once for each input, without a profiler.

    Args:
        found: The set-up.
        cpu: A name of `tfedge.targets.arm64.cpus.CPUS`.
        data: The whole file.
        inputs: Inputs of each inference, in the order of the file's signature.
        timeout: Seconds.

    Raises:
        TargetError: The file fails there, or takes longer.
    """
    return _emulate(found, cpu, data, inputs, timeout)


def emulate_profiled(
    found: Installation, cpu: str, data: bytes, inputs: bytes, timeout: float
) -> Reply:
    """Runs a file twice, the second time under the runtime's profiler; see `emulate`.

    The first inference packs and allocates what later ones find in place.
    """
    return _emulate(found, cpu, data, [inputs], timeout, profiled=True)


def _emulate(
    found: Installation,
    cpu: str,
    data: bytes,
    inputs: Sequence[bytes],
    timeout: float,
    *,
    profiled: bool = False,
) -> Reply:
    with tempfile.TemporaryDirectory(prefix="tfedge-") as name:
        place = Path(name)
        (place / _MODEL).write_bytes(data)
        (place / _INPUTS).write_bytes(b"".join(inputs))
        shutil.copyfile(found.plugin, place / found.plugin.name)
        (place / found.library.name).symlink_to(found.library)
        plugin = f"./{found.plugin.name},out={_LOG},counter={_COUNTER}"
        words = [f"./{found.library.name}", _MODEL, _INPUTS, _OUTPUTS, str(len(inputs))]
        argv = [*found.emulator(cpu), "-plugin", plugin, str(found.runner), *words]
        # An empty environment: nothing of the user's changes what the program does.
        ended = run([*argv, str(int(profiled)), _COUNTER], cwd=place, env={}, timeout=timeout)
        if ended.code:
            raise TargetError("the file fails", reason(ended), _FIX)
        inferences, clocks = parse_log((place / _LOG).read_text())
        ends, events = parse_report(ended.out.decode("ascii"))
        return Reply(inferences, clocks, events, ends, (place / _OUTPUTS).read_bytes())


def reason(ended: Finished) -> str:
    """What the runtime said: its errors, else the last line, else how the process ended."""
    lines = [line.strip() for line in ended.error_text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    said = errors or [line for line in lines[-1:] if not line.startswith(("INFO", "WARNING"))]
    return "; ".join(dict.fromkeys(said)) or ended.ending


def parse_log(text: str) -> tuple[tuple[Mix, ...], tuple[Mix, ...]]:
    """Reads the plugin's log.

    Args:
        text: Lines of an event ("mark", "clock", "exit"), its number, and all counts so far.

    Returns:
        Counts of each inference (between its marks), and counts so far at each look at the clock.

    Raises:
        TargetError: The log is cut short, or is not one.
    """
    marks: dict[int, Mix] = {}
    clocks: list[Mix] = []
    last = ""
    try:
        for line in text.splitlines():
            last, number, *counts = line.split()
            mix = Mix(*map(int, counts))
            if len(counts) != len(fields(Mix)):
                raise ValueError(line)
            if last == "mark":
                marks[int(number)] = mix
            elif last == "clock":
                clocks.append(mix)
        if last != "exit":
            raise ValueError("no last line")
        begins = [number for number in marks if number < _AFTER]
        inferences = [marks[n - _BEFORE + _AFTER] - marks[n] for n in begins]
    except (ValueError, TypeError, KeyError) as error:
        fix = "Run the set-up again"
        raise TargetError("the counter's log cannot be read", str(error), fix) from error
    return tuple(inferences), tuple(clocks)


def parse_report(text: str) -> tuple[tuple[End, ...], tuple[Event, ...]]:
    """Reads what the runner wrote: outputs and events; see runner.c.

    Raises:
        TargetError: It is cut short, or is no report.
    """
    ends: list[End] = []
    events: list[Event] = []
    try:
        for line in text.splitlines():
            kind, *words = line.split(" ")
            if kind == "output":
                shape = tuple(int(size) for size in words[2].split(",") if size)
                ends.append(End(_text(words[0]), int(words[1]), shape))
            elif kind == "event":
                number, index, graph, start, length = (int(word) for word in words[:5])
                events.append(Event(number, index, graph, start, length, _text(words[5])))
    except (ValueError, IndexError, TypeError) as error:
        raise TargetError("the emulated program's report cannot be read", str(error)) from error
    return tuple(ends), tuple(events)


def _text(word: str) -> str:
    return bytes.fromhex(word.removeprefix("=")).decode("utf-8", "replace")

"""An Ethos-U NPU as a target: Vela compiles the file and estimates; nothing is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tfedge.errors import InputError, TargetError
from tfedge.record import Timing
from tfedge.targets.base import Violation
from tfedge.targets.ethosu.chips import Chip, chip
from tfedge.targets.ethosu.vela import Estimate, Piece, estimate
from tfedge.targets.extras import package_version
from tfedge.targets.op_table import OpRow, OpTable
from tfedge.tflite import flatbuffer
from tfedge.tflite.fast16 import elsewhere_note
from tfedge.tflite.layers import op_layers

COLUMNS = (
    "cycles", "MACs", "SRAM in use, bytes", "SRAM bytes moved", "DRAM bytes moved",
    "flash bytes moved",
)  # fmt: skip
_FOLDED = "folded into its neighbours"
_UNSAID = "Vela gives no reason"
_CONTROL = frozenset(("CALL", "CALL_ONCE", "IF", "WHILE"))
_ONCE = "it chooses or repeats other subgraphs, whose ops are counted once each"


@dataclass(frozen=True)
class EthosuTarget:
    """Estimates files on an NPU with Vela, Arm's compiler for it; needs `tfedge[ethosu]`.

    Cycles, times and traffic are Vela's model of the NPU in the system that the name says. Ops
    that stay on the CPU cost nothing in it: then the time is a bound that no inference falls
    below, and a note says so.

    Attributes:
        where: "NPU", "NPU:SYSTEM" or "NPU:SYSTEM:MODE" as `tfedge.targets.ethosu.chips.chip`
            reads it, for example "u55-128".
        timeout_s: Seconds that Vela may take for a file.
    """

    where: str
    timeout_s: float = 1800.0
    source: ClassVar[str] = "simulated"
    kernels: ClassVar[str] = "NPU"
    executes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        chip(self.where)

    @property
    def chip(self) -> Chip:
        """The NPU and its system."""
        return chip(self.where)

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        return f"ethosu:{self.chip.name}"

    def prepare(self, threads: int = 1) -> None:
        """Finds Vela.

        Args:
            threads: Must be 1: an NPU has none.

        Raises:
            InputError: More threads, or fewer.
            TargetError: Vela is not installed; the message says how to.
        """
        if threads != 1:
            raise InputError(f"{self.name} has no threads", f"{threads} threads", "Ask for 1")
        package_version("ethosu")

    def check(self, data: bytes) -> list[Violation]:
        """Says which ops stay on the CPU and why; fatal where Vela fails or nothing is left for it.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: Vela is not installed.
        """
        self.prepare()
        try:
            mapped = self._mapped("the file", data)
        except TargetError as error:
            return [Violation(str(error), fatal=True)]
        found = [
            Violation(f"stays on the CPU: {row.why}", fatal=False, op=row.index, name=row.op)
            for row in mapped.rows
            if row.place == "CPU"
        ]
        if not mapped.on_npu:
            found.insert(0, Violation(mapped.note, fatal=True))
        return found

    def run(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Nothing runs here.

        Args:
            data: The whole file.
            inputs: Not looked at.

        Raises:
            InputError: It is no TFLite file.
            TargetError: Always else.
        """
        del inputs
        _read("the file", data)
        raise TargetError(
            f"{self.name} cannot run a file",
            "Vela compiles it and estimates its costs; it computes no outputs",
            "Compare outputs on another target, tflm for example",
        )

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """Estimates an inference of each file.

        Args:
            models: Files by name.
            runs: Not needed: an estimate is the same each time.
            threads: Must be 1.

        Returns:
            One Timing per file, in order, with `runs` 1. Where the whole file is on the NPU,
            `min_ms` and `p50_ms` are both the estimate; where ops stay on the CPU, `min_ms` is the
            NPU's part and `p50_ms` None; where all do, or the NPU runs ops of loops or branches,
            both are None. `ratio_min` and `ratio_p50`
            are the quotients of these with the first file's, None where one is missing or there is
            only one file. `isa` has the NPU, system, memory mode, clock and version of Vela.

        Raises:
            InputError: `runs` or `threads` below 1, several threads, or no TFLite file.
            TargetError: Vela is not installed, or cannot compile a file; the message names it.
        """
        if runs < 1 or threads < 1:
            raise InputError("runs and threads must be at least 1", f"{runs} and {threads}")
        self.prepare(threads)
        found = [self._timing(name, data) for name, data in models.items()]
        if len(found) < 2:
            return found
        return [
            replace(
                timing,
                ratio_p50=_quotient(timing.p50_ms, found[0].p50_ms),
                ratio_min=_quotient(timing.min_ms, found[0].min_ms),
            )
            for timing in found
        ]

    def costs(self, data: bytes) -> OpTable:
        """Cycles and traffic of each op, and what stays on the CPU and why.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: Vela is not installed, or cannot compile the file.
        """
        self.prepare()
        mapped = self._mapped("the file", data)
        found = mapped.estimate
        facts = (
            *self._facts(found),
            f"{found.cycles:,} cycles, {found.seconds * 1e6:,.1f} us on the NPU",
            f"in use at most: {found.sram:,} bytes of SRAM, {found.dram:,} of DRAM, "
            f"{found.flash:,} of flash",
        )
        notes = (mapped.note,) if mapped.note else ()
        return OpTable(self.name, self.source, COLUMNS, mapped.rows, COLUMNS[0], facts, notes)

    def _timing(self, name: str, data: bytes) -> Timing:
        mapped = self._mapped(f"model '{name}'", data)
        found, total = mapped.estimate, mapped.total
        ms = found.seconds * 1e3 if mapped.on_npu and not mapped.branches else None
        return Timing(
            model=name,
            target=self.name,
            source=self.source,
            threads=1,
            runs=1,
            min_ms=ms,
            p50_ms=None if mapped.on_cpu else ms,
            bytes=len(data),
            delegated_ops=total - mapped.on_cpu,
            total_ops=total,
            partitions=found.streams,
            isa=", ".join(self._facts(found)),
            delegate=self.kernels,
            cycles=found.cycles if mapped.on_npu else None,
            sram_peak_bytes=found.sram,
            dram_traffic_bytes=found.dram_traffic,
            flash_traffic_bytes=found.flash_traffic,
            note="; ".join(t for t in (mapped.note, elsewhere_note(data)) if t),
        )

    def _facts(self, found: Estimate) -> tuple[str, ...]:
        place = self.chip
        return (
            f"Ethos-{place.npu.upper()}", place.system, place.mode, f"{found.clock_mhz:g} MHz",
            f"Vela {package_version('ethosu')}",
        )  # fmt: skip

    def _mapped(self, who: str, data: bytes) -> _Mapped:
        model = _read(who, data)
        try:
            found = estimate(data, self.chip, self.timeout_s)
        except TargetError as error:
            what = f"{who} cannot be compiled for {self.name}"
            if "did not end" in error.what:
                what = f"Vela did not finish {who} within {self.timeout_s:g} s for {self.name}"
            raise TargetError(what, error.found, error.fix) from error
        return _Mapped(model, data, found)


class _Mapped:
    """An estimate laid over the file's ops."""

    def __init__(self, model: Any, data: bytes, found: Estimate) -> None:
        self.estimate = found
        self.total = len(model.subgraphs[0].operators or [])
        self.rows = tuple(_rows(model, data, found))
        cpu = [row for row in self.rows if row.place == "CPU"]
        self.on_cpu = sum(row.index is not None for row in cpu)
        self.on_npu = any(piece.on_npu for piece in found.pieces)
        self.branches = any(piece.on_npu and piece.op[0] for piece in found.pieces)
        self.note = _note(cpu, self.on_npu)


def _rows(model: Any, data: bytes, found: Estimate) -> Iterable[OpRow]:
    """One row an op of the main subgraph, then those of others, then what only Vela has."""
    layers = op_layers(model, flatbuffer.get_metadata(data).get("layers", ()))
    pieces: dict[tuple[int, int | None], list[Piece]] = {}
    for piece in found.pieces:
        pieces.setdefault(piece.op, []).append(piece)
    for s, graph in enumerate(model.subgraphs):
        for i, op in enumerate(graph.operators or []):
            mine = pieces.pop((s, i), [])
            if s and not mine:
                continue
            name = flatbuffer.op_name(model, op)
            outputs = [(s, int(t)) for t in op.outputs]
            why = next((found.reasons[t] for t in outputs if t in found.reasons), _UNSAID)
            place, said = ("CPU", _ONCE) if name in _CONTROL and not mine else _place(mine, why)
            inside = f"subgraph {s}: {name}" if s else name
            index, layer = (None, "") if s else (i, layers[i])
            yield OpRow(index, inside, layer, place, _values(mine), said)
    for rest in pieces.values():
        yield OpRow(None, "(Vela's own)", "", _place(rest, _UNSAID)[0], _values(rest))


def _place(pieces: list[Piece], why: str) -> tuple[str, str]:
    if not pieces:
        return "", _FOLDED
    return ("NPU", "") if all(piece.on_npu for piece in pieces) else ("CPU", why)


def _values(pieces: list[Piece]) -> tuple[int, ...]:
    sums = (
        sum(p.cycles for p in pieces),
        sum(p.macs for p in pieces),
        max((p.staging for p in pieces), default=0),
        sum(p.sram for p in pieces),
        sum(p.dram for p in pieces),
        sum(p.flash for p in pieces),
    )
    return sums


def _note(cpu: list[OpRow], on_npu: bool) -> str:
    if not cpu:
        return ""
    first = f"{cpu[0].op}: {cpu[0].why}"
    if not on_npu:
        return f"No op runs on the NPU ({first}); quantize to w8a8 or w8a16"
    ops = f"{len(cpu)} op{'s' * (len(cpu) > 1)}"
    return f"{ops} left to the CPU, whose time is not in these numbers ({first})"


def _read(who: str, data: bytes) -> Any:
    try:
        return flatbuffer.read(data)
    except InputError as error:
        raise InputError(f"{who} is not a TFLite file", error.found) from error


def _quotient(mine: float | None, first: float | None) -> float | None:
    return mine / first if mine and first else None

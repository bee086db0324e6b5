"""Vela, Arm's compiler for Ethos-U: one run of it, and what it wrote, read.

It runs as a program in a process of its own: some files end it by a signal. The file that it gets
has its tensors named anew ("s0t12": subgraph 0, tensor 12), so that what it says of a tensor is of
one op, whatever the names in the user's file are.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tfedge.errors import TargetError
from tfedge.shell import Finished, run
from tfedge.targets.ethosu.chips import Chip
from tfedge.tflite import flatbuffer

_TENSOR = re.compile(r"\bs(\d+)t(\d+)")
_WARNING = re.compile(r"^Warning \(supported operators\) operator: \w+, ofm: '(s\d+t\d+)'$")
_TABLE = re.compile(r'<table name="(\w+)">\n<!\[CDATA\[\n(.*?)\]\]>', re.DOTALL)
_TRAFFIC = re.compile(r"(Sram|Dram|OnChipFlash|OffChipFlash)[A-Za-z]+_(?:read|write)$")
_ON_CPU = "Passthrough"
_KIB = 1024

Table = list[dict[str, str]]


@dataclass(frozen=True)
class Piece:
    """One operation that Vela made of an op of the file, or the op itself where it stays outside.

    Attributes:
        op: Subgraph and position of the op in the file; (0, None) where Vela names none.
        on_npu: False where the CPU runs it.
        cycles: Of the NPU, with the waiting for memory.
        macs: Multiply-accumulates.
        staging: Bytes of SRAM that are in use meanwhile.
        sram: Bytes read from and written to SRAM.
        dram: The same of DRAM.
        flash: The same of flash, on chip and off.
    """

    op: tuple[int, int | None]
    on_npu: bool
    cycles: int
    macs: int
    staging: int
    sram: int
    dram: int
    flash: int


@dataclass(frozen=True)
class Estimate:
    """What Vela says of a file.

    Attributes:
        pieces: Operations, in Vela's order.
        reasons: Why ops stay on the CPU, by subgraph and output tensor.
        streams: Command streams: times that the CPU hands over to the NPU.
        cycles: Of the whole inference on the NPU.
        seconds: The same at the system's clock.
        clock_mhz: That clock.
        sram: Bytes of SRAM in use at most.
        dram: Bytes of DRAM in use at most.
        flash: Bytes of flash in use: encoded weights and commands' constants.
        dram_traffic: Bytes read from and written to DRAM in an inference.
        flash_traffic: The same of flash.
    """

    pieces: tuple[Piece, ...]
    reasons: dict[tuple[int, int], str]
    streams: int
    cycles: int
    seconds: float
    clock_mhz: float
    sram: int
    dram: int
    flash: int
    dram_traffic: int
    flash_traffic: int


def estimate(data: bytes, chip: Chip, timeout: float) -> Estimate:
    """Compiles a file and reads what Vela estimates.

    Args:
        data: The whole file.
        chip: The NPU and its system.
        timeout: Seconds that Vela may take.

    Raises:
        InputError: It is no TFLite file.
        TargetError: Vela refuses the file, dies of it or does not end.
    """
    model = flatbuffer.read(data)
    names = {
        f"s{s}t{t}": flatbuffer.tensor_name(tensor)
        for s, graph in enumerate(model.subgraphs)
        for t, tensor in enumerate(graph.tensors or [])
    }
    with tempfile.TemporaryDirectory(prefix="tfedge-") as name:
        folder = Path(name)
        (folder / "file.tflite").write_bytes(_renamed(data))
        finished = run(_command(chip), timeout=timeout, cwd=folder)
        if finished.code != 0:
            raise TargetError(*_refusal(finished, names, model))
        try:
            return _read(folder / "out", finished.out.decode("utf-8", "replace"), names)
        except (KeyError, OSError, ValueError) as error:
            fix = "Run: pip install --force-reinstall 'tfedge[ethosu]'"
            raise TargetError("Vela's report cannot be read", repr(error), fix) from error


def _command(chip: Chip) -> list[str]:
    return [
        sys.executable, "-m", "ethosu.vela", "file.tflite", "--output-dir", "out",
        "--accelerator-config", f"ethos-{chip.npu}", "--config", "Arm/vela.ini",
        "--system-config", chip.system, "--memory-mode", chip.mode,
        "--verbose-performance", "--enable-debug-db",
    ]  # fmt: skip


def _renamed(data: bytes) -> bytes:
    model = flatbuffer.read(data)
    for s, graph in enumerate(model.subgraphs):
        for t, tensor in enumerate(graph.tensors or []):
            tensor.name = f"s{s}t{t}".encode()
    return flatbuffer.write(model)


def _refusal(finished: Finished, names: dict[str, str], model: object) -> tuple[str, str, str]:
    """What to tell of a run that failed: the last message, with the file's own tensor names."""
    lines = finished.error_text.strip().splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)]
    said = " ".join(line.strip() for line in lines[starts[-1] :]) if starts else ""
    said = re.sub(r"^[\w.]+: (Compilation failed: )?(Error: )?", "", said)
    found = _with_names(said, names) or finished.ending
    small = sorted(_types(model) & {"int4", "int2"})
    fix = f"The file holds {', '.join(small)} values; Vela takes weights of 8 bits" if small else ""
    return "Vela cannot compile the file", found, fix or "Check the file with tfedge inspect"


def _types(model: object) -> set[str]:
    graphs = getattr(model, "subgraphs", [])
    return {flatbuffer.tensor_dtype(t) for graph in graphs for t in graph.tensors or []}


def _with_names(text: str, names: dict[str, str]) -> str:
    return _TENSOR.sub(lambda found: names.get(found[0], found[0]), text)


def _read(folder: Path, out: str, names: dict[str, str]) -> Estimate:
    (summary_file,) = folder.glob("file_summary_*.csv")
    with summary_file.open(encoding="utf-8", newline="") as lines:
        (summary,) = csv.DictReader(lines)
    tables = _tables((folder / "file_debug.xml").read_text(encoding="utf-8"))

    def used(*memories: str) -> int:
        return sum(round(float(summary[f"{m}_memory_used"]) * _KIB) for m in memories)

    def moved(*memories: str) -> int:
        return sum(int(float(summary[f"{m}_total_bytes"])) for m in memories)

    flash = ("on_chip_flash", "off_chip_flash")
    return Estimate(
        pieces=tuple(_pieces(tables)),
        reasons=dict(_reasons(out.splitlines(), names)),
        streams=len(tables.get("cmdstream", ())),
        cycles=int(float(summary["cycles_total"])),
        seconds=float(summary["inference_time"]),
        clock_mhz=float(summary["core_clock"]) / 1e6,
        sram=used("sram"),
        dram=used("dram"),
        flash=used(*flash),
        dram_traffic=moved("dram"),
        flash_traffic=moved(*flash),
    )


def _tables(text: str) -> dict[str, Table]:
    """The debug database by table name: rows by column name."""
    return {name: list(csv.DictReader(body.splitlines())) for name, body in _TABLE.findall(text)}


def _pieces(tables: dict[str, Table]) -> Iterable[Piece]:
    places = {row["id"]: int(row["ext_key"]) for row in tables.get("source", ())}
    details = {row["id"]: row for row in tables.get("perf_debug", ())}
    for row in tables.get("perf", ()):
        named = _TENSOR.match(row["name"])
        graph = int(named[1]) if named else 0
        traffic = _traffic(details.get(row["id"], {}))
        yield Piece(
            op=(graph, places.get(row["source_id"])),
            on_npu=row["operator"] != _ON_CPU,
            cycles=int(row["op_cycles"]),
            macs=int(row["mac_count"]),
            staging=int(row["staging_usage"]),
            sram=traffic["Sram"],
            dram=traffic["Dram"],
            flash=traffic["OnChipFlash"] + traffic["OffChipFlash"],
        )


def _traffic(row: dict[str, str]) -> dict[str, int]:
    """Bytes that an operation moves, by memory; columns are "SramFeatureMap_read" and the like."""
    sums = dict.fromkeys(("Sram", "Dram", "OnChipFlash", "OffChipFlash"), 0)
    for column, value in row.items():
        found = _TRAFFIC.match(column)
        if found and value:
            sums[found[1]] += int(value)
    return sums


def _reasons(lines: list[str], names: dict[str, str]) -> Iterable[tuple[tuple[int, int], str]]:
    """Vela's warnings: a line that names the op, then lines until an empty one."""
    for start, line in enumerate(lines):
        warning = _WARNING.match(line)
        tensor = _TENSOR.match(warning[1]) if warning else None
        if tensor is None:
            continue
        said = []
        for more in lines[start + 1 :]:
            if not more.strip():
                break
            said.append(more.strip().removeprefix("Reason: ").rstrip("."))
        yield (int(tensor[1]), int(tensor[2])), _with_names("; ".join(said), names)

"""An Android device as a target, measured by the official benchmark_model."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import InputError, TargetError
from tfedge.record import Timing
from tfedge.targets import conditions
from tfedge.targets.adb import binary
from tfedge.targets.adb.bench import TOOL, Bench, DeviceFile
from tfedge.targets.adb.device import SERIAL, Device
from tfedge.targets.adb.output import Output
from tfedge.targets.base import Violation
from tfedge.targets.machine import isa_of
from tfedge.targets.measured import TaskError, require_file
from tfedge.tflite import flatbuffer
from tfedge.tflite.delegation import views, why_not
from tfedge.tflite.op_times import OpTimes

ROUNDS = 3
"""How often the tool is run for each of several files, in turn."""

_SLACK_S, _PROFILED = 600.0, 1


@dataclass(frozen=True)
class AdbTarget:
    """Times files on an Android device that adb reaches, with `$TFEDGE_BENCHMARK_MODEL`.

    The tool and the files go to a new folder under /data/local/tmp, which is removed at the end.
    Each run of the tool is a process of its own; several files take turns, `ROUNDS` times.

    Attributes:
        serial: What `adb devices` calls the device.
        timeout_s: Seconds that one run of the tool may take.
    """

    serial: str
    timeout_s: float = 3600.0
    source: str = "measured"

    def __post_init__(self) -> None:
        if not SERIAL.fullmatch(self.serial):
            fix = "Write adb:SERIAL, as adb devices shows it"
            raise TargetError("this is no device", repr(self.name), fix)

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        return f"adb:{self.serial}"

    @property
    def device(self) -> Device:
        """The device."""
        return Device(self.serial)

    def prepare(self, threads: int = 1) -> None:
        """Finds the device and the tool.

        Args:
            threads: Threads that will be asked for.

        Raises:
            InputError: They are below 1.
            TargetError: One is not there, or they do not fit.
        """
        if threads < 1:
            raise InputError("threads must be at least 1", str(threads))
        tool = binary.find()
        self.device.require()
        binary.require_fit(tool, self.device.text("getprop ro.product.cpu.abilist"), self.name)

    def check(self, data: bytes) -> list[Violation]:
        """Runs the file there once, and says which ops XNNPACK leaves to slower kernels.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The device or the tool is not there.
        """
        require_file("the file", data)
        model = flatbuffer.read(data)
        with self._bench({"the file": data}, 1) as bench:
            try:
                output = bench.profile("the file", _PROFILED)
            except TaskError as error:
                return [Violation(str(error), fatal=True)]
        left = {row.node for row in output.ops if not row.delegate}
        return [
            Violation(f"not delegated: {why_not(op)}", fatal=False, op=i, name=op.name)
            for i, op in enumerate(views(model))
            if i in left
        ]

    def run(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file on samples, a process of the tool for each batch.

        Args:
            data: The whole file.
            inputs: Arrays [N, ...] by input name, of the file's own dtypes.

        Returns:
            Outputs [N, ...] by name, of the file's own dtypes.

        Raises:
            InputError: Inputs that do not fit, or no TFLite file.
            TargetError: The device or the tool is not there, the file fails, or the tool is of
                before 2023 and cannot write outputs.
        """
        require_file("the file", data)
        with self._bench({"the file": data}, 1) as bench:
            return DeviceFile(bench, data).run_all(inputs)

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """Measures files; see `Target.time`.

        Args:
            models: Files by name.
            runs: Inferences of each, over all rounds.
            threads: Threads of the kernels.

        Returns:
            One Timing per file, in order. The tool prints no samples: `min_ms` is the least of all
            rounds, `p50_ms` the median of the rounds' medians (None where the tool prints none,
            before 2023), p90, p99 and CPU time are None. `init_ms` and `peak_mb` (growth of the
            resident set over the tool's own start) are of the first round. `ratio_p50` is the
            median over the rounds of this file's median (or mean) over the first one's.

        Raises:
            InputError: `runs` or `threads` below 1, or no TFLite file.
            TargetError: The device or the tool is not there, or a file fails; the message names
                it.
        """
        if runs < 1 or threads < 1:
            raise InputError("runs and threads must be at least 1", f"{runs} and {threads}")
        for name, data in models.items():
            require_file(f"model '{name}'", data)
        if not models:
            return []
        device = self.device
        with self._bench({f"model '{n}'": d for n, d in models.items()}, threads) as bench:
            profiles = [bench.profile(who, _PROFILED) for who in bench.files]
            load, before = device.load(), device.conditions()
            rounds = _shares(runs, ROUNDS if len(models) > 1 else 1)
            found = [[bench.time(who, count) for who in bench.files] for count in rounds]
            shared = {
                "target": self.name,
                "source": self.source,
                "threads": threads,
                "load": load,
                **self._facts(),
                **conditions.compare(before, device.conditions()),
            }
        timings = [
            Timing(
                model=name,
                bytes=len(data),
                **shared,
                **_delegation(profiles[i], len(flatbuffer.read(data).subgraphs[0].operators or [])),
                **_statistics([outputs[i] for outputs in found]),
            )
            for i, (name, data) in enumerate(models.items())
        ]
        return _related(timings, found) if len(timings) > 1 else timings

    def profile(self, data: bytes, runs: int = 8) -> OpTimes:
        """Measures each op outside the delegate by the tool's own profiler.

        Args:
            data: The whole file.
            runs: Inferences to measure.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The device or the tool is not there, or the file fails.
        """
        require_file("the file", data)
        with self._bench({"the profiled file": data}, 1) as bench:
            rows = bench.profile("the profiled file", runs).ops
        inside = sum(row.us for row in rows if row.delegate)
        return OpTimes({row.node: row.us for row in rows if not row.delegate}, inside)

    def _facts(self) -> dict[str, Any]:
        text = self.device.text
        named = [text(f"getprop ro.product.{k}") for k in ("manufacturer", "model")]
        version, count = text("getprop ro.build.version.release"), text("nproc")
        parts = [" ".join(n for n in named if n), f"Android {version}" if version else ""]
        return {
            "device": "; ".join(p for p in parts if p),
            "cpus": int(count) if count.isdigit() else 0,
            "isa": isa_of(text("uname -m"), text("cat /proc/cpuinfo")),
        }

    @contextmanager
    def _bench(self, files: Mapping[str, bytes], threads: int) -> Iterator[Bench]:
        self.prepare(threads)
        with (
            tempfile.TemporaryDirectory(prefix="tfedge-") as here,
            self.device.folder(self.timeout_s + _SLACK_S) as there,
        ):
            bench = Bench(self.device, (Path(here), there), threads, self.timeout_s)
            self.device.push(binary.find(), f"{there}/{TOOL}")
            self.device.shell(f"chmod 755 {there}/{TOOL}")
            for who, data in files.items():
                bench.add(who, data)
            yield bench


def _shares(runs: int, rounds: int) -> list[int]:
    """Runs of each round; no round without any."""
    return [n for i in range(rounds) if (n := runs // rounds + (i < runs % rounds))]


def _delegation(profile: Output, ops: int) -> dict[str, Any]:
    outside = {row.node for row in profile.ops if not row.delegate}
    return {
        "total_ops": ops,
        "delegated_ops": ops - len(outside),
        "partitions": sum(row.delegate for row in profile.ops),
    }


def _statistics(outputs: Sequence[Output]) -> dict[str, Any]:
    """Fields of a Timing from the rounds of one file; the tool's times are microseconds."""
    least = [o.min for o in outputs if o.min is not None]
    medians = [o.median for o in outputs if o.median is not None]
    first = outputs[0]
    named = {"mean": first.mean, "standard deviation": first.std}
    parts = [f"{word} {us / 1e3:.3g} ms" for word, us in named.items() if us is not None]
    missing = "p90, p99 and CPU time" if medians else "p50, p90, p99 and CPU time"
    return {
        "runs": sum(o.count for o in outputs),
        "min_ms": min(least) / 1e3 if least else None,
        "p50_ms": statistics.median(medians) / 1e3 if medians else None,
        "init_ms": None if first.init is None else first.init / 1e3,
        "peak_mb": first.peak_mb,
        "note": f"{', '.join(parts)}; benchmark_model prints no {missing}",
    }


def _related(timings: Sequence[Timing], found: Sequence[Sequence[Output]]) -> list[Timing]:
    """Timings with their ratios to the first one."""
    out = []
    for i, timing in enumerate(timings):
        pairs = [(_middle(row[i]), _middle(row[0])) for row in found]
        ratios = [a / b for a, b in pairs if a and b]
        least, reference = timing.min_ms, timings[0].min_ms
        out.append(
            replace(
                timing,
                ratio_p50=statistics.median(ratios) if ratios else None,
                ratio_min=least / reference if least and reference else None,
            )
        )
    return out


def _middle(output: Output) -> float | None:
    return output.mean if output.median is None else output.median

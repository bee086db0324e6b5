"""This machine: LiteRT with XNNPACK, in processes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.record import Timing
from tfedge.shell import Answer, run_module
from tfedge.targets.base import Violation
from tfedge.tflite.certificate import certify
from tfedge.tflite.op_times import OpTimes

_MODULE = "tfedge.targets.host_worker"
_FILE, _INPUT = "file", "input:"
_MAGIC = b"TFL3"


@dataclass(frozen=True)
class HostTarget:
    """Runs and times files on this machine, with XNNPACK as the runtime's default has it.

    On x86 machines with AMX, the target "host" keeps XNNPACK from using it and "host:amx" lets it;
    see `tfedge.targets.amx` for the reason. The record's `isa` says which it was.

    Every file is first loaded, prepared and run once in a process of its own: so a file that ends
    its process is found and named, and start-up time and memory are its own. Then all files are
    timed in one further process, in turn (A, B, A, B, ...), so that a change of clock or load
    meets all of them.

    Attributes:
        timeout_s: Seconds that one process may take.
        amx: Whether XNNPACK may use x86's AMX tiles.
    """

    timeout_s: float = 3600.0
    amx: bool = False
    source: str = "measured"

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        return "host:amx" if self.amx else "host"

    def prepare(self, threads: int = 1) -> None:
        """This machine is always there.

        Args:
            threads: Threads that will be asked for.

        Raises:
            InputError: They are below 1.
        """
        if threads < 1:
            raise InputError("threads must be at least 1", str(threads))

    def check(self, data: bytes) -> list[Violation]:
        """Says whether the file runs, and which ops XNNPACK leaves to slower kernels.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
        """
        try:
            rows = certify(data)
        except ConversionError as error:
            return [Violation(str(error), fatal=True)]
        return [
            Violation(f"not delegated: {row.reason}", fatal=False, op=row.index, name=row.op)
            for row in rows
            if not row.delegated
        ]

    def run(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file in a process of its own.

        Args:
            data: The whole file.
            inputs: Arrays [N, ...] by input name, of the file's own dtypes.

        Returns:
            Outputs [N, ...] by name, of the file's own dtypes.

        Raises:
            InputError: Inputs that do not fit, or no TFLite file.
            TargetError: The file fails.
        """
        _require_file("the file", data)
        arrays = {f"{_INPUT}{name}": np.asarray(value) for name, value in inputs.items()}
        arrays[_FILE] = np.frombuffer(data, np.uint8)
        return self._ask("run", {}, arrays, "the file").arrays

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """Measures files in pairs; see `Target.time` and `tfedge.targets.host_worker`.

        Args:
            models: Files by name.
            runs: Samples of each. A sample of a quick file is several inferences, about 1 ms.
            threads: Threads of the kernels.

        Returns:
            One Timing per file, in order. `cpu_min_ms` is CPU time: of the calling thread for one
            thread, of the whole process for more. `peak_mb` is 10^6 bytes that loading and running
            took beyond the file itself. `ratio_p50` is the median over the rounds of this file's
            time over the first one's in the same round, `ratio_min` the quotient of the minima;
            None where there is only one file.

        Raises:
            InputError: `runs` or `threads` below 1, or no TFLite file.
            TargetError: A file fails; the message names it.
        """
        if runs < 1 or threads < 1:
            raise InputError("runs and threads must be at least 1", f"{runs} and {threads}")
        if not models:
            return []
        for name, data in models.items():
            _require_file(f"model '{name}'", data)
        alone = [self._probe(name, data, threads) for name, data in models.items()]
        files = {f"{_FILE}{i}": np.frombuffer(d, np.uint8) for i, d in enumerate(models.values())}
        values = {"runs": runs, "threads": threads, "count": len(models)}
        answer = self._ask("time", values, files, " with ".join(f"'{n}'" for n in models))
        wall, cpu = answer.arrays["wall_ns"] / 1e6, answer.arrays["cpu_ns"] / 1e6
        shared: dict[str, Any] = {
            "target": self.name,
            "source": self.source,
            "threads": threads,
            "runs": runs,
            "isa": str(answer.values["isa"]),
            "load": float(answer.values["load"]),
        }
        return [
            Timing(
                model=name,
                bytes=len(data),
                **shared,
                **alone[i],
                **_statistics(wall, cpu, i),
            )
            for i, (name, data) in enumerate(models.items())
        ]

    def profile(self, data: bytes, runs: int = 8) -> OpTimes:
        """Measures each op by the runtime's own profiler, or alone; see `tfedge.targets.litert`.

        Args:
            data: The whole file.
            runs: Inferences to measure at least.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The file or the profiler fails.
        """
        _require_file("the file", data)
        file = {_FILE: np.frombuffer(data, np.uint8)}
        found = self._ask("profile", {"runs": runs}, file, "the profiled file").values
        ops = {int(i): float(us) for i, us in found["ops"]}
        inside = found["delegated_us"]
        return OpTimes(ops, None if inside is None else float(inside), str(found["note"]))

    def quick(self, models: Mapping[str, bytes], runs: int = 15) -> dict[str, float]:
        """Least CPU time of many small files, measured in turn in one process, one thread.

        For costs of single ops: nothing else is found out about the files.

        Args:
            models: Files by name.
            runs: Samples of each.

        Returns:
            Microseconds per inference by name.

        Raises:
            InputError: One is no TFLite file.
            TargetError: One of them fails.
        """
        for name, data in models.items():
            _require_file(f"model '{name}'", data)
        if not models:
            return {}
        files = {f"{_FILE}{i}": np.frombuffer(d, np.uint8) for i, d in enumerate(models.values())}
        values = {"runs": runs, "threads": 1, "count": len(models)}
        cpu = self._ask("time", values, files, f"one of {len(models)} files").arrays["cpu_ns"]
        return dict(zip(models, (cpu.min(0) / 1e3).tolist(), strict=True))

    def _probe(self, name: str, data: bytes, threads: int) -> dict[str, Any]:
        file = {_FILE: np.frombuffer(data, np.uint8)}
        return self._ask("probe", {"threads": threads}, file, f"model '{name}'").values

    def _ask(
        self, task: str, values: dict[str, Any], arrays: dict[str, np.ndarray], who: str
    ) -> Answer:
        try:
            ended = run_module(
                _MODULE, {"do": task, "amx": self.amx, **values}, arrays, timeout=self.timeout_s
            )
        except TargetError as error:
            raise TargetError(f"{who} did not finish on {self.name}", error.found) from error
        if ended.answer is None:
            said = [line for line in ended.finished.error_text.splitlines() if line.strip()]
            found = "; ".join([ended.finished.ending, *said[-1:]])
            fix = "Check the file with tfedge inspect"
            raise TargetError(f"{who} ended the process that ran it on {self.name}", found, fix)
        failed = ended.answer.values.get("error")
        if failed:
            kind = InputError if ended.answer.values["kind"] == "input" else TargetError
            raise kind(f"{who} cannot be run on {self.name}", str(failed))
        return ended.answer


def _require_file(who: str, data: bytes) -> None:
    if bytes(data[4:8]) != _MAGIC:
        raise InputError(f"{who} is not a TFLite file", f"{len(data)} bytes")


def _statistics(wall: np.ndarray, cpu: np.ndarray, i: int) -> dict[str, Any]:
    """The numbers of model i from samples [round, model] in milliseconds."""
    p50, p90, p99 = (float(v) for v in np.percentile(wall[:, i], (50, 90, 99)))
    several = wall.shape[1] > 1
    return {
        "min_ms": float(wall[:, i].min()),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "cpu_min_ms": float(cpu[:, i].min()),
        "ratio_p50": float(np.median(wall[:, i] / wall[:, 0])) if several else None,
        "ratio_min": float(wall[:, i].min() / wall[:, 0].min()) if several else None,
    }

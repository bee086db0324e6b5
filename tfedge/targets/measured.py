"""What all places have in common that run `tfedge.targets.host_worker`: this machine and boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfedge.errors import InputError, TargetError
from tfedge.record import Timing
from tfedge.shell import Answer, ModuleRun
from tfedge.targets.kernels import timed_ops
from tfedge.targets.op_table import OpTable
from tfedge.tflite.fast16 import elsewhere_note
from tfedge.tflite.op_times import OpTimes

WORKER = "tfedge.targets.host_worker"
_FILE, _INPUT = "file", "input:"
_MAGIC = b"TFL3"


class TaskError(TargetError):
    """A task that failed there, while the target itself is well."""


@dataclass(frozen=True)
class Task:
    """Something for a worker, in a process of its own.

    Attributes:
        do: One of the worker's `TASKS`.
        who: What it is about, for messages: "model 'a'".
        values: The request's plain values.
        arrays: Its arrays.
    """

    do: str
    who: str
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Runs and times files by the worker's protocol; where its processes run is `ask`'s matter.

    Every file is first loaded, prepared and run once in a process of its own: so a file that ends
    its process is found and named, and start-up time and memory are its own. Then all files are
    timed in one further process, in turn (A, B, A, B, ...), so that a change of clock or load
    meets all of them.

    Attributes:
        timeout_s: Seconds that one process may take.
        source: Always "measured".
    """

    timeout_s: float = 3600.0
    source: str = field(default="measured", init=False)

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        raise NotImplementedError

    def ask(self, tasks: Sequence[Task]) -> list[Answer]:
        """Runs tasks there one after the other, each in a process of its own.

        Raises:
            InputError: A request that the worker refuses.
            TargetError: A task fails (`TaskError`), or the target does; later tasks are not run.
        """
        raise NotImplementedError

    @property
    def more(self) -> tuple[str, ...]:
        """Further tasks of `time` for each file, after the times; their values fill its Timing."""
        return ()

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
        require_file("the file", data)
        arrays = {f"{_INPUT}{name}": np.asarray(value) for name, value in inputs.items()}
        arrays[_FILE] = np.frombuffer(data, np.uint8)
        return self._one(Task("run", "the file", {}, arrays)).arrays

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """Measures files in pairs; see `Target.time` and the worker.

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
            require_file(f"model '{name}'", data)
        files = [file_of(data) for data in models.values()]
        probes = [
            Task("probe", f"model '{name}'", {"threads": threads}, {_FILE: file})
            for name, file in zip(models, files, strict=True)
        ]
        values = {"runs": runs, "threads": threads, "count": len(models)}
        all_files = {f"{_FILE}{i}": file for i, file in enumerate(files)}
        measure = Task("time", " with ".join(f"'{n}'" for n in models), values, all_files)
        more_tasks = [replace(probe, do=do) for probe in probes for do in self.more]
        answers = self.ask([*probes, measure, *more_tasks])
        alone, answer, more = (
            answers[: len(models)],
            answers[len(models)],
            answers[len(models) + 1 :],
        )
        wall, cpu = answer.arrays["wall_ns"] / 1e6, answer.arrays["cpu_ns"] / 1e6
        shared: dict[str, Any] = {
            "target": self.name,
            "source": self.source,
            "threads": threads,
            "runs": runs,
            **answer.values,
            "load": float(answer.values["load"]),
        }
        each, on_arm = len(self.more), str(shared["isa"]).startswith(("aarch64", "arm64"))
        return [
            Timing(
                model=name,
                bytes=len(data),
                **shared,
                **alone[i].values,
                **_statistics(wall, cpu, i),
                **_merged(more[i * each : (i + 1) * each], elsewhere_note(data) if on_arm else ""),
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
        require_file("the file", data)
        task = Task("profile", "the profiled file", {"runs": runs}, {_FILE: file_of(data)})
        found = self._one(task).values
        ops = {int(i): float(us) for i, us in found["ops"]}
        inside = found["delegated_us"]
        kernels = tuple((str(name), float(us)) for name, us in found["kernels"])
        inside = None if inside is None else float(inside)
        return OpTimes(ops, inside, str(found["note"]), kernels)

    def costs(self, data: bytes) -> OpTable:
        """Microseconds of each op, by `profile`.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The file or the profiler fails.
        """
        return timed_ops(self.name, data, self.profile(data))

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
            require_file(f"model '{name}'", data)
        if not models:
            return {}
        files = {f"{_FILE}{i}": file_of(data) for i, data in enumerate(models.values())}
        values = {"runs": runs, "threads": 1, "count": len(models)}
        cpu = self._one(Task("time", f"one of {len(models)} files", values, files)).arrays["cpu_ns"]
        return dict(zip(models, (cpu.min(0) / 1e3).tolist(), strict=True))

    def _one(self, task: Task) -> Answer:
        return self.ask([task])[0]

    def judge(self, task: Task, ended: ModuleRun) -> Answer:
        """The answer of a process that ended.

        Args:
            task: What it was asked for.
            ended: How it ended.

        Raises:
            InputError: The worker refused the request.
            TaskError: It failed, or ended its process.
        """
        if ended.answer is None:
            said = [line for line in ended.finished.error_text.splitlines() if line.strip()]
            found = "; ".join([ended.finished.ending, *said[-1:]])
            fix = "Check the file with tfedge inspect"
            raise TaskError(f"{task.who} ended the process that ran it on {self.name}", found, fix)
        failed = ended.answer.values.get("error")
        if failed:
            kind = InputError if ended.answer.values["kind"] == "input" else TaskError
            raise kind(f"{task.who} cannot be run on {self.name}", str(failed))
        return ended.answer


def require_file(who: str, data: bytes) -> None:
    """Refuses what is no TFLite file.

    Raises:
        InputError: It is none; the message begins with `who`.
    """
    if bytes(data[4:8]) != _MAGIC:
        raise InputError(f"{who} is not a TFLite file", f"{len(data)} bytes")


def file_of(data: bytes) -> np.ndarray:
    """A file as the worker takes it: uint8 [bytes]."""
    return np.frombuffer(data, np.uint8)


def _merged(answers: Sequence[Answer], note: str) -> dict[str, Any]:
    """Fields of a Timing from further answers; their "why" become its note, with a first one."""
    out: dict[str, Any] = {}
    for answer in answers:
        out.update({k: v for k, v in answer.values.items() if k != "why"})
    notes = [note, *(str(a.values.get("why") or "") for a in answers)]
    return {**out, "note": "; ".join(text for text in notes if text)}


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

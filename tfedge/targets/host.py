"""This machine: LiteRT with XNNPACK, in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.shell import Answer, run_module
from tfedge.targets.base import Violation
from tfedge.targets.machine import isa
from tfedge.targets.measured import WORKER, Measured, Task
from tfedge.tflite.certificate import certify


@dataclass(frozen=True)
class HostTarget(Measured):
    """Runs and times files on this machine, with XNNPACK as the runtime's default has it.

    On x86 machines with AMX, the target "host" keeps XNNPACK from using it and "host:amx" lets it;
    see `tfedge.targets.amx` for the reason. The record's `isa` says which it was.

    Attributes:
        timeout_s: Seconds that one process may take.
        amx: Whether XNNPACK may use x86's AMX tiles.
    """

    amx: bool = False

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        return "host:amx" if self.amx else "host"

    def prepare(self, threads: int = 1) -> None:
        """This machine is always there; its AMX may not be.

        Args:
            threads: Threads that will be asked for.

        Raises:
            InputError: They are below 1.
            TargetError: `amx`, and the machine has none.
        """
        if threads < 1:
            raise InputError("threads must be at least 1", str(threads))
        if self.amx and "amx_int8" not in isa():
            raise TargetError("this machine has no AMX", isa(), "Measure on 'host'")

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

    def ask(self, tasks: Sequence[Task]) -> list[Answer]:
        """Runs tasks in processes of this machine; see `Measured.ask`."""
        return [self._answer(task) for task in tasks]

    def _answer(self, task: Task) -> Answer:
        request = {"do": task.do, "amx": self.amx, **task.values}
        try:
            ended = run_module(WORKER, request, task.arrays, timeout=self.timeout_s)
        except TargetError as error:
            what = f"{task.who} did not finish within {self.timeout_s:g} s on {self.name}"
            fix = "A device file's options may give it more: timeout_s"
            raise TargetError(what, error.found, fix) from error
        return self.judge(task, ended)

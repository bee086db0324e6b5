"""A Linux board as a target: measured there, brought back here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfedge.errors import InputError, TargetError
from tfedge.shell import Answer, Finished, ModuleRun
from tfedge.targets.base import Violation
from tfedge.targets.measured import Measured, Task, TaskError, file_of, require_file
from tfedge.targets.ssh import agent, wire
from tfedge.targets.ssh.address import Address, parse
from tfedge.targets.ssh.link import Link, Reply
from tfedge.tflite import flatbuffer
from tfedge.tflite.delegation import views, why_not
from tfedge.tflite.interpreter import runtime_version

MACHINES = ("aarch64", "x86_64")
"""Architectures that LiteRT has Linux wheels for."""

PYTHON = (3, 10)
_SLACK_S = 60.0


@dataclass(frozen=True)
class SshTarget(Measured):
    """Runs and times files on a board that OpenSSH reaches, by the worker of the host target.

    Each call is one connection, which brings tfedge's own few modules and the files into a new
    folder there, and removes it at the end; also when the connection is lost. Nothing is installed
    but by `tfedge target setup`. Counters and energy are measured after the times, where the board
    has perf or a power sensor.

    Attributes:
        address: Where the board is.
        timeout_s: Seconds that one process may take there.
    """

    address: Address = field(kw_only=True)

    @classmethod
    def named(cls, rest: str) -> SshTarget:
        """The target of "ssh:REST".

        Raises:
            TargetError: It is no address.
        """
        return cls(address=parse(rest))

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        return f"ssh:{self.address}"

    @property
    def link(self) -> Link:
        """The way to it."""
        return Link(self.address, f"litert-{runtime_version()}")

    def prepare(self, threads: int = 1) -> None:
        """Connects, and loads the runtime there.

        Args:
            threads: Threads that will be asked for.

        Raises:
            InputError: They are below 1.
            TargetError: The board cannot be reached, or lacks something; the message says what.
        """
        if threads < 1:
            raise InputError("threads must be at least 1", str(threads))
        try:
            self.ask([Task("about", "the runtime")])
        except TaskError as error:
            what = f"LiteRT does not load on {self.name}"
            raise TargetError(what, error.found, self._set_up()) from error

    def check(self, data: bytes) -> list[Violation]:
        """Runs the file there once, and says which ops XNNPACK leaves to slower kernels.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The board cannot be reached, or lacks something.
        """
        require_file("the file", data)
        model = flatbuffer.read(data)
        try:
            answer = self.ask([Task("ops", "the file", {}, {"file": file_of(data)})])[0]
        except TaskError as error:
            return [Violation(str(error), fatal=True)]
        left = set(answer.values["outside"])
        return [
            Violation(f"not delegated: {why_not(op)}", fatal=False, op=i, name=op.name)
            for i, op in enumerate(views(model))
            if i in left
        ]

    @property
    def more(self) -> tuple[str, ...]:
        """Counters and energy of each file, as far as the board can tell them."""
        return ("instruments",)

    def ask(self, tasks: Sequence[Task]) -> list[Answer]:
        """Runs tasks on the board, in one connection; see `Measured.ask`."""
        request = wire.pack(
            [
                (
                    {"values": {"do": t.do, "amx": False, **t.values}, "timeout_s": self.timeout_s},
                    t.arrays,
                )
                for t in tasks
            ]
        )
        reply = self.link.call(agent.__name__, request, self.timeout_s * len(tasks) + _SLACK_S)
        self.understood(reply)
        try:
            items = wire.unpack(reply.payload)
        except ValueError as error:
            raise TargetError(f"{self.name} sent no answer that can be read", str(error)) from error
        return [self._answer(task, *item) for task, item in zip(tasks, items, strict=False)]

    def understood(self, reply: Reply) -> None:
        """Refuses a reply that is none.

        Raises:
            TargetError: What the board lacks, or what went wrong there.
        """
        if reply.kind == "reply":
            return
        self.require_fit(reply.facts)
        if reply.kind == "space":
            found = " ".join(str(reply.values[k]) for k in ("why", "folder")).strip()
            fix = "Make room there, or let TMPDIR name another folder in its login environment"
            raise TargetError(f"{self.name} cannot take the files", found, fix)
        if reply.kind == "late":
            raise TargetError(f"{self.name} took longer than {reply.values['limit_s']:g} s")
        said = reply.payload.decode("utf-8", "replace")
        if reply.kind == "missing":
            raise TargetError(f"LiteRT is not on {self.name}", f"no {said}", self._set_up())
        raise TargetError(f"the runner failed on {self.name}", said)

    def require_fit(self, facts: Mapping[str, Any]) -> None:
        """Refuses a board that no runtime fits.

        Raises:
            TargetError: The message says what it is and what is needed.
        """
        if facts["system"] != "Linux":
            raise TargetError(f"{self.name} does not run Linux", str(facts["system"]))
        machine = str(facts["machine"])
        if machine not in MACHINES or facts["bits"] != 64:
            found = f"{machine}, {facts['bits']}-bit Python"
            what = f"LiteRT has no wheel for the architecture of {self.name}"
            raise TargetError(what, found, f"It needs a 64-bit system: {' or '.join(MACHINES)}")
        version = str(facts["python"])
        if tuple(int(part) for part in version.split(".")[:2]) < PYTHON:
            fix = "Install Python 3.10 or later there, as python3"
            raise TargetError(f"the Python of {self.name} is too old", version, fix)

    def _set_up(self) -> str:
        return f"Run: tfedge target setup {self.name}"

    def _answer(self, task: Task, values: dict[str, Any], arrays: dict[str, Any]) -> Answer:
        if "late" in values:
            raise TargetError(f"{task.who} did not finish on {self.name}", values["late"])
        ended = Finished(values["code"], b"", values["err"].encode())
        found = values["answer"]
        return self.judge(task, ModuleRun(ended, None if found is None else Answer(found, arrays)))


def read_values(reply: Reply) -> dict[str, Any]:
    """The reply of a module that gives plain JSON."""
    found: dict[str, Any] = json.loads(reply.payload)
    return found

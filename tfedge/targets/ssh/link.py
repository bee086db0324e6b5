"""One connection to a board: sends the runner and a request, brings back the reply.

All goes through the standard input and output of the system's SSH client: the bootstrap's text,
the runner (tfedge's own modules, zipped) and the request in, frames out. The command line on the
board is a constant, so that nothing of the user's passes a shell there.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import tfedge
from tfedge.errors import InputError, TargetError
from tfedge.shell import Finished, run
from tfedge.targets.ssh.address import Address

COMMAND = (
    "exec python3 -c 'import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))'"
)
RUNNER = (
    "__init__.py", "_version.py", "errors.py", "record.py", "shell.py",
    "tflite/__init__.py", "tflite/check.py", "tflite/ends.py", "tflite/flatbuffer.py",
    "tflite/interpreter.py", "tflite/op_times.py", "tflite/quiet.py", "tflite/single.py",
    "tflite/tensors.py",
    "targets/__init__.py", "targets/amx.py", "targets/base.py", "targets/conditions.py",
    "targets/counters.py", "targets/ethosu/__init__.py", "targets/ethosu/chips.py",
    "targets/host_worker.py", "targets/litert.py", "targets/machine.py", "targets/power.py",
    "targets/ssh/__init__.py", "targets/ssh/agent.py", "targets/ssh/install.py",
    "targets/ssh/wire.py",
)  # fmt: skip
"""What goes to the board."""

BEAT_S, SILENCE_S = 5.0, 30.0
_TRANSFER_S = 600.0
_MARK = b"\0TFEDGE\0"
_PYTHON = "Install Python 3.10 or later there"
_NO_COMMAND, _OWN_ERROR = 127, 255
_REASONS = (
    ("Permission denied", "the board refuses the login",
     "Give it a key: ssh-copy-id {0}; tfedge never asks for a password"),
    ("Host key verification failed", "the board's host key is not known, or has changed",
     "Connect once by hand: ssh {0}"),
    ("Could not resolve", "there is no host of this name", "Check the name, or ~/.ssh/config"),
    ("", "the board cannot be reached", "Try by hand: ssh {0}"),
)  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        kind: "reply", or "missing", "failed", "late", "space": how it went wrong.
        facts: The board's "machine", "system", "python", "glibc", "bits".
        values: What the bootstrap says of it.
        payload: What the module gave; for "missing" the packages, for "failed" the reason.
    """

    kind: str
    facts: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True)
class Link:
    """A way to a board.

    Attributes:
        address: Where it is.
        runtime: Name of the folder in its cache that a set-up fills.
    """

    address: Address
    runtime: str

    def call(self, module: str, request: bytes, limit_s: float) -> Reply:
        """Runs one of our modules there.

        Args:
            module: Dotted name of one in `RUNNER`, with a `main(folder)`.
            request: Contents of its request.zip.
            limit_s: Seconds that it may take.

        Raises:
            TargetError: The board cannot be reached, has no Python 3, or the connection is lost.
        """
        files = runner()
        header = {"module": module, "runner": len(files), "request": len(request),
                  "limit_s": limit_s, "silence_s": SILENCE_S, "runtime": self.runtime}  # fmt: skip
        program = (Path(__file__).parent / "bootstrap.py").read_bytes()
        parts = [b"%d\n" % len(program), program, json.dumps(header).encode() + b"\n"]
        argv = self.address.argv(COMMAND)
        data, whole = b"".join([*parts, files, request]), limit_s + _TRANSFER_S
        try:
            ended = run(argv, input=data, timeout=whole, hold=BEAT_S)
        except InputError as error:
            fix = "Install OpenSSH's client"
            raise TargetError("the SSH client cannot be started", error.found, fix) from error
        except TargetError as error:
            what = f"ssh:{self.address} did not answer within {whole:g} s"
            raise TargetError(what, error.found, "The board removes its files itself") from error
        frames = _frames(ended.out)
        if not frames:
            raise self._refused(ended)
        facts = frames[0][0]
        if len(frames) == 1:
            fix = "The board removes its files itself; try again"
            raise TargetError(f"the connection to ssh:{self.address} was lost", _last(ended), fix)
        values, payload = frames[-1]
        return Reply(values["kind"], facts, values, payload)

    def _refused(self, ended: Finished) -> TargetError:
        """Why the bootstrap did not even begin."""
        where, said = f"ssh:{self.address}", _last(ended)
        if ended.code == _NO_COMMAND:
            return TargetError(f"{where} has no python3", said, _PYTHON)
        if ended.code != _OWN_ERROR:
            return TargetError(f"{where} cannot start the runner", said, _PYTHON)
        _, what, fix = next(r for r in _REASONS if r[0] in ended.error_text)
        return TargetError(f"{what}: {where}", said, fix.format(self.address.by_hand))


def _last(ended: Finished) -> str:
    said = [line.strip() for line in ended.error_text.splitlines() if line.strip()]
    return said[-1] if said else ended.ending


def _frames(out: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The complete frames; what a login shell writes before them is skipped."""
    found, position = [], 0
    while (start := out.find(_MARK, position)) >= 0:
        begin = start + len(_MARK)
        line, newline, _ = out[begin : begin + 65536].partition(b"\n")
        if not newline:
            break
        head = json.loads(line)
        body = begin + len(line) + 1
        position = body + head["bytes"]
        if position > len(out):
            break
        found.append((head, out[body:position]))
    return found


@cache
def runner() -> bytes:
    """`RUNNER` as a zip file that Python can import from."""
    root, out = Path(tfedge.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in RUNNER:
            packed.writestr(f"tfedge/{name}", (root / name).read_bytes())
    return out.getvalue()

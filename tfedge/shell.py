"""Other processes: the only module that starts any. No shell ever reads the arguments."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfedge.errors import InputError, TargetError

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray]
    Handler = Callable[[dict[str, Any], dict[str, np.ndarray]], "Answer"]

_KILL_WAIT_S = 5.0
_REQUEST, _REPLY = "request", "reply"


@dataclass(frozen=True)
class Finished:
    """How a process ended.

    Attributes:
        code: Exit status; the negative signal number where a signal ended it.
        out: Standard output, raw.
        err: Standard error, raw.
    """

    code: int
    out: bytes
    err: bytes

    @property
    def ending(self) -> str:
        """The exit in words: "exit status 2" or "killed by SIGABRT"."""
        return describe_exit(self.code)

    @property
    def error_text(self) -> str:
        """Standard error as text, undecodable bytes replaced."""
        return self.err.decode("utf-8", "replace")


@dataclass(frozen=True)
class Answer:
    """What a module that ran in its own process gave back: plain JSON values and arrays."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ModuleRun:
    """The end of `run_module`.

    Attributes:
        finished: How the process ended.
        answer: What it gave back; None where it died before it could.
        kept: Contents of the files that were asked for and are there, by name.
    """

    finished: Finished
    answer: Answer | None
    kept: dict[str, bytes] = field(default_factory=dict)


def describe_exit(code: int) -> str:
    """Names an exit status: "exit status 3", or "killed by SIGABRT" for -6."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    hold: float | None = None,
) -> Finished:
    """Runs a program to its end and keeps what it wrote.

    The program gets a process group of its own. A timeout, an interrupt (Ctrl-C) or any other
    exception here ends the whole group, so that no grandchild stays behind.

    Args:
        argv: Program and arguments; never read by a shell.
        input: Bytes for its standard input; None gives it an empty one.
        timeout: Seconds after which it is killed; None waits for ever.
        cwd: Folder to run in.
        env: Its whole environment; None passes ours on.
        hold: Keeps its standard input open after `input`, with an empty line every `hold` seconds,
            so that it can tell when we are gone; None closes the input.

    Returns:
        Exit status and output; a failing program is no error here.

    Raises:
        InputError: The program or `cwd` is not there, or may not be run.
        TargetError: It did not end within `timeout`.
    """
    words = [str(a) for a in argv]
    if not words:
        raise InputError("there is no program to run", "an empty command")
    if timeout is not None and timeout <= 0:
        raise InputError("a timeout must be positive", f"{timeout} s")
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if input is None and hold is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"cannot run '{words[0]}'", error.strerror or str(error)) from error
    done = threading.Event()
    if hold is not None:
        pipe, process.stdin = process.stdin, None  # Else communicate() would close it.
        feed = threading.Thread(target=_feed, args=(pipe, input or b"", hold, done), daemon=True)
        feed.start()
    try:
        out, err = process.communicate(None if hold is not None else input, timeout)
    except subprocess.TimeoutExpired:
        _, tail = _kill(process)
        last = tail.decode("utf-8", "replace").strip().splitlines()[-1:]
        found = f"'{Path(words[0]).name}' still running" + (f"; it said: {last[0]}" if last else "")
        raise TargetError(f"the process did not end within {timeout:g} s", found) from None
    except BaseException:
        _kill(process)
        raise
    finally:
        done.set()
    return Finished(process.returncode, out, err)


def _feed(pipe: Any, data: bytes, seconds: float, done: threading.Event) -> None:
    """Writes data, and a line now and then until the process has ended."""
    # It may end, or close its input, before it has read all.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError), pipe:
        pipe.write(data)
        pipe.flush()
        while not done.wait(seconds):
            pipe.write(b"\n")
            pipe.flush()


def _kill(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Ends a process and its group; returns the output so far."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:  # It ended by itself in the meantime.
        process.poll()
    try:
        return process.communicate(timeout=_KILL_WAIT_S)
    except (subprocess.TimeoutExpired, ValueError):
        # A descendant that left the group may hold the pipes open: do not wait for it.
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait(_KILL_WAIT_S)
        return b"", b""


def run_module(
    module: str,
    values: Mapping[str, Any],
    arrays: Arrays | None = None,
    *,
    timeout: float | None = None,
    under: Sequence[str] = (),
    kept: Sequence[str] = (),
) -> ModuleRun:
    """Runs one of our modules in a fresh Python process, with JSON and arrays both ways.

    The module calls `serve(handler)` when it is the main one. It runs in a folder of its own, so
    that no file of the user's current folder can stand in for a library.

    Args:
        module: Dotted name, for example "tfedge.targets.host_worker".
        values: Plain JSON values.
        arrays: Arrays of any numeric dtype and shape.
        timeout: Seconds; None waits for ever.
        under: A program with its arguments that runs the process, for example "perf", "stat".
        kept: Names of files in the process's folder to bring back.

    Returns:
        The end of the process and its answer; a process that died is no error here.

    Raises:
        InputError: `values` holds what JSON has not, or Python cannot be started.
        TargetError: It did not end within `timeout`.
    """
    with tempfile.TemporaryDirectory(prefix="tfedge-") as name:
        folder = Path(name)
        _pack(folder, _REQUEST, Answer(dict(values), dict(arrays or {})))
        argv = [*under, sys.executable, "-m", module, str(folder)]
        finished = run(argv, timeout=timeout, cwd=folder, env=_python_env())
        files = {n: (folder / n).read_bytes() for n in kept if (folder / n).is_file()}
        return ModuleRun(finished, _unpack(folder, _REPLY) if finished.code == 0 else None, files)


def serve(handler: Handler) -> None:
    """The other side of `run_module`: reads the request, calls the handler, writes its answer.

    Args:
        handler: Takes the request's values and arrays; an exception ends the process with Python's
            own message on standard error.

    Raises:
        InputError: The process was not started by `run_module`.
    """
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / f"{_REQUEST}.json").is_file():
        raise InputError("this module is run by tfedge itself, with a request folder")
    folder = Path(sys.argv[1])
    request = _unpack(folder, _REQUEST)
    if request is None:
        raise InputError("the request cannot be read", str(folder))
    _pack(folder, _REPLY, handler(request.values, request.arrays))


def _python_env() -> dict[str, str]:
    """Our environment, with this very tfedge on the path of the new process."""
    ours = str(Path(__file__).resolve().parent.parent)
    if ours in sysconfig.get_paths().values():  # Installed: it is found without help.
        return dict(os.environ)
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ours}{os.pathsep}{before}" if before else ours}


def _pack(folder: Path, name: str, answer: Answer) -> None:
    import numpy as np

    head = {"values": answer.values, "names": list(answer.arrays)}
    try:
        text = json.dumps(head, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError("a value cannot be sent to another process", str(error)) from error
    # Array names may hold slashes (Keras layer names do): files inside the npz are numbered.
    numbered: dict[str, Any] = {f"a{i}": a for i, a in enumerate(answer.arrays.values())}
    np.savez(folder / f"{name}.npz", **numbered)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _unpack(folder: Path, name: str) -> Answer | None:
    """Reads what `_pack` wrote; None where it is missing or cut short."""
    import numpy as np

    try:
        head = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz", allow_pickle=False) as packed:
            arrays = {key: packed[f"a{i}"] for i, key in enumerate(head["names"])}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return Answer(head["values"], arrays)

"""The first program on the board: it is sent as text, runs by itself and needs Python 3.6.

Reads a header and two files from standard input, puts them into a new folder, calls `main` of a
module of the first one, which reads the second, and sends its answer back. The folder goes in any
case: also when the connection is lost (the input ends, or no line comes for a while), when the time
is over and on signals that can be caught.
"""

import importlib
import json
import os
import platform
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 (of Python 3.6)

PREFIX = "tfedge-board-"
_OLD_S, _CHUNK = 24 * 3600, 1 << 20


def _say(kind: str, values: dict, payload: bytes = b"") -> None:
    """A frame: a mark that no login message holds, a line of JSON, and the payload it counts."""
    head = json.dumps({**values, "kind": kind, "bytes": len(payload)})
    sys.stdout.buffer.write(b"\0TFEDGE\0" + head.encode() + b"\n" + payload)
    sys.stdout.buffer.flush()


def _facts() -> dict:
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": "{}.{}".format(*sys.version_info),
        "glibc": platform.libc_ver()[1],
        "bits": 64 if sys.maxsize > 2**32 else 32,
    }


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~").expanduser() / ".cache")
    return Path(base) / "tfedge"


def _sweep() -> None:
    """Removes folders of runs that a loss of power, or the like, ended a day ago."""
    for path in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            state = path.lstat()
            if state.st_uid == os.getuid() and time.time() - state.st_mtime > _OLD_S:
                shutil.rmtree(str(path), ignore_errors=True)
        except OSError:  # Another run removes it at the same time.
            continue


def _receive(path: Path, size: int) -> None:
    with path.open("wb") as out:
        while size:
            piece = sys.stdin.buffer.read(min(size, _CHUNK))
            if not piece:
                raise EOFError("the input ended early")
            out.write(piece)
            size -= len(piece)


class _Ended(BaseException):
    """The other side is gone, or the system wants us to end."""


class _Late(BaseException):
    """The time is over."""


def _watch(silence_s: float) -> None:
    """Ends this program when the other side is silent or gone."""

    def listen() -> None:
        while select.select([0], [], [], silence_s)[0] and os.read(0, _CHUNK):
            pass
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=listen, daemon=True).start()


def _raise(kind: type) -> Callable:
    def handler(number: int, _: object) -> None:
        raise kind(number)

    return handler


def _on_signals(handler: Any) -> None:
    for name in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(name, handler)


def _run(folder: Path, header: dict) -> None:
    try:
        _receive(folder / "runner.zip", header["runner"])
        _receive(folder / "request.zip", header["request"])
    except OSError as error:
        _say("space", {"why": error.strerror or str(error), "folder": str(folder)})
        return
    _watch(header["silence_s"])
    signal.setitimer(signal.ITIMER_REAL, header["limit_s"])
    try:
        kind, payload = _module(folder, header).main(folder)
    except Exception as error:  # Whatever it is: the other side must hear of it.
        kind, payload = "failed", f"{type(error).__name__}: {error}".encode()
    signal.setitimer(signal.ITIMER_REAL, 0)
    _say(kind, {}, payload)


def _module(folder: Path, header: dict) -> Any:
    """A module of the runner, with the runtime that a set-up brought before the board's own."""
    runtime = str(_cache() / header["runtime"])
    sys.path[:0] = [str(folder / "runner.zip"), runtime]
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = runtime + os.pathsep + path if path else runtime
    os.environ.update(TMPDIR=str(folder), TFEDGE_RUNTIME=runtime)
    tempfile.tempdir = str(folder)
    os.chdir(str(folder))
    return importlib.import_module(header["module"])


def _main() -> None:
    _on_signals(_raise(_Ended))
    signal.signal(signal.SIGALRM, _raise(_Late))
    header = json.loads(sys.stdin.buffer.readline().decode())
    _say("hello", _facts())
    try:
        _sweep()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        _say("space", {"why": error.strerror or str(error), "folder": ""})
        return
    try:
        _run(folder, header)
    except _Late:
        _say("late", {"limit_s": header["limit_s"]})
    except (_Ended, EOFError):
        pass  # Nobody is there to be told.
    finally:
        _on_signals(signal.SIG_IGN)
        shutil.rmtree(str(folder), ignore_errors=True)


if __name__ == "__main__":
    _main()

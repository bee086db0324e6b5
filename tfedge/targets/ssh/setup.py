"""`tfedge target setup ssh:...`: puts the runtime's wheels into the user's cache folder there."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfedge.errors import TargetError
from tfedge.progress import working
from tfedge.shell import run
from tfedge.targets.ssh import agent, install, wire
from tfedge.targets.ssh.link import Reply
from tfedge.targets.ssh.target import SshTarget, read_values
from tfedge.tflite.interpreter import runtime_version

WHEELS = "TFEDGE_WHEELS"
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 45
_LIMIT_S = 600.0


def set_up(target: SshTarget) -> dict[str, Any]:
    """Sets a board up; one that has all is left alone.

    The wheels of LiteRT (of this machine's version), numpy and flatbuffers come from pip's index,
    or from the folder $TFEDGE_WHEELS where that is set. They are unpacked into ~/.cache/tfedge of
    the board's user; nothing of the system is touched.

    Args:
        target: The board.

    Returns:
        "target", "made" (whether anything was), "runtime", and where it was made "place" and
        "wheels" (their names).

    Raises:
        TargetError: The board cannot be reached or is not fit, or the wheels cannot be had.
    """
    with working(f"looking at {target.name}"):
        reply = target.link.call(agent.__name__, wire.pack([]), _LIMIT_S)
    target.require_fit(reply.facts)
    facts: dict[str, Any] = {"target": target.name, "runtime": runtime_version()}
    if reply.kind == "reply" and _works(target):
        return {**facts, "made": False}
    if reply.kind == "space":
        target.understood(reply)
    with tempfile.TemporaryDirectory(prefix="tfedge-") as name:
        with working("fetching the runtime's wheels"):
            wheels = fetch(Path(name), reply.facts)
        with working(f"installing on {target.name}"):
            values = read_values(_send(target, wheels))
    if values["problem"]:
        fix = f"Give fitting wheels in a folder that ${WHEELS} names"
        raise TargetError(f"LiteRT does not load on {target.name}", values["problem"], fix)
    return {**facts, "made": True, "place": values["place"], "wheels": [w.name for w in wheels]}


def remove(target: SshTarget) -> dict[str, Any]:
    """Removes what `set_up` made on a board.

    Returns:
        "target", "place" and "removed" (whether there was anything).

    Raises:
        TargetError: The board cannot be reached.
    """
    values = read_values(_send(target, []))
    return {"target": target.name, "place": values["place"], "removed": values["removed"]}


def _works(target: SshTarget) -> bool:
    try:
        target.prepare()
    except TargetError:
        return False
    return True


def _send(target: SshTarget, wheels: list[Path]) -> Reply:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:  # Wheels are compressed already.
        for wheel in wheels:
            packed.write(wheel, wheel.name)
    reply = target.link.call(install.__name__, out.getvalue(), _LIMIT_S)
    target.understood(reply)
    return reply


def fetch(into: Path, facts: Mapping[str, Any]) -> list[Path]:
    """Has pip find the wheels for a board.

    Args:
        into: An empty folder.
        facts: The board's "machine", "python" and "glibc".

    Raises:
        TargetError: pip does not find them, or is not there.
    """
    version, machine = str(facts["python"]), str(facts["machine"])
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
            "--implementation", "cp", "--python-version", version,
            "--abi", f"cp{version.replace('.', '')}", "--abi", "abi3", "--abi", "none",
            "--dest", str(into)]  # fmt: skip
    argv += [
        word for tag in platforms(machine, str(facts["glibc"])) for word in ("--platform", tag)
    ]
    folder = os.environ.get(WHEELS)
    if folder:
        argv += ["--no-index", "--find-links", str(Path(folder).expanduser().absolute())]
    argv += [f"ai-edge-litert=={runtime_version()}", "numpy>=1.26,<3", "flatbuffers>=24.3"]
    ended = run(argv, timeout=_LIMIT_S)
    if ended.code:
        said = [line for line in ended.error_text.splitlines() if "ERROR" in line]
        what = f"pip finds no wheels for Python {version} on {machine}"
        fix = f"Put them into a folder and let ${WHEELS} name it"
        if folder:
            fix = f"They must be in {folder}"
        raise TargetError(what, said[-1] if said else ended.ending, fix)
    return sorted(into.glob("*.whl"))


def platforms(machine: str, glibc: str) -> list[str]:
    """Tags of wheels that run with a C library.

    Args:
        machine: For example "aarch64".
        glibc: Its version, for example "2.36"; "" where the C library is another, which no wheel
            of LiteRT fits, so that pip says so.
    """
    minor = glibc.partition(".")[2]
    newest = min(int(minor), _NEWEST_GLIBC) if minor.isdigit() else 0
    tags = [f"manylinux_2_{n}_{machine}" for n in range(newest, _OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{machine}"] if tags else [f"musllinux_1_2_{machine}"]

"""A board for tests: a real sshd on loopback, of an ordinary user, with a key of its own.

Nothing is fetched: where there is no sshd on this machine, tests that need it are skipped.
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PLACES = ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd")
_PRIVILEGED = Path("/run/sshd")


def sshd():
    """The server's full path, which it must be called by; or None."""
    found = [shutil.which("sshd"), *PLACES]
    return next((p for p in found if p and Path(p).is_file()), None)


@cache
def why_not():
    """Why there can be no board here, or ""."""
    missing = [n for n in ("ssh", "ssh-keygen") if not shutil.which(n)]
    missing += [] if sshd() else ["sshd"]
    if missing:
        return f"a loopback board needs {', '.join(missing)} (openssh-server)"
    if os.getuid() == 0 and not _PRIVILEGED.is_dir() and not os.access("/run", os.W_OK):
        return f"sshd run by root needs {_PRIVILEGED}"
    return ""


@dataclass
class Board:
    """A running server. `alias` is what the client's configuration calls it."""

    folder: Path
    port: int
    process: subprocess.Popen
    alias: str = "board"

    @property
    def tmp(self):
        """Where its programs put their folders."""
        return self.folder / "tmp"

    @property
    def home(self):
        return self.folder / "home"

    def left(self):
        """What runs left behind."""
        return sorted(p.name for p in self.tmp.iterdir())

    def wait_clean(self, seconds=10):
        end = time.monotonic() + seconds
        while self.left() and time.monotonic() < end:
            time.sleep(0.05)
        return self.left()

    def python(self, lines):
        """Makes python3 of the board a script; `$PYTHON` is the interpreter of the tests."""
        script(self.folder / "bin" / "python3", f"PYTHON={sys.executable}\n{lines}\n")

    def usual(self):
        self.python('exec "$PYTHON" "$@"')

    def stop_connections(self):
        """Ends the server's processes of living connections, as a lost link would."""
        for pid in children(self.process.pid):
            for inner in (*children(pid), pid):
                name = Path(f"/proc/{inner}/comm")
                if name.is_file() and name.read_text().startswith("sshd"):
                    os.kill(inner, 9)


def script(path, lines):
    path.write_text(f"#!/bin/sh\n{lines}")
    path.chmod(0o755)


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # It ended meanwhile.
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(folder):
    """Starts a server with all its files in a folder; stop it with `stop`."""
    if why_not():
        pytest.skip(why_not())
    for name in ("tmp", "home", "bin", "client"):
        (folder / name).mkdir(parents=True)
    for name in ("host_key", "client/key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    shutil.copyfile(folder / "client/key.pub", folder / "authorized_keys")
    if os.getuid() == 0:
        _PRIVILEGED.mkdir(exist_ok=True)
    port, path = _free_port(), f"{folder}/bin:/usr/bin:/bin"
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"SetEnv PATH={path} TMPDIR={folder}/tmp HOME={folder}/home\n"
    )
    argv = [sshd(), "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    made = Board(folder, port, process)
    made.usual()
    key = (folder / "host_key.pub").read_text()
    (folder / "client/known").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "client/config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
        f"Host *\n IdentityFile {folder}/client/key\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/client/known\n StrictHostKeyChecking yes\n"
    )
    script(folder / "client/ssh", f'exec {shutil.which("ssh")} -F {folder}/client/config "$@"\n')
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return made
        time.sleep(0.05)
    stop(made)
    pytest.skip("sshd does not start: " + (folder / "sshd.log").read_text()[-300:])


def stop(made):
    made.stop_connections()
    made.process.terminate()
    made.process.wait(10)


def on_path(made):
    """The PATH on which the client is configured for the board."""
    return f"{made.folder}/client:{os.environ['PATH']}"

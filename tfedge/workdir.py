"""The work directory: one folder a stage, complete or not there, whatever interrupts the run.

A stage works in `NN_stage.partial/`. When everything in it is written, its `done` marker is written
last and the folder is renamed to `NN_stage/`. The marker holds the key that the stage was done for
(recipe, inputs, task) and the SHA-256 of every file, so a later run knows what it may skip.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfedge.errors import InputError
from tfedge.files import write_atomic

MARKER = "done"
KEY_FILE = "key"
# Left out of the finished stage: epoch checkpoints and whatever else only a resumed stage needs.
SCRATCH = "scratch"


def digest(value: Any) -> str:
    """SHA-256 of plain data (JSON values), independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    value = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            value.update(block)
    return value.hexdigest()


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage.

    Attributes:
        root: The work directory.
        name: For example "01_prune".
    """

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """Where the finished stage stands."""
        return self.root / self.name

    @property
    def partial(self) -> Path:
        """Where the stage works until it is finished."""
        return self.root / f"{self.name}.partial"

    @property
    def _old(self) -> Path:
        return self.root / f"{self.name}.old"

    def outputs(self, key: str) -> dict[str, str] | None:
        """The finished stage's files and their SHA-256.

        Args:
            key: What the stage must have been done for.

        Returns:
            None where it is not finished, was done for another key, or a file was changed since.
        """
        self._recover()
        done = _read_marker(self.path)
        if done is None or done["key"] != key:
            return None
        files: dict[str, str] = done["files"]
        paths = {name: self.path / name for name in files}
        intact = all(p.is_file() and file_digest(p) == files[n] for n, p in paths.items())
        return files if intact else None

    def begin(self, key: str) -> tuple[Path, Path]:
        """Opens the stage for work, going on with what an interrupted run for the same key left.

        Args:
            key: What the stage is done for.

        Returns:
            The folder for the stage's files, and in it one for what only a resume needs.
        """
        key_file = self.partial / KEY_FILE
        if self.partial.exists() and not (key_file.is_file() and key_file.read_text() == key):
            shutil.rmtree(self.partial)
        scratch = self.partial / SCRATCH
        scratch.mkdir(parents=True, exist_ok=True)
        write_atomic(key_file, key.encode())
        return self.partial, scratch

    def reopen(self, key: str) -> None:
        """Turns the finished stage back into one at work, so that `begin` goes on with its files.

        Args:
            key: What the stage was done for.
        """
        if self.partial.exists():
            shutil.rmtree(self.partial)
        write_atomic(self.path / KEY_FILE, key.encode())
        (self.path / MARKER).unlink()
        self.path.rename(self.partial)

    def finish(self, key: str) -> dict[str, str]:
        """Puts the finished stage in place of an older one.

        Args:
            key: What the stage was done for.

        Returns:
            The stage's files and their SHA-256.
        """
        shutil.rmtree(self.partial / SCRATCH, ignore_errors=True)
        (self.partial / KEY_FILE).unlink(missing_ok=True)
        files = {
            p.relative_to(self.partial).as_posix(): file_digest(p)
            for p in sorted(self.partial.rglob("*"))
            if p.is_file() and p.name != MARKER
        }
        marker = json.dumps({"key": key, "files": files}, indent=1)
        write_atomic(self.partial / MARKER, marker.encode())
        self._swap()
        return files

    def _swap(self) -> None:
        shutil.rmtree(self._old, ignore_errors=True)
        if self.path.exists():
            self.path.rename(self._old)
        self.partial.rename(self.path)
        shutil.rmtree(self._old, ignore_errors=True)

    def _recover(self) -> None:
        """Completes a swap that was interrupted between its steps."""
        if _read_marker(self.partial) is not None:
            self._swap()
        elif self._old.exists() and not self.path.exists():
            self._old.rename(self.path)


def _read_marker(folder: Path) -> dict[str, Any] | None:
    """The `done` marker of a folder; None where there is none that can be read."""
    try:
        value = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(value, dict) and "key" in value and isinstance(value.get("files"), dict)
    return value if known else None


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Holds a work directory for one run at a time.

    The lock is the operating system's (flock): it ends with the process, however that ends. Where
    the system has none (Windows) two runs in one directory are not prevented.

    Raises:
        InputError: Another run holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (root / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                "another run is at work in this directory", str(root), "Wait, or take another"
            ) from None
        yield


def open_workdir(path: str | Path) -> Path:
    """Makes the work directory.

    Raises:
        InputError: The path is a file, or cannot be made.
    """
    root = Path(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise InputError("the work directory is a file", str(root)) from None
        if isinstance(error, PermissionError):
            raise InputError(
                "the work directory cannot be made", f"{root}: no permission"
            ) from None
        raise
    return root

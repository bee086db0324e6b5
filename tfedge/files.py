"""Writing files so that a reader, an interrupt or a full disk never meets half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfedge.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` if the block succeeds.

    The new file stands in a hidden folder beside `path` (same file system, and the same suffix,
    which Keras goes by); if the block raises, an older file at `path` is left as it was.

    Args:
        path: The file to write or replace.

    Yields:
        Where to write it.

    Raises:
        InputError: The folder of `path` does not exist.
        OSError: The disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError("the output's folder does not exist", str(path.parent), "Create it first")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new = Path(folder) / path.name
        yield new
        _sync(new)
        new.replace(path)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes a file in one step, as `replacing` does.

    Args:
        path: The file.
        data: Its content.

    Raises:
        InputError: The folder of `path` does not exist.
        OSError: The file cannot be written; an older one is left as it was.
    """
    with replacing(path) as new:
        new.write_bytes(data)


def _sync(path: Path) -> None:
    """Flushes a file to the disk before it takes another's place."""
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())

"""Keeps the runtime's chatter off the screen."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back the INFO lines that native code writes to the process's stderr within the block.

    Works on the file descriptor, so it covers the whole process; other lines are passed on when
    the block ends.
    """
    # A second thread must not take the first one's temporary file for the screen.
    with _lock, tempfile.TemporaryFile() as held:
        saved = _stderr()
        if saved is None:
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            rest = [line for line in held.read().splitlines(True) if not line.startswith(b"INFO:")]
            if rest:
                os.write(2, b"".join(rest))


def _stderr() -> int | None:
    """A copy of the process's stderr; None where it has none, so no screen to keep clean."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        return os.dup(2)
    except OSError:
        return None

"""Holding back what native code prints, and keeping it for an error message."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


class Captured:
    """What was printed within a `captured` block so far.

    Args:
        descriptor: Of the file that the output goes to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def text(self) -> str:
        """Everything printed, of both streams."""
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, size, 0).decode("utf-8", "replace")


@contextlib.contextmanager
def captured() -> Iterator[Captured]:
    """Sends file descriptors 1 and 2 of the process to a temporary file within the block.

    Python's logging and warnings of the block go there as well. Works for the whole process: what
    other threads print meanwhile is held back too.

    Yields:
        What gives the text.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield Captured(sink.fileno())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, target)
                os.close(copy)

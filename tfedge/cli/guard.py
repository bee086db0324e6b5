"""Errors to one line and an exit status; the library's chatter off the screen."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable

from tfedge.errors import TfedgeError

INTERRUPTED = 130
# Packages whose warnings are about themselves, not about what the user does.
CHATTY = ("tf_keras", "keras", "tensorflow", "tensorflow_model_optimization", "h5py", "absl")
_HDF5 = ".*saving your model as an HDF5 file.*"


def guarded(command: Callable[[], int | None], *, debug: bool) -> int:
    """Runs a command.

    Args:
        command: Returns the exit status, or None for 0.
        debug: Let errors through with their traceback, and warnings too.

    Returns:
        The exit status: the command's own, 1 after an error, 130 after an interrupt.
    """
    try:
        with warnings.catch_warnings():
            if not debug:
                _quieten()
            return command() or 0
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        return _fail("interrupted; what was finished is kept", INTERRUPTED)
    except BrokenPipeError:
        raise  # the reader of standard output went away: main's business
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _fail(describe(error), 1)


def describe(error: Exception) -> str:
    """One line for an error: what was wrong, what was found, what to do."""
    if isinstance(error, TfedgeError):
        return _one_line(str(error))
    text = _one_line(str(error)) or "no message"
    name = getattr(error, "filename", None)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        where = f" Found: {name}." if name else ""
        return f"the disk is full.{where} Free some space and run the command again."
    if isinstance(error, OSError) and error.strerror and name:
        return f"{error.strerror}. Found: {name}."
    text = f"{type(error).__name__}: {text.rstrip('.')}"
    return f"{text}. Run again with --debug for the whole traceback."


def _one_line(text: str, limit: int = 600) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _fail(text: str, status: int) -> int:
    print(f"tfedge: error: {text}", file=sys.stderr)
    return status


def _quieten() -> None:
    """Keeps TensorFlow's and Keras's own warnings away; those of the user's code stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("absl", "tensorflow", "h5py"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for package in CHATTY:
        warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
    warnings.filterwarnings("ignore", message=_HDF5)

"""What commands write: JSON files and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfedge.errors import InputError
from tfedge.files import write_atomic
from tfedge.record import to_json
from tfedge.report.table import make_console


def check_folder(path: str | None) -> None:
    """Refuses, before any work, an output whose folder does not exist.

    Args:
        path: The output, "-" for standard output, or None.

    Raises:
        InputError: There is no such folder, or the path is a folder itself.
    """
    if path is None or path == "-":
        return
    folder = Path(path).parent
    if not folder.is_dir():
        raise InputError("the output's folder does not exist", str(folder), "Create it first")
    if Path(path).is_dir():
        raise InputError("the output is a folder", path, "Give the name of a file")


def write_json(path: str | None, value: Any) -> None:
    """Writes a value as JSON.

    Args:
        path: A file (replaced on success), "-" for standard output, or None for nowhere.
        value: Records, arrays or plain data.
    """
    if path is None:
        return
    text = json.dumps(to_json(value), indent=1, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_atomic(path, text.encode())


def show(renderable: Any, json_path: str | None = None) -> None:
    """Prints a table or text, unless standard output is taken by `--json=-`.

    Args:
        renderable: A rich renderable, or text, which is printed as it is.
        json_path: The command's `--json` flag.
    """
    if json_path == "-":
        return
    if isinstance(renderable, str):
        print(renderable)
    else:
        make_console().print(renderable)


def pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE flags as a dict.

    Args:
        flag: The flag's name, for the message.
        given: Its values; the last "=" of each divides it, so that a name may hold others.

    Raises:
        InputError: One without "=", or with nothing at a side of it.
    """
    found = {}
    for text in given:
        name, sign, value = text.rpartition("=")
        if not (sign and name and value):
            raise InputError(f"--{flag} takes NAME=VALUE", f"'{text}'")
        found[name] = value
    return found

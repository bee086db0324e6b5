"""A table that a benchmark fills row by row: interrupted, it goes on where it was.

Every row is measured in a process of its own, so that memory and a crash are the row's alone.
Many small rows may share one; after a crash the rest go on in the next.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def main(
    name: str,
    rows: Sequence[str],
    measure: Callable[[str], dict[str, Any]],
    doc: str,
    together: int = 1,
) -> None:
    """Measures rows and prints the table.

    Args:
        name: Of the result file, benchmarks/results/<name>.json.
        rows: Names of all rows.
        measure: Gives the columns of a row; an exception becomes the column "error".
        doc: Help text.
        together: Rows that share a process.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--only", action="append", default=[], help="row to measure; repeatable")
    parser.add_argument("--force", action="store_true", help="measure finished rows again")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds a row may take")
    parser.add_argument("--row", action="append", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        for row in options.row:
            print(json.dumps({row: _measured(measure, row)}), flush=True)
        return
    unknown = set(options.only) - set(rows)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; rows: {', '.join(rows)}")
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    waiting = [
        row
        for row in options.only or rows
        if options.force or row not in table or "error" in table[row]
    ]
    while waiting:
        found = _in_process(waiting[:together], options.timeout)
        table |= found
        path.write_text(json.dumps(table, indent=1) + "\n")
        for row, columns in found.items():
            print(_line(row, columns), flush=True)
        waiting = [row for row in waiting if row not in found]
    print(_markdown([r for r in rows if r in table], table))


def _measured(measure: Callable[[str], dict[str, Any]], row: str) -> dict[str, Any]:
    try:
        return measure(row)
    except Exception as error:  # the row's result is that it failed, and how
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _in_process(batch: Sequence[str], timeout: float) -> dict[str, dict[str, Any]]:
    """The rows that one process finished; the one that ended it has the error."""
    argv = [sys.executable, sys.argv[0], *(word for row in batch for word in ("--row", row))]
    why = ""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout * len(batch))
        lines, said = done.stdout, done.stderr.strip().splitlines()
        why = f"exit {done.returncode}: {said[-1] if said else ''}"[:300]
    except subprocess.TimeoutExpired as late:
        lines = late.stdout or ""
        why = f"not finished within {timeout * len(batch):.0f} s"
    found: dict[str, dict[str, Any]] = {}
    for line in (lines.decode() if isinstance(lines, bytes) else lines).splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    missing = [row for row in batch if row not in found]
    return found | {row: {"error": why} for row in missing[:1]}


def _line(row: str, columns: dict[str, Any]) -> str:
    return f"{row}: " + ", ".join(f"{k} {v}" for k, v in columns.items())


def _markdown(rows: Sequence[str], table: dict[str, Any]) -> str:
    keys = list(dict.fromkeys(k for r in rows for k in table[r]))
    lines = ["| row | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for row in rows:
        cells = [str(table[row].get(k, "")) for k in keys]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

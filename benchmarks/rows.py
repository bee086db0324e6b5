"""A table that a benchmark fills row by row: interrupted, it goes on where it was.

Every row is measured in a process of its own, so that memory and a crash are the row's alone.
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
    name: str, rows: Sequence[str], measure: Callable[[str], dict[str, Any]], doc: str
) -> None:
    """Measures rows and prints the table.

    Args:
        name: Of the result file, benchmarks/results/<name>.json.
        rows: Names of all rows.
        measure: Gives the columns of a row; an exception becomes the column "error".
        doc: Help text.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--only", action="append", default=[], help="row to measure; repeatable")
    parser.add_argument("--force", action="store_true", help="measure finished rows again")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds a row may take")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(_measured(measure, options.row)))
        return
    unknown = set(options.only) - set(rows)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; rows: {', '.join(rows)}")
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for row in options.only or rows:
        if row in table and "error" not in table[row] and not options.force:
            continue
        table[row] = _in_process(row, options.timeout)
        path.write_text(json.dumps(table, indent=1) + "\n")
        print(_line(row, table[row]), flush=True)
    print(_markdown([r for r in rows if r in table], table))


def _measured(measure: Callable[[str], dict[str, Any]], row: str) -> dict[str, Any]:
    try:
        return measure(row)
    except Exception as error:  # the row's result is that it failed, and how
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _in_process(row: str, timeout: float) -> dict[str, Any]:
    argv = [sys.executable, sys.argv[0], "--row", row]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished within {timeout:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        return {"error": f"exit {done.returncode}: {said[-1] if said else ''}"[:300]}
    return json.loads(lines[-1])


def _line(row: str, columns: dict[str, Any]) -> str:
    return f"{row}: " + ", ".join(f"{k} {v}" for k, v in columns.items())


def _markdown(rows: Sequence[str], table: dict[str, Any]) -> str:
    keys = list(dict.fromkeys(k for r in rows for k in table[r]))
    lines = ["| row | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for row in rows:
        cells = [str(table[row].get(k, "")) for k in keys]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

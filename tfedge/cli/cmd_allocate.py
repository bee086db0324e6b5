"""Gives each part of a float model the scheme that serves best within a budget; writes one file.

--budget may be given several times: bytes=N, latency_us=N (upper limits), sqnr_db=N (a lower one).
"""

from __future__ import annotations

import math
from typing import Any

from absl import flags

from tfedge.cli.output import check_folder, pairs, show, write_json
from tfedge.errors import InputError

REQUIRED = ("model", "calibration", "budget", "output")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string, multi = flags.DEFINE_string, flags.DEFINE_multi_string
    string("model", None, "Float model (.keras, .h5).", flag_values=values)
    samples = "Samples: X.npz, a folder, random:32, or synthetic:128."
    string("calibration", None, samples, flag_values=values)
    multi("budget", None, "bytes=N, latency_us=N or sqnr_db=N.", flag_values=values)
    string("output", None, "TFLite file to write.", flag_values=values)
    string("target", "host", "Where time is measured.", flag_values=values)
    multi("keep", [], "LAYER=SCHEME; also first=, last=, residual=.", flag_values=values)
    flags.DEFINE_enum(
        "measure", "sqnr", ["sqnr", "kl", "hessian"], "How noise is measured.", flag_values=values
    )
    string("json", None, "Write the result here; - for standard output.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Measures, solves, writes the file and prints what each part got."""
    budget = {name: _number(name, text) for name, text in pairs("budget", values.budget).items()}
    keep = pairs("keep", values.keep)
    check_folder(values.output)
    check_folder(values.json)
    from tfedge.mixed import allocate
    from tfedge.progress import working

    with working("measuring noise and costs of each layer"):
        found = allocate(
            values.model,
            values.calibration,
            budget,
            target=values.target,
            keep=keep,
            measure=values.measure,
        )
    found.file.save(values.output)
    write_json(values.json, facts(found))
    show_allocation(found, values.json)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--budget={name} takes a number", f"'{text}'") from None


def facts(found: Any) -> dict[str, Any]:
    """An `Allocation` as plain JSON values; an infinite ratio is None."""
    rows = {"mixed": found.measured, "predicted": found.predicted, **found.uniform}
    return {
        "overrides": found.overrides,
        "units": [
            {
                "unit": c.unit,
                "layers": list(c.layers),
                "scheme": c.scheme,
                "noise": c.noise,
                "bytes": c.bytes,
                "latency_us": c.latency_us,
            }
            for c in found.choices
        ],
        "files": {
            name: {k: v if math.isfinite(v) else None for k, v in row.items()}
            for name, row in rows.items()
        },
        "missed": found.missed,
        "target": found.target,
        "source": found.source,
        "dropped": found.dropped,
        "solver_seconds": found.seconds,
        "gap": found.gap,
    }


def show_allocation(found: Any, json_path: str | None) -> None:
    """Prints what each part got, and the file beside those of one scheme."""
    from tfedge.report import plain_table

    cells = [
        [c.unit, c.scheme, f"{c.noise:.2g}", f"{round(c.bytes):,}", f"{c.latency_us:.1f}"]
        for c in found.choices
    ]
    estimated = found.source == "simulated"
    time = f"us on {found.target}" + (", estimated" if estimated else "")
    heads = ["part", "scheme", "noise", "bytes", time]
    show(plain_table("", heads, cells), json_path)
    rows = {"mixed": found.measured, "predicted": found.predicted, **found.uniform}
    places = {"sqnr_db": 1, "bytes": 0, "latency_us": 1}
    cells = [
        [name, *(f"{row[k]:,.{n}f}" if k in row else "" for k, n in places.items())]
        for name, row in rows.items()
    ]
    show(plain_table("", ["file", "SQNR dB", "bytes", time], cells), json_path)
    if found.missed:
        show(f"The budget is missed: {found.missed}", json_path)
    for scheme, why in found.dropped.items():
        show(f"{scheme} was left out: {why}", json_path)

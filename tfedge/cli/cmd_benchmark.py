"""Measures TFLite files in pairs, in turn, in one process; the first one is the reference.

    tfedge benchmark a.tflite b.tflite --target=host --target=arm64:cortex-a53 --ops

Each target has a table of its own; nothing is compared across them. --ops adds a table of the
instructions of each op, on targets that count them (arm64:...).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfedge.cli.output import check_folder, show, write_json
from tfedge.errors import InputError

REQUIRED = ()  # The files may be arguments instead of flags.


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_multi_string(
        "model", [], "TFLite file (or as an argument); repeatable.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "target", ["host"], "Where to measure; repeatable.", flag_values=values
    )
    flags.DEFINE_integer("runs", 50, "Timed rounds.", flag_values=values)
    flags.DEFINE_integer("threads", 1, "Threads of the runtime.", flag_values=values)
    flags.DEFINE_boolean("ops", False, "Show the instructions of each op.", flag_values=values)
    flags.DEFINE_string(
        "json", None, "Write the result here; - for standard output.", flag_values=values
    )


def take_rest(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Takes files as arguments."""
    values.model = [*values.model, *rest]


def run(values: flags.FlagValues) -> None:
    """Measures and prints the tables."""
    if not values.model:
        raise InputError("there is no file", fix="Write: tfedge benchmark model.tflite")
    check_folder(values.json)
    from tfedge import bench
    from tfedge.progress import working
    from tfedge.report import timing_table
    from tfedge.report.costs import costs_table

    if values.ops:
        bench.counters(values.target)
    with working(f"measuring {len(values.model)} file(s) on {', '.join(values.target)}"):
        timings = bench.measure(
            values.model, target=values.target, runs=values.runs, threads=values.threads
        )
        costs = bench.count_ops(values.model, values.target) if values.ops else []
    write_json(values.json, {"timings": timings, "ops": costs} if values.ops else timings)
    show(timing_table(timings), values.json)
    names = [Path(model).stem for model in values.model] * len(values.target)
    for name, found in zip(names, costs, strict=False):
        show(costs_table(name, found), values.json)

"""Measures TFLite files in pairs, in turn, in one process; the first one is the reference.

    tfedge benchmark a.tflite b.tflite --target=host --target=arm64:cortex-a53 --ops

Boards and phones are targets too: ssh:USER@HOST, and adb:SERIAL with the benchmark_model that
$TFEDGE_BENCHMARK_MODEL names (docs/TARGETS.md).

Each target has a table of its own; nothing is compared across them. --ops adds a table of the
instructions of each op, on targets that count them (arm64:...); --outputs one that says whether
the files compute there what they compute here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from tfedge.cli.output import check_folder, show, write_json
from tfedge.errors import InputError, TfedgeError

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
    flags.DEFINE_boolean(
        "outputs", False, "Compare outputs on random inputs with this machine's, bit for bit.",
        flag_values=values,
    )  # fmt: skip
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
    from tfedge.report.costs import costs_table, matches_table

    if values.ops:
        bench.counters(values.target)
    with working(f"measuring {len(values.model)} file(s) on {', '.join(values.target)}"):
        timings = _measure(values)
        more: dict[str, Any] = {}
        if values.ops:
            more["ops"] = bench.count_ops(values.model, values.target)
        if values.outputs:
            more["outputs"] = bench.compare_outputs(values.model, values.target)
    write_json(values.json, {"timings": timings, **more} if more else timings)
    show(timing_table(timings), values.json)
    for name, found in more.get("ops", {}).items():
        for costs in found:
            show(costs_table(name, costs), values.json)
    if values.outputs:
        show(matches_table(more["outputs"]), values.json)


def _measure(values: flags.FlagValues) -> list[Any]:
    """The timings; where a target fails, those of the ones before it are written and shown."""
    from tfedge import bench
    from tfedge.report import timing_table

    timings: list[Any] = []
    try:
        for found in bench.measure_each(
            values.model, target=values.target, runs=values.runs, threads=values.threads
        ):
            timings += found
    except TfedgeError:
        if timings:
            write_json(values.json, timings)
            show(timing_table(timings), values.json)
        raise
    return timings

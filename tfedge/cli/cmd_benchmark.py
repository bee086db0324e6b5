"""Measures TFLite files in pairs, in turn, in one process; the first one is the reference."""

from __future__ import annotations

from absl import flags

from tfedge.cli.output import check_folder, show, write_json

REQUIRED = ("model",)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_multi_string("model", [], "TFLite file.", flag_values=values)
    flags.DEFINE_string("target", "host", "Where to measure.", flag_values=values)
    flags.DEFINE_integer("runs", 50, "Timed rounds.", flag_values=values)
    flags.DEFINE_integer("threads", 1, "Threads of the runtime.", flag_values=values)
    flags.DEFINE_string(
        "json", None, "Write the result here; - for standard output.", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Measures and prints the table."""
    check_folder(values.json)
    from tfedge import bench
    from tfedge.progress import working
    from tfedge.report import timing_table

    with working(f"measuring {len(values.model)} file(s) on {values.target}"):
        timings = bench.measure(
            values.model, target=values.target, runs=values.runs, threads=values.threads
        )
    write_json(values.json, timings)
    show(timing_table(timings), values.json)

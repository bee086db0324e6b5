"""Measures TFLite files in pairs, in turn, in one process; the first one is the reference.

    tfedge benchmark a.tflite b.tflite --target=host --target=arm64:cortex-a53 --ops
    tfedge benchmark a.tflite --target=configs/targets/pi4.yaml --eval --data=fashion_mnist

Boards and phones are targets too: ssh:USER@HOST, and adb:SERIAL with the benchmark_model that
$TFEDGE_BENCHMARK_MODEL names (docs/TARGETS.md).

Each target has a table of its own; nothing is compared across them. A target is one of
`tfedge target list`, or a device file. --ops adds a table of what each op costs, on targets
that tell (instructions on arm64:..., estimated times on sim:..., cycles and what stays on the CPU
on ethosu:...); --outputs one that says whether the files compute there what they compute here;
--eval one of their accuracy on the test samples of --data or --task, beside this machine's on the
same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from tfedge.cli import training
from tfedge.cli.output import check_folder, show, write_json
from tfedge.errors import InputError, TfedgeError

REQUIRED = ()  # The files may be arguments instead of flags.


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_multi_string(
        "model", [], "TFLite file (or as an argument); repeatable.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "target", ["host"], "Where to measure: a target or a device file; repeatable.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("runs", 50, "Timed rounds.", flag_values=values)
    flags.DEFINE_integer(
        "threads", None, "Threads of the runtime (the device file's, else 1).", flag_values=values
    )
    flags.DEFINE_boolean("ops", False, "Show what each op costs.", flag_values=values)
    flags.DEFINE_boolean(
        "outputs", False, "Compare outputs on random inputs with this machine's, bit for bit.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "eval", False, "Score the files on the targets, on the test part of --data or --task.",
        flag_values=values,
    )  # fmt: skip
    training.define_task(values)
    flags.DEFINE_integer(
        "samples", None,
        "Test samples for --eval, drawn at random (all on hardware; 200 where the target is "
        "emulated or simulated).",
        lower_bound=1, flag_values=values,
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
    task = _task(values)
    from tfedge import bench
    from tfedge.progress import working
    from tfedge.report import timing_table
    from tfedge.report.costs import costs_table, matches_table
    from tfedge.report.scores import scores_table

    if values.ops:
        bench.counters(values.target)
    if values.outputs:
        bench.runners(values.target)
    tests = _tests(values, task)
    with working(f"measuring {len(values.model)} file(s) on {', '.join(values.target)}"):
        timings = _measure(values)
        more: dict[str, Any] = {}
        if values.ops:
            more["ops"] = bench.count_ops(values.model, values.target)
        if values.outputs:
            more["outputs"] = bench.compare_outputs(values.model, values.target)
    show(timing_table(timings), values.json)
    for name, found in more.get("ops", {}).items():
        for costs in found:
            show(costs_table(name, costs), values.json)
    if values.outputs:
        show(matches_table(more["outputs"]), values.json)
    if tests:
        from tfedge.accuracy import with_scores

        timings = with_scores(timings, tests, values.target)
        show(scores_table(timings), values.json)
    write_json(values.json, {"timings": timings, **more} if more else timings)


def _task(values: flags.FlagValues) -> str:
    """The task for --eval; "" without.

    Raises:
        InputError: --eval without a task, or what only --eval looks at without it.
    """
    if values.eval:
        return training.task_spec(values)
    for name in ("data", "task", "samples"):
        if values[name].value is not None:
            raise InputError(f"--{name} has no meaning without --eval", "", "Add --eval")
    return ""


def _tests(values: flags.FlagValues, task: str) -> dict[str, Any]:
    """What the files are tested on; nothing without a task."""
    if not task:
        return {}
    from tfedge.accuracy import tests_of
    from tfedge.progress import working

    with working("loading the data"):
        return tests_of(values.model, task, values.samples)


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

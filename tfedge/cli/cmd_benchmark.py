"""Measures TFLite files in pairs, in turn, in one process; the first one is the reference.

    tfedge benchmark a.tflite b.tflite --target=host --target=arm64:cortex-a53 --ops
    tfedge benchmark a.tflite --target=configs/targets/pi4.yaml --eval --data=fashion_mnist

Boards and phones are targets too: ssh:USER@HOST, and adb:SERIAL with the benchmark_model that
$TFEDGE_BENCHMARK_MODEL names (docs/TARGETS.md).

Each target has a table of its own; nothing is compared across them. A target is one of
`tfedge target list`, or a device file. --ops adds a table of what each op costs, on targets
that tell (measured times on host and boards, instructions on arm64:..., estimated times on
sim:..., cycles and what stays on the CPU on ethosu:...); --outputs one that says whether the files
compute there what they compute here;
--eval one of their accuracy on the test samples of --data or --task, beside this machine's on the
same samples.

--json writes a mapping: "timings" (a row a file and target), "ops", "outputs", and when and with
which files it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from absl import flags

from tfedge._version import __version__
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
    """Measures and prints the tables; what was measured is written where something stops it."""
    if not values.model:
        raise InputError("there is no file", fix="Write: tfedge benchmark model.tflite")
    check_folder(values.json)
    task = _task(values)
    from tfedge import bench

    if values.ops:
        bench.counters(values.target)
    if values.outputs:
        bench.runners(values.target)
    tests = _tests(values, task)
    result = _begun(values.model)
    try:
        for timings in _timings(values):
            result["timings"] += timings
        _details(values, result)
        if tests:
            _scores(values, tests, result)
    except (TfedgeError, KeyboardInterrupt):
        if result["timings"]:
            write_json(values.json, result)
        raise
    write_json(values.json, result)


def _begun(models: Sequence[str]) -> dict[str, Any]:
    """What every result says: when and with what it was measured, and which files they were."""
    from tfedge import bench

    files = bench.files_of(models)
    return {
        "tfedge": __version__,
        "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sha256": {name: sha256(data).hexdigest() for name, data in files.items()},
        "timings": [],
    }


def _timings(values: flags.FlagValues) -> Iterator[list[Any]]:
    """The timings of each target, shown as soon as they are there."""
    from tfedge import bench
    from tfedge.progress import working
    from tfedge.report import timing_table

    each = bench.measure_each(
        values.model, target=values.target, runs=values.runs, threads=values.threads
    )
    for target in dict.fromkeys(values.target):
        with working(f"measuring {len(values.model)} file(s) on {target}"):
            found = next(each)
        show(timing_table(found), values.json)
        yield found


def _details(values: flags.FlagValues, result: dict[str, Any]) -> None:
    """What ops cost, and what the files compute."""
    from tfedge import bench
    from tfedge.progress import working
    from tfedge.report.costs import costs_table, matches_table

    if values.ops:
        with working("looking at each op"):
            result["ops"] = bench.count_ops(values.model, values.target)
        for name, found in result["ops"].items():
            for costs in found:
                show(costs_table(name, costs), values.json)
    if values.outputs:
        able = {place.name for place in bench.runners(values.target)}
        for place in bench.places_of(values.target):
            if place.name not in able:
                show(f"{place.name} computes no outputs: nothing to compare", values.json)
        with working("comparing outputs"):
            result["outputs"] = bench.compare_outputs(values.model, values.target)
        show(matches_table(result["outputs"]), values.json)


def _scores(values: flags.FlagValues, tests: dict[str, Any], result: dict[str, Any]) -> None:
    from tfedge.accuracy import with_scores
    from tfedge.report.scores import scores_table

    result["timings"] = with_scores(result["timings"], tests, values.target)
    show(scores_table(result["timings"]), values.json)


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

"""Runs a recipe: train, prune, distill, quantize-aware training, convert, verify, benchmark.

The work directory keeps every stage; the same command skips what is finished. Ends with a table,
report.html and records.jsonl. Exit status 1 where a scheme that the recipe asks for could not be
written; everything else is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from tfedge.cli.output import show
from tfedge.errors import InputError

REQUIRED = ("recipe", "workdir")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("recipe", None, "Recipe file (.yaml).", flag_values=values)
    string("workdir", None, "Work directory; made where it does not exist.", flag_values=values)
    string("model", None, "Model to compress (.keras, .h5, SavedModel).", flag_values=values)
    string("data", None, "Data: fashion_mnist, X.npz or a folder of images.", flag_values=values)
    string(
        "task",
        None,
        "module:function that returns a Task (in place of --data).",
        flag_values=values,
    )
    flags.DEFINE_multi_string("set", [], "stages.0.sparsity=0.6 and the like.", flag_values=values)


def take_rest(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Takes further path=value after --set.

    Raises:
        InputError: Something else, or nothing that it could belong to.
    """
    stray = [r for r in rest if "=" not in r or r.startswith("-")]
    if stray or not values["set"].value:
        raise InputError("not a flag", f"'{(stray or rest)[0]}'", "Write --set path=value")
    values["set"].value = [*values["set"].value, *rest]


def run(values: flags.FlagValues) -> int:
    """Runs the recipe and prints the table."""
    from tfedge import recipe as recipes

    # Read first: a misspelt key must not wait for TensorFlow.
    overrides = values["set"].value
    recipe = recipes.load(values.recipe, overrides)
    from tfedge import pipeline
    from tfedge.report import record_table
    from tfedge.report.scores import scores_table, timings_of

    records = pipeline.compress(
        recipe, values.workdir, model=values.model, data=values.data, task=values.task
    )
    show(record_table(records, recipe.name))
    if scored := timings_of(records):
        show(scores_table(scored))
    show(f"report: {values.workdir}/report.html   records: {values.workdir}/records.jsonl")
    missing = pipeline.missing_files(recipe, records)
    for row in missing:
        note = row.notes[-1] if row.notes else "not made"
        print(f"tfedge: error: {row.label}, {row.scheme}: {note}", file=sys.stderr)
    return 1 if missing else 0

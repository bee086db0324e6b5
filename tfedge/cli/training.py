"""Flags that `distill` and `qat` share, and what they make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from tfedge.cli.output import show
from tfedge.errors import InputError
from tfedge.recipe import read_yaml
from tfedge.report import plain_table
from tfedge.specs import OPTIMIZERS


def define_task(values: flags.FlagValues) -> None:
    """Defines the flags that name the data."""
    string = flags.DEFINE_string
    string("data", None, "Data: fashion_mnist, X.npz or a folder of images.", flag_values=values)
    string(
        "task",
        None,
        "module:function that returns a Task (in place of --data).",
        flag_values=values,
    )


def define_training(values: flags.FlagValues, *, epochs: int, learning_rate: float) -> None:
    """Defines the flags of a command that trains."""
    string, number = flags.DEFINE_string, flags.DEFINE_float
    define_task(values)
    flags.DEFINE_integer("epochs", epochs, "Passes over the data.", flag_values=values)
    flags.DEFINE_integer("batch_size", 128, "Samples per step.", flag_values=values)
    number("learning_rate", learning_rate, "Peak of the schedule.", flag_values=values)
    flags.DEFINE_enum("optimizer", "adam", OPTIMIZERS, "Optimizer.", flag_values=values)
    string(
        "temperature",
        "2.0",
        "Divides the logits: a number, a name (cosine, ...), or '{name: cosine, start: 6}'.",
        flag_values=values,
    )
    number("alpha", 0.7, "Weight of the teacher's loss, 0 to 1.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of all randomness.", flag_values=values)
    string(
        "checkpoint_dir",
        None,
        "Folder for epoch checkpoints; the same command then goes on where it was interrupted.",
        flag_values=values,
    )


def spec_keys(values: flags.FlagValues) -> dict[str, Any]:
    """The flags that are keys of the stage specs."""
    names = ("epochs", "batch_size", "learning_rate", "optimizer", "temperature", "alpha")
    found = {n: values[n].value for n in names}
    return {**found, "temperature": read_yaml(found["temperature"], "--temperature")}


def task_spec(values: flags.FlagValues) -> str:
    """The one of --data and --task that was given.

    Raises:
        InputError: Neither or both.
    """
    if bool(values.data) == bool(values.task):
        found = "both" if values.data else "neither"
        raise InputError("exactly one of --data and --task is needed", found)
    return str(values.data or values.task)


def make_training(values: flags.FlagValues, model: Any) -> Any:
    """The `stages.Training` for a model, task loaded and bound."""
    from tfedge.progress import working
    from tfedge.stages import Training
    from tfedge.task import get_task

    with working("loading the data"):
        task = get_task(task_spec(values), model=model)
    folder = Path(values.checkpoint_dir) if values.checkpoint_dir else None
    return Training(task, values.seed, folder)


def show_scores(title: str, scores: dict[str, dict[str, float]]) -> None:
    """Prints the scores of several models on the test part.

    Args:
        title: Title of the table.
        scores: Scores by name, by model.
    """
    names = list(dict.fromkeys(n for row in scores.values() for n in row))
    cells = [[k, *(f"{v.get(n, float('nan')):.4f}" for n in names)] for k, v in scores.items()]
    show(plain_table(title, ["model", *names], cells))

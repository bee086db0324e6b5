"""Trains a model (the student) to answer like a larger one (the teacher) and the labels.

The loss is alpha * T^2 * KL(teacher || student) at temperature T, plus (1 - alpha) * the labels',
plus the losses of --features between intermediate outputs. Repeat --teacher for several teachers,
--features for several losses, and --plan where the student was pruned several times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from tfedge.cli import training
from tfedge.errors import InputError
from tfedge.recipe import read_yaml

REQUIRED = ("student", "teacher", "output")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string, several = flags.DEFINE_string, flags.DEFINE_multi_string
    string("student", None, "Model to train (.keras, .h5, SavedModel).", flag_values=values)
    several(
        "teacher", None, "Model to learn from (.keras, .h5, SavedModel, .tflite).",
        flag_values=values,
    )  # fmt: skip
    string("output", None, "Trained student (.keras or .h5).", flag_values=values)
    several(
        "features", [], "Feature loss: fitnet, attention, ... or '{name: fitnet, weight: 2}'.",
        flag_values=values,
    )  # fmt: skip
    several("plan", [], "Plan that pruned the teacher to the student.", flag_values=values)
    flags.DEFINE_enum(
        "combine", "average", ("average", "confidence"), "How several teachers count.",
        flag_values=values,
    )  # fmt: skip
    string(
        "cache_teacher", None, "Folder: the teacher's outputs, written once, then read.",
        flag_values=values,
    )  # fmt: skip
    training.define_training(values, epochs=6, learning_rate=1e-3)


def run(values: flags.FlagValues) -> None:
    """Trains, saves, prints the scores on the test part."""
    from tfedge.saving import check_output, save_model
    from tfedge.specs import DistillSpec

    check_output(values.output)
    training.task_spec(values)
    spec = DistillSpec(
        **training.spec_keys(values),
        features=[read_yaml(text, "--features") for text in values.features],
        teacher=tuple(values.teacher),
        combine=values.combine,
        cache_teacher=values.cache_teacher,
    )
    plans = _plans(values.plan, spec)
    from tfedge import api, stages, train

    given = api.load_model(values.student)
    student = api.working(given)
    teachers = [_teacher(path) for path in spec.teacher]
    setting = training.make_training(values, student)
    scores = {}
    for number, teacher in enumerate(teachers, 1):
        name = "teacher" if len(teachers) == 1 else f"teacher {number}"
        scores[name] = _score(teacher, setting.task)
    scores["student before"] = train.evaluate(student, setting.task)
    made = stages.distill(student, teachers, spec, setting, plans)
    scores["student after"] = train.evaluate(made.model, setting.task)
    save_model(api.like(made.model, given), values.output)
    training.show_scores("test part", scores)


def _plans(paths: list[str], spec: Any) -> list[Any]:
    """The pruning plans.

    Raises:
        InputError: There are some, and no feature loss looks at them.
    """
    from tfedge.prune import PruningPlan

    if paths and not {"fitnet", "channel_kl"} & {f["name"] for f in spec.features}:
        raise InputError(
            "a plan is of no use here", "no feature loss that compares channels",
            "Add --features=fitnet, or leave --plan out",
        )  # fmt: skip
    return [PruningPlan.load(path) for path in paths]


def _teacher(path: str) -> Any:
    from tfedge import api
    from tfedge.tflite import TFLiteModel

    # In its own Keras: a pruning plan was made for that.
    return TFLiteModel.load(path) if Path(path).suffix == ".tflite" else api.load_model(path)


def _score(teacher: Any, task: Any) -> dict[str, float]:
    from tfedge import train
    from tfedge.bridge import ServingModel
    from tfedge.stage_files import score_file
    from tfedge.tflite import TFLiteModel

    if isinstance(teacher, ServingModel):
        return {}
    if isinstance(teacher, TFLiteModel):
        return score_file(teacher, task)
    return train.evaluate(teacher, task)

"""Trains a model (the student) to answer like a larger one (the teacher) and the labels.

The loss is alpha * T^2 * KL(teacher || student) at temperature T, plus (1 - alpha) * the labels'.
"""

from __future__ import annotations

from absl import flags

from tfedge.cli import training

REQUIRED = ("student", "teacher", "output")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("student", None, "Model to train (.keras, .h5, SavedModel).", flag_values=values)
    string("teacher", None, "Model to learn from.", flag_values=values)
    string("output", None, "Trained student (.keras or .h5).", flag_values=values)
    training.define_training(values, epochs=6, learning_rate=1e-3)


def run(values: flags.FlagValues) -> None:
    """Trains, saves, prints the scores on the test part."""
    from tfedge.saving import check_output, save_model
    from tfedge.specs import DistillSpec

    check_output(values.output)
    training.task_spec(values)
    spec = DistillSpec(**training.spec_keys(values))
    from tfedge import api, stages, train

    given = api.load_model(values.student)
    student, teacher = api.working(given), api.working(values.teacher)
    setting = training.make_training(values, student)
    scores = {
        "teacher": train.evaluate(teacher, setting.task),
        "student before": train.evaluate(student, setting.task),
    }
    made = stages.distill(student, teacher, spec, setting)
    scores["student after"] = train.evaluate(made.model, setting.task)
    save_model(api.like(made.model, given), values.output)
    training.show_scores("test part", scores)

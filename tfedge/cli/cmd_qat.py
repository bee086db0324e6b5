"""Quantize-aware training: a copy of the model that simulates integer arithmetic, trained.

The ranges start at what the model shows on --calibration samples. The result is saved as .h5 and
is converted by `tfedge convert`.
"""

from __future__ import annotations

from absl import flags

from tfedge.cli import training
from tfedge.cli.output import show
from tfedge.specs import QatSpec

REQUIRED = ("model", "output")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("model", None, "Float model (.keras, .h5, SavedModel).", flag_values=values)
    string("output", None, "Quantize-aware model (.h5).", flag_values=values)
    string("scheme", "w8a8", "Scheme to simulate: w8a8 or w8a16.", flag_values=values)
    string("teacher", None, "Model to distill from while training.", flag_values=values)
    flags.DEFINE_integer(
        "calibration", 256, "Training samples that set the first ranges.", flag_values=values
    )
    training.define_training(values, epochs=2, learning_rate=2e-4)


def run(values: flags.FlagValues) -> None:
    """Trains, saves, prints the scores on the test part."""
    from tfedge.errors import InputError
    from tfedge.saving import check_output, save_model

    check_output(values.output, quantized=True)
    training.task_spec(values)
    unused = [n for n in ("temperature", "alpha") if values[n].present and not values.teacher]
    if unused:
        raise InputError(f"--{unused[0]} has no meaning without --teacher", "", "Add --teacher")
    spec = QatSpec(
        **training.spec_keys(values),
        scheme=values.scheme,
        calibration=values.calibration,
        distill=values.teacher is not None,
    )
    from tfedge import api, stages, train

    model = api.working(values.model)
    teacher = api.working(values.teacher) if values.teacher else None
    setting = training.make_training(values, model)
    scores = {"float model": train.evaluate(model, setting.task)}
    made = stages.quantize(model, spec, setting, teacher)
    scores[f"{spec.scheme} simulation"] = train.evaluate(made.model, setting.task)
    save_model(made.model, values.output, quantized=True)
    training.show_scores("test part", scores)
    for note in made.notes:
        show(note)

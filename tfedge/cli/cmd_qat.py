"""Quantize-aware training: a copy of the model that simulates integer arithmetic, trained.

The ranges start at what the model shows on --calibration samples. The result is saved as .h5 and
is converted by `tfedge convert`.
"""

from __future__ import annotations

from absl import flags

from tfedge.cli import training
from tfedge.cli.output import pairs, show
from tfedge.spec_keys import PRESERVED, RANGE_MODES
from tfedge.specs import QatSpec

REQUIRED = ("model", "output")
STEPS = {
    "start_step": "Training steps in float before quantization begins.",
    "freeze_ranges_step": "Step from which ranges stay.",
    "freeze_batch_norm_step": "Step from which batch norm's statistics stay.",
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = flags.DEFINE_string
    string("model", None, "Float model (.keras, .h5, SavedModel).", flag_values=values)
    string("output", None, "Quantize-aware model (.h5).", flag_values=values)
    string("scheme", "w8a8", "Scheme to simulate: w8a8, w8a16 or w4a8.", flag_values=values)
    flags.DEFINE_multi_string(
        "override",
        [],
        "Scheme of some layers, NAME=SCHEME, with a name or regular expression and one of w8a8, "
        "w8a16, w4a8, float; may be given several times.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "strict", False, "A layer that does not get its scheme is an error.", flag_values=values
    )
    flags.DEFINE_enum(
        "ranges", "moving_average", list(RANGE_MODES), "How ranges move.", flag_values=values
    )
    flags.DEFINE_enum(
        "preserve", "", list(PRESERVED), "What stays in the kernels.", flag_values=values
    )
    for name, text in STEPS.items():
        flags.DEFINE_integer(name, None, text, lower_bound=0, flag_values=values)
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
        overrides=pairs("override", values.override),
        strict=values.strict,
        ranges=values.ranges,
        preserve=values.preserve,
        **{n: values[n].value for n in STEPS if values[n].value is not None},
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

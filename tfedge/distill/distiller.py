"""Distiller: an ordinary Keras model whose fit teaches a student from a teacher and from labels."""

from __future__ import annotations

from abc import ABCMeta
from numbers import Real
from typing import Any

from tfedge._keras import flavour
from tfedge.distill.core import Core
from tfedge.distill.features import get_features
from tfedge.distill.teacher import Teacher
from tfedge.distill.temperature import get_temperature
from tfedge.distill.tf_keras_model import TfKerasDistiller
from tfedge.errors import InputError, ModelError, did_you_mean
from tfedge.graph import rebuild, trace

OPTIONS = {"kind": "auto", "teacher_activation": "auto", "combine": "average"}
COMBINE = ("average", "confidence")


class Distiller(metaclass=ABCMeta):  # noqa: B024 - for isinstance alone
    """Trains `student` on alpha * soft + (1 - alpha) * hard + features + regularisation.

    soft is, for each output, T^2 * KL(softmax(teacher / T) || softmax(student / T)) for classes
    (Hinton, Vinyals & Dean 2015), its two-class case for sigmoid outputs, the squared difference or
    Huber's loss for numbers, the losses of `tfedge.distill.detection` for detectors; it is
    averaged over the batch and summed over the outputs with `loss_weights`. hard is the loss given
    to `compile`. features is the sum of the feature losses with their weights. The student's
    regularisation counts in full.

    `Distiller(...)` returns a Keras model of the student's flavour: a tf_keras student trains in
    tf_keras's `fit`, a Keras 3 student (TensorFlow backend) in Keras 3's own. Compile, fit,
    callbacks, steps_per_execution, mixed precision and tf.distribute work as usual. Logged are
    "loss" (what is minimised), "hard_loss", "soft_loss", "feature_loss", "temperature" (the batch's
    mean, where it is no fixed number) and the compiled metrics of the student. `evaluate` and
    `predict` give the student's results: there "loss" is the hard loss plus regularisation, as the
    student alone would have it (without a compiled loss, the soft loss). `save` and `save_weights`
    write the student alone. The teacher runs in inference mode and is never changed; adapters and a
    learnt temperature train beside the student and are no part of it.

    With `PruneChannels` among the callbacks, the student is pruned in the same fit, and its masks
    hold after every step. A quantize-aware student learns like any other.

    Args:
        student: A functional or sequential model of either Keras.
        teacher: A model of either Keras, the path of one, a .tflite file (path or `TFLiteModel`), a
            function of tensors that takes what the student takes, a `TeacherCache`, "self" (the
            student as it is now: a copy that stays), or a list of these.
        temperature: T > 0; or a `Temperature`, a name in `TEMPERATURES`, or a mapping with "name"
            and parameters. Numbers (regression) do not use it.
        alpha: 0 (labels only) to 1 (teacher only: no labels and no loss needed).
        features: Feature losses: one or a list of `Feature`s, names in `FEATURES`, or mappings with
            "name" and parameters. They need one Keras teacher whose layers can be seen.
        **options: `kind`: "auto", one of `KINDS` ("softmax", "sigmoid", "regression", "huber"), a
            `YoloHead`, or a mapping of these by output name; or a `DetectionOutputs`. "auto"
            follows the compiled loss where it is one of Keras's, else the student's last activation
            (a linear output of several units counts as logits of classes, of one unit as a number).
            `teacher_activation`: "auto", or the teacher's last activation ("softmax", "sigmoid",
            "linear") where its graph does not show it; what contradicts its values is an error.
            `combine`: "average", or "confidence": several teachers count by sample as
            (1 - softmax over teachers of c_k) / (K - 1), c_k a teacher's cross-entropy with the
            label (Zhang, Chen & Wang 2022, "Confidence-Aware Multi-Teacher Knowledge
            Distillation"), or without labels the entropy of its output over its largest value. The
            weighted mean of the teachers' losses has the gradient of a loss to the weighted mean of
            their softened outputs.

    Attributes:
        student: The model that learns.
        temperature: T where it is a number, else the `Temperature`.
        alpha: Weight of the soft loss.
        kinds: The kind of each output, set by `compile`.

    Raises:
        InputError: A bad value, models that do not fit together, an unknown layer or option.
        ModelError: The student is no Keras model, or its outputs are not known.
        PlanError: A pruning plan of another model.
    """

    def __new__(
        cls,
        student: Any,
        teacher: Any,
        temperature: Any = 2.0,
        alpha: float = 0.7,
        features: Any = None,
        **options: Any,
    ) -> Any:
        """Makes the distiller of the student's flavour."""
        chosen = _checked(options)
        kind = flavour(student)
        if kind is None or not hasattr(student, "layers"):
            raise ModelError(
                "the student must be a tf_keras or Keras 3 model",
                kind or f"a {type(student).__name__}",
            )
        if not isinstance(alpha, Real) or not 0 <= alpha <= 1:
            raise InputError("alpha must lie between 0 and 1", str(alpha), "1 is the teacher alone")
        heat = get_temperature(temperature)
        items = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
        if not items:
            raise InputError("there is no teacher", "an empty list")
        if len(items) == 1 and chosen["combine"] != "average":
            raise InputError(
                "one teacher leaves nothing to combine", f"combine='{chosen['combine']}'",
                "Leave it out",
            )  # fmt: skip
        act = chosen["teacher_activation"]
        teachers = [Teacher(_copy(student, t), student, act) for t in items]
        made = get_features(features)
        core = Core(student, teachers, heat, made, chosen["kind"], chosen["combine"])
        return _class_of(kind)(core, alpha)


Distiller.register(TfKerasDistiller)


def _class_of(kind: str) -> Any:
    """The class of a flavour; Keras 3 is imported where it is needed."""
    if kind == "tf_keras":
        return TfKerasDistiller
    from tfedge.distill.keras3_model import Keras3Distiller

    return Distiller.register(Keras3Distiller)


def _copy(student: Any, teacher: Any) -> Any:
    """The teacher "self": the student as it is now."""
    if isinstance(teacher, str) and teacher == "self":
        return rebuild(trace(student))
    return teacher


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in OPTIONS:
            fix = did_you_mean(name, OPTIONS)
            raise InputError(f"Distiller has no option '{name}'", "", fix)
    chosen = {**OPTIONS, **options}
    if chosen["combine"] not in COMBINE:
        fix = did_you_mean(str(chosen["combine"]), COMBINE)
        raise InputError("unknown way to combine teachers", f"'{chosen['combine']}'", fix)
    return chosen

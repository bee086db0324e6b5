"""The stages that make models: a spec and a model in, a smaller or better model out.

The command line and the pipeline both call these; nothing here knows about work directories.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfedge import train
from tfedge.errors import InputError, did_you_mean
from tfedge.specs import BaselineSpec, DistillSpec, PruneSpec, QatSpec
from tfedge.task import Task


@dataclass(frozen=True)
class Training:
    """What all stages that train share.

    Attributes:
        task: Data, loss and score.
        seed: Of the data's order and the layers' random numbers.
        checkpoints: Folder for epoch checkpoints, from which an interrupted stage goes on; or None.
    """

    task: Task
    seed: int = 0
    checkpoints: Path | None = None

    def fit(self, model: Any, spec: Any, callbacks: tuple[Any, ...] = ()) -> dict[str, list[float]]:
        """Trains a model as a spec says.

        Args:
            model: A tf_keras model or a Distiller; it is changed.
            spec: A `TrainingSpec` with `epochs` and `learning_rate`.
            callbacks: Keras callbacks.

        Returns:
            Lists by metric name, one value an epoch.
        """
        plan = train.TrainSpec(
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            optimizer=spec.optimizer,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            seed=self.seed,
            steps_per_execution=spec.steps_per_execution,
        )
        return train.fit(
            model, self.task, plan, callbacks=callbacks, checkpoint_dir=self.checkpoints
        )


@dataclass(frozen=True)
class Made:
    """What a stage made.

    Attributes:
        model: A tf_keras model.
        notes: What was skipped or refused, and why.
        plan: The pruning plan, where there is one.
        history: Lists by metric name, one value an epoch; empty without training.
    """

    model: Any
    notes: tuple[str, ...] = ()
    plan: Any = None
    history: dict[str, list[float]] | None = None


def make_baseline(model: Any, spec: BaselineSpec, training: Training) -> Made:
    """Trains the baseline in place."""
    return Made(model, history=training.fit(model, spec))


def check_importance(name: str) -> str:
    """Returns the name where it is one of `prune.importance.IMPORTANCE`.

    Raises:
        InputError: It is not; the message suggests the nearest.
    """
    from tfedge.prune import IMPORTANCE

    if name not in IMPORTANCE:
        raise InputError("unknown importance", f"'{name}'", did_you_mean(name, IMPORTANCE))
    return name


def prune_request(spec: PruneSpec) -> dict[str, Any]:
    """The spec as the keyword arguments of `shrink` and `PruneChannels`."""
    return {
        "sparsity": spec.sparsity,
        "importance": check_importance(spec.importance),
        "round_to": spec.round_to,
        "target_macs": spec.target_macs,
        "target_params": spec.target_params,
        "skip": spec.skip,
        "overrides": spec.overrides,
    }


def prune_at_once(model: Any, spec: PruneSpec) -> Made:
    """Cuts channels without training; the model is not changed.

    Raises:
        TfedgeError: As `prune.shrink`.
    """
    from tfedge.prune import shrink

    done = shrink(model, **prune_request(spec))
    return Made(done.model, tuple(done.report.skipped), done.plan)


def prune(model: Any, spec: PruneSpec, training: Training) -> Made:
    """Prunes during training (in place) and removes the channels; at once with 0 epochs.

    Raises:
        TfedgeError: As `prune.PruneChannels` and `train.fit`.
    """
    from tfedge.prune import SCHEDULES, PruneChannels

    if spec.epochs == 0:
        return prune_at_once(model, spec)
    schedule = SCHEDULES[spec.schedule](**spec.times())
    pruner = PruneChannels(schedule=schedule, **prune_request(spec))
    history = training.fit(model, spec, (pruner,))
    small = pruner.strip()
    return Made(small, tuple(pruner.report.skipped), pruner.plan, history)


def distill(student: Any, teacher: Any, spec: DistillSpec, training: Training) -> Made:
    """Trains the student in place to answer like the teacher and the labels.

    Raises:
        TfedgeError: As `distill.Distiller` and `train.fit`.
    """
    from tfedge.distill import Distiller

    distiller = Distiller(student, teacher, temperature=spec.temperature, alpha=spec.alpha)
    return Made(student, history=training.fit(distiller, spec))


def quantize(model: Any, spec: QatSpec, training: Training, teacher: Any = None) -> Made:
    """Makes a quantize-aware copy with calibrated ranges and trains it.

    Args:
        model: A float model; it is not changed.
        spec: The stage.
        training: Task and seed; calibration takes samples of the training part.
        teacher: A model to distill from, where `spec.distill` is true.

    Raises:
        TfedgeError: As `quant.quantize_aware`, `distill.Distiller` and `train.fit`.
    """
    from tfedge import quant

    samples = training.task.for_model(model).calibration(spec.calibration)
    made = quant.quantize_aware(model, spec.scheme, calibration=samples)
    notes = tuple(quant.report(made).notes)
    history: dict[str, list[float]] = {}
    if spec.epochs:
        learner = _with_teacher(made, teacher, spec) if spec.distill else made
        history = training.fit(learner, spec)
    return Made(made, notes, history=history)


def _with_teacher(student: Any, teacher: Any, spec: QatSpec) -> Any:
    from tfedge.distill import Distiller

    if teacher is None:
        raise InputError("distillation in the qat stage needs a teacher")
    return Distiller(student, teacher, temperature=spec.temperature, alpha=spec.alpha)

"""The stages that make models: a spec and a model in, a smaller or better model out.

The command line and the pipeline both call these; nothing here knows about work directories.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
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
    """Returns the name where it is one of `prune.IMPORTANCE` or `prune.MEASURED`.

    Raises:
        InputError: It is not; the message suggests the nearest.
    """
    from tfedge.prune import IMPORTANCE, MEASURED

    known = [*IMPORTANCE, *MEASURED]
    if name not in known:
        raise InputError("unknown importance", f"'{name}'", did_you_mean(name, known))
    return name


def needs_data(spec: PruneSpec) -> bool:
    """True where the stage looks at data even without training."""
    from tfedge.prune import MEASURED

    return spec.importance in MEASURED or (isinstance(spec.blocks, int) and spec.blocks > 0)


def without_data(spec: PruneSpec) -> PruneSpec:
    """The stage as far as it can be carried out without looking at data: for a rehearsal."""
    if not needs_data(spec):
        return spec
    blocks = () if isinstance(spec.blocks, int) else spec.blocks
    return dataclasses.replace(spec, importance="l2", blocks=blocks, epochs=0, group_lasso=0.0)


def prune_request(spec: PruneSpec, model: Any = None, task: Task | None = None) -> dict[str, Any]:
    """The spec as the keyword arguments of `shrink` and `PruneChannels`, without `blocks`.

    Args:
        spec: The stage.
        model: The model, where the importance is measured.
        task: Its data and loss, likewise.
    """
    keys = ("sparsity", "target_macs", "target_params", "target_bytes", "scope", "floor")
    out = {k: getattr(spec, k) for k in (*keys, "round_to", "skip", "overrides")}
    return {**out, "importance": _importance(spec, model, task)}


def _importance(spec: PruneSpec, model: Any, task: Task | None) -> Any:
    from tfedge import prune as pruning

    name = check_importance(spec.importance)
    if name not in pruning.MEASURED or task is None:
        return name
    bound = task.for_model(model)
    batches = bound.train_batches(16)
    if name == "taylor":
        return pruning.Taylor(batches, bound.loss)
    return pruning.Activation(batches)


def _blocks(model: Any, spec: PruneSpec, task: Task | None) -> list[str]:
    """Names of the residual blocks that go."""
    from tfedge.prune import choose_blocks

    data = None if task is None else task.for_model(model).train_batches(16)
    return choose_blocks(model, spec.blocks, data)


def shrink_request(spec: PruneSpec, model: Any, task: Task | None = None) -> dict[str, Any]:
    """The spec as the keyword arguments of `prune.shrink`.

    Args:
        spec: The stage.
        model: The model that is to be cut.
        task: Data, where the spec `needs_data`.
    """
    return {**prune_request(spec, model, task), "blocks": _blocks(model, spec, task)}


def prune_at_once(model: Any, spec: PruneSpec, task: Task | None = None) -> Made:
    """Cuts channels without training; the model is not changed.

    Args:
        model: The model.
        spec: The stage.
        task: Data, where the spec `needs_data`.

    Raises:
        TfedgeError: As `prune.shrink`.
    """
    from tfedge.prune import shrink

    done = shrink(model, **shrink_request(spec, model, task))
    return Made(done.model, tuple(done.report.skipped), done.plan)


def prune(model: Any, spec: PruneSpec, training: Training) -> Made:
    """Prunes during training (in place) and removes the channels; at once with 0 epochs.

    Raises:
        TfedgeError: As `prune.PruneChannels` and `train.fit`.
    """
    from tfedge.prune import SCHEDULES, PruneChannels, remove_blocks

    if spec.epochs == 0:
        return prune_at_once(model, spec, training.task)
    blocks = _blocks(model, spec, training.task)
    short = remove_blocks(model, blocks) if blocks else model
    steps = {} if spec.steps is None else {"steps": spec.steps}
    pruner = PruneChannels(
        schedule=SCHEDULES[spec.schedule](**spec.times(), **steps),
        group_lasso=spec.group_lasso,
        whole=model if blocks else None,
        **prune_request(spec, short, training.task),
    )
    history = training.fit(short, spec, (pruner,))
    small = pruner.strip()
    return Made(small, tuple(pruner.report.skipped), pruner.plan, history)


def distill(
    student: Any,
    teachers: Sequence[Any],
    spec: DistillSpec,
    training: Training,
    plans: Sequence[Any] = (),
) -> Made:
    """Trains the student in place to answer like the teachers and the labels.

    Args:
        student: A tf_keras model.
        teachers: What `Distiller` takes, one for each of `spec.teacher`.
        spec: The stage.
        training: Task, seed, checkpoints.
        plans: The pruning plans that made the student of the teacher, in order; for `features`.

    Raises:
        TfedgeError: As `distill.Distiller`, `distill.TeacherCache` and `train.fit`.
    """
    distiller = make_distiller(student, teachers, spec, plans, training.task)
    return Made(student, history=training.fit(distiller, spec))


def make_distiller(
    student: Any,
    teachers: Sequence[Any],
    spec: DistillSpec,
    plans: Sequence[Any] = (),
    task: Task | None = None,
) -> Any:
    """The Distiller of a stage.

    Args:
        student: See `distill`.
        teachers: See `distill`.
        spec: See `distill`.
        plans: See `distill`.
        task: The data of `spec.cache_teacher`; None (a rehearsal) asks the teachers themselves.
    """
    from tfedge.distill import FEATURES, Distiller, TeacherCache

    features = [
        {**f, "plan": list(plans)} if plans and FEATURES[f["name"]].same_channels else f
        for f in spec.features
    ]
    known = list(teachers)
    if spec.cache_teacher is not None and task is not None:
        root = Path(spec.cache_teacher)
        known = [
            TeacherCache.ensure(
                root / f"teacher_{i}", student, teacher, task, batch_size=spec.batch_size
            )
            for i, teacher in enumerate(known)
        ]
    return Distiller(student, known, spec.temperature, spec.alpha, features, combine=spec.combine)


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
    made = simulated(model, spec, samples)
    notes = tuple(quant.report(made).notes)
    history: dict[str, list[float]] = {}
    if spec.epochs:
        learner = _with_teacher(made, teacher, spec) if spec.distill else made
        history = training.fit(learner, spec, _schedule(spec))
    return Made(made, notes, history=history)


def simulated(model: Any, spec: QatSpec, samples: Any = None) -> Any:
    """The quantize-aware copy of a model that a stage trains.

    What does not get its scheme is in the copy's notes, which the stage reports: no warning.

    Args:
        model: A float model.
        spec: The stage.
        samples: Calibration data; None for a rehearsal.

    Raises:
        TfedgeError: As `quant.quantize_aware`; or the stage's steps do not fit the model.
    """
    from tfedge import quant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", quant.QuantizationWarning)
        made = quant.quantize_aware(
            model,
            spec.scheme,
            samples,
            overrides=spec.overrides,
            strict=spec.strict,
            ranges=spec.ranges if samples is not None else "moving_average",
            preserve=spec.preserve if samples is not None else "",
        )
    for schedule in _schedule(spec):
        schedule.check(made)
    return made


def _schedule(spec: QatSpec) -> tuple[Any, ...]:
    """The callback for the stage's steps, where it gives any."""
    from tfedge.quant import QatSchedule

    steps = (spec.start_step, spec.freeze_ranges_step, spec.freeze_batch_norm_step)
    return (QatSchedule(*steps),) if steps != (0, None, None) else ()


def _with_teacher(student: Any, teacher: Any, spec: QatSpec) -> Any:
    from tfedge.distill import Distiller

    if teacher is None:
        raise InputError("distillation in the qat stage needs a teacher")
    return Distiller(student, teacher, temperature=spec.temperature, alpha=spec.alpha)

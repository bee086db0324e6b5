"""Training: the only caller of `model.fit`. Seeds, compile, progress, checkpoints, resume."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge import checkpoint
from tfedge._keras import keras, tf
from tfedge.errors import InputError, did_you_mean
from tfedge.fit_progress import FitProgress
from tfedge.progress import track
from tfedge.sources import ImageSource
from tfedge.task import Task

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}
DEFAULT_RATES = {"adam": 2e-3, "adamw": 2e-3, "rmsprop": 1e-3, "sgd": 5e-2}
DEFAULT_OPTIMIZER = "adam"


@dataclass(frozen=True)
class TrainSpec:
    """How long and how to train.

    Attributes:
        epochs: Passes over the training part.
        batch_size: Samples per step.
        optimizer: One of `OPTIMIZERS`; "sgd" has Nesterov momentum 0.9. None keeps a compiled
            model's own, else "adam".
        learning_rate: Peak rate. It warms up linearly over `warmup` of all steps and then falls to
            zero along a cosine (Loshchilov & Hutter 2017). None keeps a compiled model's own
            schedule, else takes `DEFAULT_RATES`. A rate or optimizer given here compiles the
            model anew with the task's loss.
        warmup: Share of all steps, 0 <= w < 1.
        weight_decay: Decoupled weight decay per step (times the rate), None for none.
        seed: Of the data's order, the augmentation and the layers' random numbers.
        steps_per_execution: Steps that run in one call of the compiled function.
        validate: Score the held-out part after every epoch, where the task has one.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str | None = None
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float | None = None
    seed: int = 0
    steps_per_execution: int = 1
    validate: bool = True

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InputError: A value out of its range, or an unknown optimizer.
        """
        for name in ("epochs", "batch_size", "steps_per_execution"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1", str(getattr(self, name)))
        if self.optimizer is not None and self.optimizer not in OPTIMIZERS:
            fix = did_you_mean(self.optimizer, OPTIMIZERS)
            raise InputError("unknown optimizer", f"'{self.optimizer}'", fix)
        rate = self.learning_rate
        if rate is not None and not (rate > 0 and math.isfinite(rate)):
            raise InputError("learning_rate must be a positive number", str(rate))
        if not 0 <= self.warmup < 1:
            raise InputError("warmup must lie in [0, 1)", str(self.warmup))
        if self.weight_decay is not None and not self.weight_decay >= 0:
            raise InputError("weight_decay must not be negative", str(self.weight_decay))

    @property
    def compiles(self) -> bool:
        """True where the spec says how to compile, whatever the model's own way is."""
        return not (self.optimizer is None and self.learning_rate is None)


def compile_model(model: Any, task: Task, spec: TrainSpec) -> None:
    """Compiles with the task's loss and metrics and the spec's optimizer and schedule.

    Args:
        model: A tf_keras model or a Distiller.
        task: Bound to the model or not.
        spec: Epochs and batch size set the length of the schedule.

    Raises:
        InputError: The task does not fit the model.
    """
    task = task.for_model(model)
    total = spec.epochs * task.steps(spec.batch_size)
    name = spec.optimizer or DEFAULT_OPTIMIZER
    rate = DEFAULT_RATES[name] if spec.learning_rate is None else spec.learning_rate
    warm = int(total * spec.warmup)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / max(1, warm) if warm else rate,
        max(1, total - warm),
        warmup_target=rate if warm else None,
        warmup_steps=warm,
    )
    extra = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    if spec.weight_decay is not None:
        extra["weight_decay"] = spec.weight_decay
    model.compile(
        optimizer=OPTIMIZERS[name](schedule, **extra),
        loss=task.loss,
        metrics=task.fresh_metrics(),
        steps_per_execution=spec.steps_per_execution,
    )


def fit(
    model: Any,
    task: Task,
    spec: TrainSpec,
    *,
    callbacks: Sequence[Any] = (),
    checkpoint_dir: str | Path | None = None,
) -> dict[str, list[float]]:
    """Trains a model in place.

    With a checkpoint folder, every finished epoch is kept there (weights, optimizer, and the state
    of callbacks with `get_state`/`set_state`); called again with the same arguments, an interrupted
    run goes on after its last finished epoch and ends as if it had never stopped, and a finished
    one returns at once. Honest limit: layers with their own random numbers (Dropout) go on with
    other numbers than an uninterrupted run, and so does a tf.data.Dataset that shuffles itself.

    Args:
        model: A tf_keras model or a Distiller; compiled by `compile_model` unless it is compiled
            already and the spec names no optimizer and no rate.
        task: Gives data, loss and metrics.
        spec: How long and how.
        callbacks: Keras callbacks; seen by `model.fit` as in any Keras program.
        checkpoint_dir: None keeps nothing.

    Returns:
        Lists by metric name ("loss", "accuracy", "val_loss", ...), one value per epoch.

    Raises:
        InputError: The task does not fit the model; the loss became NaN; the checkpoint belongs to
            another run or cannot be written; an image cannot be decoded.
    """
    task = task.for_model(model)
    if spec.compiles or getattr(model, "optimizer", None) is None:
        compile_model(model, task, spec)
    steps = task.steps(spec.batch_size)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    run = _run_of(model, task, spec)
    saved = None if folder is None else checkpoint.read(folder, run)
    keeper = _Keeper(folder, saved, run, list(callbacks))
    keras.utils.set_random_seed((spec.seed + keeper.first) % 2**32)
    progress = FitProgress(spec.epochs, steps, keeper.first)
    hooks = [*callbacks, _StopAtNan(), progress, keeper]
    if keeper.first >= spec.epochs:
        ended = keras.callbacks.CallbackList([*callbacks, keeper], model=model)
        ended.on_train_begin()
        ended.on_train_end()
        return keeper.history
    try:
        _fit(model, task, spec, hooks, keeper.first)
    except tf.errors.InvalidArgumentError as error:
        _explain(task, error)
        raise
    finally:
        progress.close()
    return keeper.history


def _fit(model: Any, task: Task, spec: TrainSpec, hooks: list[Any], first: int) -> None:
    epochs = range(first, spec.epochs)
    validation = None
    if spec.validate and task.validation is not None and task.validation.size:
        validation = task.validation_batches(spec.batch_size)
    model.fit(
        task.train_batches(spec.batch_size, spec.seed, epochs=epochs),
        steps_per_epoch=task.steps(spec.batch_size),
        initial_epoch=first,
        epochs=spec.epochs,
        validation_data=validation,
        callbacks=hooks,
        verbose=0,
    )


def _run_of(model: Any, task: Task, spec: TrainSpec) -> dict[str, Any]:
    """What makes two runs the same run."""
    return {
        **dataclasses.asdict(spec),
        "task": task.name,
        "samples": task.train.size,
        "model": [list(v.shape) for v in model.trainable_variables],
        "optimizer_class": type(model.optimizer).__name__,
    }


def _explain(task: Task, error: Exception) -> None:
    """Raises a clear error where an image that does not decode stopped the run."""
    for source in (task.train, task.validation, task.test):
        if isinstance(source, ImageSource):
            bad = source.first_unreadable()
            if bad is not None:
                raise InputError("this image cannot be read", f"'{bad}'", "Remove it") from error


class _StopAtNan(keras.callbacks.Callback):
    """Stops with a clear error as soon as the loss is no number."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise InputError(
                "the loss became NaN or infinite",
                f"epoch {self.epoch + 1}, step {batch + 1}",
                "Lower learning_rate, or look for NaN in the data",
            )


class _Keeper(keras.callbacks.Callback):
    """Restores the last checkpoint when training begins, writes one after every epoch.

    It stands last in the list, so that the other callbacks have set up the model when it restores,
    and have seen the end of the epoch when it writes.
    """

    def __init__(
        self,
        folder: Path | None,
        saved: checkpoint.Saved | None,
        run: dict[str, Any],
        others: list[Any],
    ) -> None:
        super().__init__()
        self.folder, self.run, self.others = folder, run, others
        self.resumes = saved is not None
        self.first = 0 if saved is None else saved.epoch
        self.history: dict[str, list[float]] = {} if saved is None else saved.history

    def on_train_begin(self, logs: Any = None) -> None:
        if self.folder is not None and self.resumes:
            checkpoint.restore(self.folder, self.model, self.others)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if self.folder is not None:
            saved = checkpoint.Saved(epoch + 1, self.history, self.run)
            checkpoint.write(self.folder, self.model, self.others, saved)


def evaluate(
    model: Any, task: Task, *, batch_size: int = 256, part: str = "test"
) -> dict[str, float]:
    """Scores a model by the task's score, without compiling it.

    The outputs of the whole part are held in memory, its inputs are not.

    Args:
        model: A tf_keras model, or a Distiller, whose student is scored.
        task: Bound to the model or not.
        batch_size: Samples per step.
        part: "test", or "validation" to choose by.

    Returns:
        For example {"accuracy": 0.92}.

    Raises:
        InputError: Unknown part, or the task does not fit the model.
    """
    if part not in ("test", "validation"):
        raise InputError("unknown part", f"'{part}'", did_you_mean(part, ("test", "validation")))
    task = task.for_model(model)
    student = getattr(model, "student", model)
    is_test = part == "test"
    batches = (task.test_batches if is_test else task.validation_batches)(batch_size)

    @tf.function(reduce_retracing=True)
    def forward(x: Any) -> Any:
        return student(x, training=False)

    labels: list[Any] = []
    outputs: list[Any] = []
    total = int(batches.cardinality())
    for x, y, *_ in track(batches, f"scoring ({part})", total if total > 0 else None):
        outputs.append(tf.nest.map_structure(_numpy, forward(x)))
        labels.append(tf.nest.map_structure(_numpy, y))
    if not labels:
        raise InputError(f"the task's {part} part is empty", task.name)
    return task.score(_concatenated(labels), _concatenated(outputs))


def _numpy(tensor: Any) -> np.ndarray:
    array = tensor.numpy()
    return array.astype(np.float32) if array.dtype.kind in "fV" else array


def _concatenated(parts: list[Any]) -> Any:
    return tf.nest.map_structure(lambda *a: np.concatenate(a), *parts)

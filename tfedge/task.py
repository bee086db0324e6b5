"""Task: what a model is for. Its data, its loss, its score; the same object for every stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge import scoring
from tfedge._keras import keras, tf
from tfedge.errors import InputError, did_you_mean
from tfedge.heads import Head, heads
from tfedge.sources import Source, model_inputs
from tfedge.streams import as_source

_LARGE = 1_000_003


@dataclass(frozen=True, eq=False)
class Task:
    """Data, loss and score of a model.

    `train`, `test` and `validation` are each a pair (x, y) of arrays (x also a dict by input name;
    y also a dict by output name or a tuple, for several outputs), a finite tf.data.Dataset of
    (x, y), or a `Source`. What the labels mean and which loss follows is read from the labels and
    the model's outputs by `for_model`; give `kind` or `loss` to say otherwise.

    The test part is never trained on and never chosen by: without `validation`, a part of `train`
    is held out, at random by `seed` (tf.data: by a hash of the samples).

    Attributes:
        train: Samples to train on; None for a task that only measures.
        test: Samples to report on.
        validation: Samples to choose by; None holds out `validation_split` of `train`.
        name: Shown in tables.
        kind: "auto", or one of `scoring.KINDS`, or a tuple of them, one per output.
        loss: A Keras loss; None follows from the kind.
        metrics: Keras metric names, or functions that make metrics; empty follows from the kind.
        score_fn: (labels, outputs) -> {"name": value}; None follows from the kind. It takes the
            numpy labels and outputs of the whole test part, structured as the data's labels and
            as the model's outputs (a dict by output name where there are several).
        labels: Names of the classes, in order.
        preprocessing: Constants that made the inputs from raw data, for example {"scale": 1/255,
            "offset": 0.0}; recorded in files. It describes the data and is not applied to it.
        augment: (x, seed int [2]) -> x on training batches, in TensorFlow; x is a tensor, or a dict
            by name for several inputs. Draw with tf.random.stateless_*, so that runs repeat.
        build: Makes the task's reference model, untrained.
        validation_split: Part of `train` that is held out, 0 < v < 1; 0 means none.
        seed: Of the held-out part and of the calibration samples.
        heads: Outputs of the model, set by `for_model`.
    """

    train: Any
    test: Any
    validation: Any = None
    name: str = "task"
    kind: str | tuple[str, ...] = "auto"
    loss: Any = None
    metrics: tuple[Any, ...] = ()
    score_fn: Callable[[Any, Any], Mapping[str, float]] | None = None
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, float] = field(default_factory=dict)
    augment: Callable[[Any, Any], Any] | None = None
    build: Callable[[], Any] | None = None
    validation_split: float = 0.1
    seed: int = 0
    heads: tuple[Head, ...] = ()
    # Kind and loss as the user gave them, so that a task can be bound to another model.
    _given: tuple[Any, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Checks the fields and holds out the validation part."""
        kinds = (self.kind,) if isinstance(self.kind, str) else tuple(self.kind)
        for kind in kinds:
            if kind not in (*scoring.KINDS, "auto"):
                fix = did_you_mean(str(kind), scoring.KINDS)
                raise InputError("unknown kind of labels", f"'{kind}'", fix)
        if not 0 <= self.validation_split < 1:
            raise InputError("validation_split must lie in [0, 1)", str(self.validation_split))
        for name in ("train", "test", "validation"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_source(getattr(self, name)))
        object.__setattr__(self, "labels", tuple(map(str, self.labels)))

    def for_model(self, model: Any) -> Task:
        """Returns this task bound to a model: inputs checked and named, loss and score settled.

        Args:
            model: A built tf_keras model (or a Distiller, whose student counts).

        Raises:
            InputError: The data does not fit the model's inputs or outputs.
            ModelError: The model's outputs are not known.
        """
        if self.train is None:
            raise InputError("the task holds no training samples", self.name, "Give `train`")
        specs, outputs = model_inputs(model), heads(model)
        train, test = self.train.bind(specs), self.test.bind(specs)
        validation = None if self.validation is None else self.validation.bind(specs)
        if validation is None and self.validation_split:
            train, validation = train.split(self.validation_split, self.seed)
        given = self._given or (self.kind, self.loss)
        kinds = self._kinds(given, outputs, train)
        loss = given[1] if given[1] is not None else _loss(outputs, kinds)
        return dataclasses.replace(
            self,
            train=train,
            test=test,
            validation=validation,
            kind=kinds,
            loss=loss,
            heads=outputs,
            _given=given,
            # Held out now; a second binding must not hold out again.
            validation_split=0.0,
        )

    def _kinds(
        self, given: tuple[Any, Any], outputs: tuple[Head, ...], train: Source
    ) -> tuple[str, ...]:
        """The kind of each output: as given, else read from the labels."""
        kind, loss = given
        kinds = (kind,) * len(outputs) if isinstance(kind, str) else tuple(kind)
        if len(kinds) != len(outputs):
            raise InputError(f"the model has {len(outputs)} outputs", f"{len(kinds)} kinds")
        if "auto" not in kinds or (loss is not None and self.score_fn is not None):
            return kinds
        y = scoring.by_output(train.sample_labels(), [h.name for h in outputs], "labels")
        return tuple(
            scoring.resolve_kind(y[h.name], h.shape, h.activation) if k == "auto" else k
            for k, h in zip(kinds, outputs, strict=True)
        )

    def fresh_metrics(self) -> Any:
        """New metrics for `model.compile` (metric objects hold state and serve one model each)."""
        if self.metrics:
            return [m if isinstance(m, str) else m() for m in self.metrics]
        made = [[m] if (m := _metric(h, k)) else [] for h, k in self._outputs()]
        return (
            made[0]
            if len(made) == 1
            else {h.name: m for h, m in zip(self.heads, made, strict=True)}
        )

    def _outputs(self) -> list[tuple[Head, str]]:
        if not self.heads:
            raise InputError("the task is not bound to a model", self.name, "Call for_model(model)")
        return list(zip(self.heads, self.kind, strict=True))

    def steps(self, batch_size: int) -> int:
        """Training batches in an epoch."""
        return -(-self.train.size // batch_size)

    def train_batches(
        self, batch_size: int = 128, seed: int = 0, *, epochs: range | None = None
    ) -> Any:
        """Shuffled and augmented training batches.

        Args:
            batch_size: Samples per batch; the last of an epoch may be smaller.
            seed: Of the order and the augmentation, which also change from epoch to epoch.
            epochs: None gives one epoch per iteration, a new order each time, the same sequence of
                orders in every run (with the same `tf.random.set_seed`). A range gives these epochs
                one after the other, each a function of (seed, epoch) alone, so that a resumed run
                sees what the interrupted one would.

        Returns:
            A tf.data.Dataset of (x, y) for `model.fit`.
        """
        tf_seed = int(seed) * _LARGE

        def epoch(number: Any) -> Any:
            return self._epoch(batch_size, tf.cast(number, tf.int64) + tf_seed)

        if epochs is None:
            numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
            count = self.steps(batch_size)
        else:
            numbers = tf.data.Dataset.range(epochs.start, epochs.stop, epochs.step)
            count = self.steps(batch_size) * len(epochs)
        batches = numbers.flat_map(epoch).apply(tf.data.experimental.assert_cardinality(count))
        return batches.prefetch(2)

    def _epoch(self, batch_size: int, key: Any) -> Any:
        batches = self.train.epoch(batch_size, key)
        augment = self.augment
        if augment is None:
            return batches

        def apply(index: Any, batch: tuple) -> tuple:
            x, *rest = batch
            return (augment(x, tf.stack([key, index])), *rest)

        return batches.enumerate().map(apply, num_parallel_calls=tf.data.AUTOTUNE)

    def validation_batches(self, batch_size: int = 256) -> Any:
        """Held-out batches of the training part, in order, without augmentation.

        Raises:
            InputError: `validation_split` is 0 and no validation data was given, or the task is
                not bound yet.
        """
        if self.validation is None:
            fix = "Call for_model(model)" if self.validation_split else "Give `validation`"
            raise InputError("the task holds no validation part", self.name, fix)
        return self.validation.epoch(batch_size).prefetch(2)

    def test_batches(self, batch_size: int = 256) -> Any:
        """Test batches, in order."""
        return self.test.epoch(batch_size).prefetch(2)

    def calibration(self, n: int = 256) -> dict[str, np.ndarray]:
        """Returns up to `n` training inputs by input name, not augmented, drawn by the seed."""
        if n < 1:
            raise InputError("calibration needs at least one sample", str(n))
        return self.train.arrays(n, key=self.seed)[0]

    def test_arrays(self, limit: int | None = None) -> tuple[dict[str, np.ndarray], Any]:
        """Reads the test part (or its first `limit` samples): (inputs by name, labels)."""
        return self.test.arrays(limit)

    def score(self, y: Any, outputs: Any) -> dict[str, float]:
        """Scores outputs in real values, of a Keras model or of a file.

        Args:
            y: Labels, structured as the data's.
            outputs: An array, or for several outputs a dict by output name or a list in order.

        Returns:
            What `score_fn` returns; else {"accuracy": ...} or {"mse": ..., "mae": ...}. With
            several outputs the keys are "<output>_accuracy" and so on.

        Raises:
            InputError: Labels and outputs differ in number, or an output is missing.
        """
        if self.score_fn is not None:
            return {k: float(v) for k, v in self.score_fn(y, outputs).items()}
        parts = self._outputs()
        names = [h.name for h, _ in parts]
        truth = scoring.by_output(y, names, "labels")
        guess = scoring.by_output(outputs, names, "outputs")
        scores: dict[str, float] = {}
        for head, kind in parts:
            prefix = f"{head.name}_" if len(parts) > 1 else ""
            one = scoring.score_output(truth[head.name], guess[head.name], kind, head.activation)
            scores.update({prefix + k: v for k, v in one.items()})
        return scores

    def compare(self, y: Any, outputs: Any, others: Any) -> dict[str, scoring.Paired]:
        """Compares the predictions behind two results of `score` on the same samples.

        Args:
            y: Labels, structured as the data's.
            outputs: As for `score`.
            others: The other ones, likewise.

        Returns:
            By the names of `score`, for each accuracy; nothing for regression and for tasks with a
            `score_fn`, whose predictions are not known.
        """
        if self.score_fn is not None:
            return {}
        parts = self._outputs()
        names = [h.name for h, _ in parts]
        truth = scoring.by_output(y, names, "labels")
        two = [scoring.by_output(o, names, "outputs") for o in (outputs, others)]
        return {
            f"{h.name}_accuracy" if len(parts) > 1 else "accuracy": scoring.compare_outputs(
                truth[h.name], [o[h.name] for o in two], kind, h.activation
            )
            for h, kind in parts
            if kind != "regression"
        }


def _loss(outputs: tuple[Head, ...], kinds: tuple[str, ...]) -> Any:
    made = {h.name: _loss_of(h, k) for h, k in zip(outputs, kinds, strict=True)}
    return made if len(made) > 1 else next(iter(made.values()))


def _loss_of(head: Head, kind: str) -> Any:
    logits = scoring.is_logit(kind, head.activation)
    makers: dict[str, Callable[[], Any]] = {
        "sparse": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
        "onehot": lambda: keras.losses.CategoricalCrossentropy(from_logits=logits),
        "binary": lambda: keras.losses.BinaryCrossentropy(from_logits=logits),
        "regression": keras.losses.MeanSquaredError,
    }
    return makers[kind]()


def _metric(head: Head, kind: str) -> Any:
    """A new metric for one output; None where the kind is not known (own loss and score)."""
    threshold = 0.0 if scoring.is_logit(kind, head.activation) else 0.5
    makers: dict[str, Callable[[], Any]] = {
        "sparse": lambda: keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        "onehot": lambda: keras.metrics.CategoricalAccuracy(name="accuracy"),
        "binary": lambda: keras.metrics.BinaryAccuracy(name="accuracy", threshold=threshold),
        "regression": lambda: keras.metrics.MeanAbsoluteError(name="mae"),
    }
    return makers[kind]() if kind in makers else None


def get_task(spec: Any, *, model: Any = None) -> Task:
    """Finds or makes a task.

    Args:
        spec: A Task; "fashion_mnist"; "module:function" or "file.py:function" (the working
            directory is importable), whose function returns a Task, a dict of its fields, or a
            pair or triple (train, test[, validation]) of arrays (x, y) or tf.data, and may take the
            model as its argument `model`; an .npz with x_train, y_train, x_test and y_test (or
            x and y, of which 20 % are held out as the test part; with several inputs their names,
            with _train and _test where split); or a folder of images, ROOT/{train,test[,val]}/CLASS
            or ROOT/CLASS (20 % held out), classes numbered in the order of their names.
        model: The model that the task is for: it gives names and sizes of the inputs and decides
            the loss. Without it, bind later by `Task.for_model`.

    Raises:
        InputError: One line for whatever is wrong with the spec or the data.
    """
    from tfedge import task_readers

    task = task_readers.read(spec, model)
    return task if model is None else task.for_model(model)

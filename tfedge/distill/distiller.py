"""Distiller: an ordinary Keras model whose fit teaches a student from a teacher and from labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tfedge._keras import keras, tf
from tfedge.distill import losses
from tfedge.distill.teacher import Teacher, require_tf_keras
from tfedge.errors import InputError
from tfedge.heads import Head, heads

KINDS = ("softmax", "sigmoid", "regression")
# Keras's losses of regression, by class, function and short name.
_REGRESSION_LOSSES = frozenset(
    "meansquarederror mse meanabsoluteerror mae huber huberloss logcosh poisson cosinesimilarity "
    "meanabsolutepercentageerror mape meansquaredlogarithmicerror msle kldivergence".split()
)


class Distiller(keras.Model):
    """Trains `student` on alpha * soft loss + (1 - alpha) * hard loss.

    The soft loss is, for each output, T^2 * KL(softmax(teacher / T) || softmax(student / T)) for
    classes (Hinton, Vinyals & Dean 2015), its two-class case for sigmoid outputs, and the mean
    squared difference for regression; it is summed over the outputs with `loss_weights`. The hard
    loss is the one given to `compile`. The student's regularisation losses are added in full.

    It is an ordinary tf_keras model: compile, fit, callbacks, steps_per_execution, mixed precision
    and tf.distribute work as usual. Logged are "loss" (what is minimised), "hard_loss", "soft_loss"
    and the compiled metrics of the student's outputs. `evaluate` and `predict` give the student's
    results: there "loss" is the hard loss plus regularisation, as the student alone would have it
    (without a compiled loss, the soft loss). Only the student's variables train and count as this
    model's weights; the teacher runs in inference mode and is never changed.

    Attributes:
        student: The model that learns; `save` writes it alone.
        temperature: T.
        alpha: Weight of the soft loss.
        kinds: The soft loss of each output, set by `compile`.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        *,
        temperature: float = 2.0,
        alpha: float = 0.7,
        kind: str | Mapping[str, str] = "auto",
        teacher_activation: str = "auto",
    ) -> None:
        """Checks that the two models fit together; nothing is run but a teacher without a graph.

        Args:
            student: A tf_keras functional or sequential model (one being pruned or quantized too).
            teacher: A model with the same inputs and outputs, or a function of tensors.
            temperature: T > 0; regression outputs do not use it.
            alpha: 0 (labels only) to 1 (teacher only: no labels and no loss needed).
            kind: "auto", or one of `KINDS` for all outputs or by output name. "auto" follows the
                compiled loss where it is one of Keras's (categorical cross-entropy: softmax;
                binary: sigmoid; mean squared error and its like: regression), and else the
                student's last activation (a linear output of several units counts as logits of
                classes, of one unit as regression).
            teacher_activation: "auto", or the teacher's last activation ("softmax", "sigmoid",
                "linear") where it has no Keras graph to read it from.

        Raises:
            InputError: A bad temperature, alpha or kind, or models that do not fit together.
            ModelError: The student is no tf_keras model, or its outputs are not known.
        """
        require_tf_keras(student)
        _check_numbers(temperature, alpha)
        # The inputs go to the student as they are; it casts them itself.
        super().__init__(name="distiller", dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.temperature, self.alpha = float(temperature), float(alpha)
        self._teacher_model = _Untracked(Teacher(teacher, student, teacher_activation))
        self._heads = _Untracked(heads(student))
        self._kind = _Untracked(_by_name(kind, heads(student)))
        self.kinds: Any = None
        # Losses and metrics given by output name are matched with these.
        self.output_names = list(student.output_names)
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._hard_mean = keras.metrics.Mean(name="hard_loss")
        self._soft_mean = keras.metrics.Mean(name="soft_loss")
        self._has_loss = False

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.compile`; the loss is the hard loss.

        Args:
            *args: Optimizer, loss, metrics, loss_weights, in Keras's order.
            **kwargs: The same by name, and Keras's other options.

        Raises:
            InputError: No loss although alpha is below 1, or `jit_compile`-style options that Keras
                itself refuses.
        """
        named = dict(zip(("optimizer", "loss", "metrics", "loss_weights"), args, strict=False))
        loss = {**named, **kwargs}.get("loss")
        if loss is None and self.alpha < 1:
            raise InputError(
                f"alpha {self.alpha:g} needs a loss on labels",
                "compile() without a loss",
                "Give loss=..., or alpha=1 to learn from the teacher alone",
            )
        self._has_loss = loss is not None
        self._soft_weights = _Untracked(
            _weights({**named, **kwargs}.get("loss_weights"), self._heads.value)
        )
        parts = _losses(loss, self._heads.value)
        given = self._kind.value
        self.kinds = tuple(
            given[h.name] if given[h.name] != "auto" else _kind_of(h, part)
            for h, part in zip(self._heads.value, parts, strict=True)
        )
        super().compile(*args, **kwargs)

    @property
    def metrics(self) -> list[Any]:
        """What fit logs and resets."""
        own = self.compiled_metrics.metrics if self._is_compiled else []
        return [self._loss_mean, self._hard_mean, self._soft_mean, *own]

    def reset_metrics(self) -> None:
        """Resets what fit logs, and the hard loss's own means, which are not shown."""
        super().reset_metrics()
        if self._is_compiled and self._has_loss:
            self.compiled_loss.reset_state()

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Args:
            x: Inputs, or a dataset of (x, y).
            y: Labels.
            *args: As `keras.Model.fit`, in its order.
            **kwargs: As `keras.Model.fit`.

        Raises:
            InputError: No labels although alpha is below 1.
        """
        spec = getattr(x, "element_spec", None)
        held = isinstance(x, Mapping) or hasattr(x, "__array__")
        unlabelled = held and y is None or spec is not None and not _has_labels(spec)
        if unlabelled and self.alpha < 1:
            raise InputError("the data holds no labels", f"alpha {self.alpha:g}", "Use alpha=1")
        return super().fit(x, y, *args, **kwargs)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """The student's outputs.

        Args:
            inputs: As the student takes them.
            training: Keras's training flag.
        """
        return self.student(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step: the student's variables follow the gradient of the combined loss.

        Args:
            data: (x,), (x, y) or (x, y, sample_weight).
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None and self.alpha < 1:
            raise InputError("the data holds no labels", f"alpha {self.alpha:g}", "Use alpha=1")
        taught = self._teacher_model.value(x)
        with tf.GradientTape() as tape:
            outputs = self.student(x, training=True)
            soft = self._soft_loss(taught, outputs, weight)
            hard = self._hard_loss(y, outputs, weight)
            total = self.alpha * soft + (1 - self.alpha) * hard + self._regularisation()
            # Keras divides its own losses by the replicas; the sum of all is the mean over all.
            scaled = total / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.minimize(scaled, self.student.trainable_variables, tape=tape)
        size = tf.shape(tf.nest.flatten(outputs)[0])[0]
        self._loss_mean.update_state(total, sample_weight=size)
        self._soft_mean.update_state(soft, sample_weight=size)
        means = [self._loss_mean, self._soft_mean]
        if self._has_loss and y is not None:
            self._hard_mean.update_state(hard, sample_weight=size)
            means.insert(1, self._hard_mean)
        return self._results(means, y, outputs, weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Scores the student.

        Args:
            data: (x,), (x, y) or (x, y, sample_weight).
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self.student(x, training=False)
        if self._has_loss and y is not None:
            loss = self._hard_loss(y, outputs, weight)
        else:
            loss = self._soft_loss(self._teacher_model.value(x), outputs, weight)
        size = tf.shape(tf.nest.flatten(outputs)[0])[0]
        self._loss_mean.update_state(loss + self._regularisation(), sample_weight=size)
        return self._results([self._loss_mean], y, outputs, weight)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the student alone, as `student.save` does (so ModelCheckpoint keeps students).

        Args:
            filepath: Where to.
            *args: As `keras.Model.save`.
            **kwargs: As `keras.Model.save`.
        """
        self.student.save(filepath, *args, **kwargs)

    def _results(self, means: list[Any], y: Any, outputs: Any, weight: Any) -> dict[str, Any]:
        results = {m.name: m.result() for m in means}
        if y is not None:
            self.compiled_metrics.update_state(y, outputs, weight)
            for metric in self.compiled_metrics.metrics:
                result = metric.result()
                results.update(result if isinstance(result, dict) else {metric.name: result})
        return results

    def _hard_loss(self, y: Any, outputs: Any, weight: Any) -> Any:
        if not self._has_loss or y is None:
            return tf.constant(0.0)
        return tf.cast(self.compiled_loss(y, outputs, weight), tf.float32)

    def _regularisation(self) -> Any:
        extra = self.student.losses
        return tf.add_n([tf.cast(e, tf.float32) for e in extra]) if extra else tf.constant(0.0)

    def _soft_loss(self, taught: list[Any], outputs: Any, weight: Any) -> Any:
        """The soft loss of all outputs, averaged over the batch, weighted by sample."""
        learned = (
            tf.nest.flatten(outputs)
            if not isinstance(outputs, Mapping)
            else [outputs[h.name] for h in self._heads.value]
        )
        total = tf.constant(0.0)
        teachers = self._teacher_model.value.heads
        for i, (head, kind) in enumerate(zip(self._heads.value, self.kinds, strict=True)):
            acts = (teachers[i].activation, head.activation)
            values = _soft(kind, (taught[i], learned[i]), acts, self.temperature)
            sample = _sample_weight(weight, head.name, i)
            if sample is not None:
                values *= tf.cast(tf.reshape(sample, [-1]), tf.float32)
            total += self._soft_weights.value[i] * tf.reduce_mean(values)
        return total


def _has_labels(spec: Any) -> bool:
    return isinstance(spec, tuple) and len(spec) > 1


class _Untracked:
    """Holds a value that Keras must not track, copy or wrap."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _soft(
    kind: str, pair: tuple[Any, Any], activations: tuple[str, str], temperature: float
) -> Any:
    teacher, student = pair
    if kind == "regression":
        return losses.squared_error(teacher, student)
    teacher = losses.to_logits(teacher, activations[0])
    student = losses.to_logits(student, activations[1])
    function: Callable[..., Any] = (
        losses.softened_kl if kind == "softmax" else losses.softened_binary_kl
    )
    return function(teacher, student, temperature)


def _check_numbers(temperature: float, alpha: float) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(
            "temperature must be a positive number", str(temperature), "Usual: 1 to 10"
        )
    if not 0 <= alpha <= 1:
        raise InputError("alpha must lie between 0 and 1", str(alpha), "1 is the teacher alone")


def _by_name(kind: str | Mapping[str, str], outputs: tuple[Head, ...]) -> dict[str, str]:
    names = [h.name for h in outputs]
    by_name = dict.fromkeys(names, kind) if isinstance(kind, str) else dict(kind)
    for name, value in by_name.items():
        if name not in names:
            raise InputError("kind names an unknown output", f"'{name}'", f"Outputs: {names}")
        if value not in (*KINDS, "auto"):
            fix = f"Choose one of: auto, {', '.join(KINDS)}"
            raise InputError("unknown kind of output", f"'{value}'", fix)
    return {n: by_name.get(n, "auto") for n in names}


def _losses(loss: Any, outputs: tuple[Head, ...]) -> list[Any]:
    """The compiled loss of each output; None where there is none."""
    if isinstance(loss, Mapping):
        return [loss.get(h.name) for h in outputs]
    if isinstance(loss, (list, tuple)):
        return [*loss, *[None] * len(outputs)][: len(outputs)]
    return [loss] * len(outputs)


def _kind_of(head: Head, loss: Any) -> str:
    """The kind of an output by its loss, else by its activation."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    name = "" if loss is None else name.replace("_", "").lower()
    if "categorical" in name:
        return "softmax"
    if "binary" in name:
        return "sigmoid"
    if head.activation in ("softmax", "sigmoid"):
        return head.activation
    if name in _REGRESSION_LOSSES or head.units == 1:
        return "regression"
    return "softmax"


def _weights(given: Any, outputs: tuple[Head, ...]) -> list[float]:
    if given is None:
        return [1.0] * len(outputs)
    if isinstance(given, Mapping):
        return [float(given.get(h.name, 1.0)) for h in outputs]
    parts = list(given) if isinstance(given, (list, tuple)) else [given]
    return [float(p) for p in parts]


def _sample_weight(weight: Any, name: str, index: int) -> Any:
    if isinstance(weight, Mapping):
        return weight.get(name)
    return weight[index] if isinstance(weight, (list, tuple)) else weight

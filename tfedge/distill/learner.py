"""What the distillers of both Kerases share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tfedge._keras import keras, tf
from tfedge.distill.core import Clock, Core, Parts
from tfedge.distill.temperature import ConstantTemperature
from tfedge.errors import InputError


class Untracked:
    """Holds a value that Keras must not track, copy or wrap."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Learner:
    """Mixin of a Keras model that trains `student`; see `tfedge.distill.Distiller`.

    A subclass calls `_take` in its constructor, and gives its own `train_step` and `test_step`.
    """

    def _take(self, core: Core, alpha: float, library: Any) -> None:
        """Takes up what it is made of, inside the constructor.

        Args:
            core: The losses.
            alpha: Weight of the soft loss.
            library: The Keras of the student.
        """
        self.student = core.student
        # Trains with the student, and is no part of it.
        self.extra_layers = list(core.extras)
        self.alpha = float(alpha)
        self._core = Untracked(core)
        # Losses and metrics given by output name are matched with these.
        self.output_names = [h.name for h in core.heads]
        names = ("loss", "hard_loss", "soft_loss", "feature_loss", "temperature")
        self._means = Untracked({n: library.metrics.Mean(name=n) for n in names})
        self._has_loss = False

    @property
    def core(self) -> Core:
        """Teachers and losses."""
        return self._core.value

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each output's soft loss, set by `compile`."""
        return self.core.kinds

    @property
    def temperature(self) -> Any:
        """T where it is a number, else the `Temperature`."""
        given = self.core.temperature
        return float(given.value) if isinstance(given, ConstantTemperature) else given

    def call(self, inputs: Any, training: Any = None) -> Any:
        """The student's outputs.

        Args:
            inputs: As the student takes them.
            training: Keras's training flag.
        """
        return self.student(inputs, training=training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.compile`; the loss is the hard loss.

        Args:
            *args: In the order of the student's Keras.
            **kwargs: Likewise, by name.

        Raises:
            InputError: No loss although alpha is below 1; a loss that disagrees with the student
                about logits; XLA with a teacher that it cannot compile.
        """
        given = inspect.signature(super().compile).bind(*args, **kwargs).arguments  # type: ignore[misc]
        options = {**given, **given.get("kwargs", {})}
        loss = options.get("loss")
        if loss is None and self.alpha < 1:
            raise InputError(
                f"alpha {self.alpha:g} needs a loss on labels",
                "compile() without a loss",
                "Give loss=..., or alpha=1 to learn from the teacher alone",
            )
        if options.get("jit_compile") is True and not self.core.in_graph:
            raise InputError(
                "XLA cannot compile this teacher", "jit_compile=True with a file, cache or function"
            )
        self.core.prepare(loss, options.get("loss_weights"))
        self._has_loss = loss is not None
        super().compile(*args, **kwargs)  # type: ignore[misc]

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Args:
            x: Inputs, or a dataset of (x, y).
            y: Labels.
            *args: As `keras.Model.fit`, in its order.
            **kwargs: As `keras.Model.fit`.

        Raises:
            InputError: No labels although alpha is below 1; a data set of unknown length with a
                temperature that follows a schedule; samples that a teacher cache does not hold.
        """
        spec = getattr(x, "element_spec", None)
        held = isinstance(x, Mapping) or hasattr(x, "__array__")
        if held and y is None or spec is not None and not _has_labels(spec):
            self._need_no_labels()
            self.core.check_confidence(labelled=False)
        bound = inspect.signature(super().fit).bind(x, y, *args, **kwargs)  # type: ignore[misc]
        if self.core.clock is not None:
            _add_callback(bound.arguments, _Hand(self.core.clock))
        try:
            return super().fit(*bound.args, **bound.kwargs)  # type: ignore[misc]
        except tf.errors.OpError as error:
            for teacher in self.core.teachers:
                if (failure := teacher.failure()) is not None:
                    raise failure from error
            raise

    def _need_no_labels(self) -> None:
        if self.alpha < 1:
            raise InputError("the data holds no labels", f"alpha {self.alpha:g}", "Use alpha=1")

    def _total(self, parts: Parts, hard: Any, regularisation: Any) -> Any:
        """What is minimised."""
        total = self.alpha * parts.soft + (1 - self.alpha) * hard + regularisation
        return total if parts.feature is None else total + parts.feature

    def _done(self) -> Any:
        """Part of the training that is done."""
        clock = self.core.clock
        return 0.0 if clock is None else clock.done(self.optimizer.iterations)  # type: ignore[attr-defined]

    def _regularisation(self) -> Any:
        extra = self.student.losses
        return tf.add_n([tf.cast(e, tf.float32) for e in extra]) if extra else tf.constant(0.0)

    def _noted(self, outputs: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Takes up values of a batch; returns the means so far.

        Args:
            outputs: The student's outputs, for the size of the batch.
            values: By name; None is left out.
        """
        size = tf.shape(tf.nest.flatten(outputs)[0])[0]
        means = self._means.value
        for name, value in values.items():
            if value is not None:
                means[name].update_state(value, sample_weight=size)
        return {n: means[n].result() for n, v in values.items() if v is not None}

    def _values(self, total: Any, hard: Any, parts: Parts) -> dict[str, Any]:
        """What a training step logs."""
        return {
            "loss": total,
            "hard_loss": hard,
            "soft_loss": parts.soft,
            "feature_loss": parts.feature,
            "temperature": None if self.core.constant else parts.temperature,
        }

    def reset_metrics(self) -> None:
        """Resets what fit logs."""
        super().reset_metrics()  # type: ignore[misc]
        for mean in self._means.value.values():
            mean.reset_state()

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the student alone, as `student.save` does (so ModelCheckpoint keeps students).

        Args:
            filepath: Where to.
            *args: As `keras.Model.save`.
            **kwargs: As `keras.Model.save`.
        """
        self.student.save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the student's weights, as `student.save_weights` does.

        Args:
            filepath: Where to.
            *args: As `keras.Model.save_weights`.
            **kwargs: As `keras.Model.save_weights`.
        """
        self.student.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads the student's weights, as `student.load_weights` does.

        Args:
            filepath: What `save_weights` wrote.
            *args: As `keras.Model.load_weights`.
            **kwargs: As `keras.Model.load_weights`.
        """
        return self.student.load_weights(filepath, *args, **kwargs)


def _has_labels(spec: Any) -> bool:
    return isinstance(spec, tuple) and len(spec) > 1


def _add_callback(arguments: dict[str, Any], callback: Any) -> None:
    """Puts a callback first in the arguments of a `fit`."""
    given = arguments.get("callbacks")
    if hasattr(given, "append") and not isinstance(given, list):  # a CallbackList
        given.append(callback)
        return
    items = given if isinstance(given, (list, tuple)) else [given] if given is not None else []
    arguments["callbacks"] = [callback, *items]


class _Hand(keras.callbacks.Callback):
    """Sets the clock of the temperature."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def on_train_begin(self, logs: Any = None) -> None:
        self._steps = self.params.get("steps")
        self._clock.start((self._steps or 0) * self.params.get("epochs", 1))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._clock.epoch(epoch * self._steps, self.model.optimizer.iterations)

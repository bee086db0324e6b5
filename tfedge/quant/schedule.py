"""When quantization begins in a training, and when ranges and batch norm stop moving."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras
from tfedge.errors import InputError, ModelError
from tfedge.quant.configs import layer_quantizers
from tfedge.quant.ends import Phase
from tfedge.quant.ranges import start_limits


class QatSchedule(keras.callbacks.Callback):
    """Delays quantization, freezes ranges and freezes batch norm in the fit of a model.

    ```python
    aware.fit(train, epochs=20, callbacks=[QatSchedule(freeze_batch_norm_step=5000)])
    ```
    Works in `model.fit` and in the fit of a Distiller, for its student. Steps are iterations of the
    optimizer, which a checkpoint keeps: a training that goes on stands where it was. At a step
    given, the training function is traced anew (which takes as long as the first step did); between
    them nothing is computed for the schedule. With `steps_per_execution=k` a change comes up to
    k - 1 steps late. The schedule holds within training steps only: evaluation, validation in `fit`
    and conversion always see the model as it was made, quantized, and so does what follows a `fit`
    that ended or failed.

    Args:
        start_step: Before this step the model trains in float. Ranges that move or are learned
            follow the float activations meanwhile; fixed ones stay as calibrated, so that they suit
            less and less (calibrate later instead). Learned limits of kernels are set anew then.
        freeze_ranges_step: From this step on activation ranges, and learned limits of kernels, stay
            as they are (Keras warns once that they have no gradient). A kernel's range that is not
            learned is its largest magnitude throughout.
        freeze_batch_norm_step: From this step on batch norm uses its moving statistics in
            training, as the file will, and these stay; gamma and beta still train (Jacob et al.
            2018, section 3.2, freeze so late in training; Krishnamoorthi 2018, section 4.2.2).
        A step of None: never.

    Raises:
        InputError: A step that is no whole number of at least 0, or a start after the freezing of
            ranges. At the start of `fit`: batch norm to freeze where there is none.
        ModelError: At the start of `fit`: the model is not quantize-aware, or not tfedge's.
    """

    def __init__(
        self,
        start_step: int = 0,
        freeze_ranges_step: int | None = None,
        freeze_batch_norm_step: int | None = None,
    ) -> None:
        super().__init__()
        self.start_step = _step("start_step", start_step) or 0
        self.freeze_ranges_step = _step("freeze_ranges_step", freeze_ranges_step)
        self.freeze_batch_norm_step = _step("freeze_batch_norm_step", freeze_batch_norm_step)
        if self.freeze_ranges_step is not None and self.freeze_ranges_step < self.start_step:
            raise InputError(
                "ranges cannot be frozen before quantization begins",
                f"start_step={start_step}, freeze_ranges_step={freeze_ranges_step}",
                "Freeze them later",
            )  # fmt: skip
        self._student: Any = None
        self._state: tuple[bool, bool, bool] | None = None
        self._step: Any = None

    def set_model(self, model: Any) -> None:
        """Takes the model, and of a distiller its student."""
        super().set_model(model)
        self._student = getattr(model, "student", model)

    def check(self, model: Any) -> None:
        """Raises where the schedule does not fit a model; `fit` does so before its first step.

        Args:
            model: A quantize-aware tf_keras model; it is not changed.

        Raises:
            ModelError: The model is not quantize-aware, or not tfedge's.
            InputError: Batch norm is to be frozen, and there is none.
        """
        quantizers, norms = _parts(model)
        if not quantizers:
            raise ModelError(
                "QatSchedule is for quantize-aware models", f"'{model.name}'",
                "Make the model so with tfedge.quant.quantize_aware",
            )  # fmt: skip
        if self.freeze_batch_norm_step is not None and not norms:
            raise InputError(
                "there is no batch norm to freeze",
                f"in the quantize-aware form of '{model.name}' (one behind a Dense or Conv1D layer "
                "is folded into it)",
                "Leave freeze_batch_norm_step out",
            )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Takes the state that belongs to the optimizer's iterations."""
        self.check(self._student)
        self._step = self.model.train_step
        _override(self.model, "make_train_function", self._make_for_another_fit)
        self._enter(self._state_at(self._iterations()))

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Changes the state where its step has come."""
        if self._is_last():
            return
        state = self._state_at(self._iterations())
        if state != self._state:
            begins = self._state is not None and state[0] and not self._state[0]
            self._enter(state)
            if begins:
                start_limits(self._student)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the schedule out of the model's training steps."""
        for name in ("train_step", "make_train_function"):
            self.model.__dict__.pop(name, None)
        self.model.train_function = self._state = self._step = None

    def _make_for_another_fit(self, force: bool = False) -> Any:
        """Only a new fit asks for it while the schedule is in: the one before must have failed."""
        self.on_train_end()
        return self.model.make_train_function(force)

    def _iterations(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _state_at(self, step: int) -> tuple[bool, bool, bool]:
        """(quantizing, ranges moving, batch norm frozen) at a step."""
        return (
            step >= self.start_step,
            self.freeze_ranges_step is None or step < self.freeze_ranges_step,
            self.freeze_batch_norm_step is not None and step >= self.freeze_batch_norm_step,
        )

    def _is_last(self) -> bool:
        """Whether no change is to come: then the iterations need not be read."""
        steps = (self.start_step, self.freeze_ranges_step, self.freeze_batch_norm_step)
        return self._state == self._state_at(max(s for s in steps if s is not None))

    def _enter(self, state: tuple[bool, bool, bool]) -> None:
        """Trains on in a state: what was traced in another must not run again."""
        self._state, step, student = state, self._step, self._student

        def train_step(data: Any) -> Any:
            with _Applied(student, state):
                return step(data)

        _override(self.model, "train_step", train_step)
        # fit made its own before it called this.
        type(self.model).make_train_function(self.model, force=True)


class _Applied:
    """A model in a state (see `QatSchedule._state_at`) within a block; afterwards as it was."""

    def __init__(self, model: Any, state: tuple[bool, bool, bool]) -> None:
        self._quantizers, self._norms = _parts(model)
        self._state = state
        self._phases: list[Phase] = []

    def __enter__(self) -> None:
        quantizing, moving, frozen = self._state
        self._phases = [q.phase for q in self._quantizers]
        for quantizer in self._quantizers:
            quantizer.phase = Phase(quantizing, moving)
        for norm in self._norms if frozen else ():
            _override(norm, "call", _with_moving_statistics(norm))

    def __exit__(self, *error: object) -> None:
        for quantizer, phase in zip(self._quantizers, self._phases, strict=True):
            quantizer.phase = phase
        for norm in self._norms:
            norm.__dict__.pop("call", None)


def _parts(model: Any) -> tuple[list[Any], list[Any]]:
    """The quantizers and the batch norm layers of a model."""
    layers = list(model._flatten_layers(include_self=False, recursive=True))
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    return [q for layer in layers for q in layer_quantizers(layer)], norms


def _override(owner: Any, name: str, value: Any) -> None:
    """Gives one object a method of its own, past Keras's tracking."""
    object.__setattr__(owner, name, value)


def _with_moving_statistics(norm: Any) -> Any:
    """The layer's call in inference mode, whatever the mode of the model."""
    call = type(norm).call

    def run(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        del training
        return call(norm, inputs, training=False, mask=mask)

    return run


def _step(name: str, step: Any) -> int | None:
    if step is None:
        return None
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise InputError(f"{name} must be a whole number of at least 0", repr(step))
    return step

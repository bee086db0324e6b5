"""Masks that hold in the graph: variable constraints that every optimizer applies at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.graph import Analysis
from tfedge.graph.trace import dtype_name

# Statistics are not multiplied with anything that a channel owns: zeroing the rest is enough.
_STATISTICS = frozenset({"moving_mean", "moving_variance", "range"})


class ChannelMasks:
    """Zeroes the weights of dead channels, at once and after every optimizer step.

    A weight w is replaced by w * m_1 * m_2..., one 0/1 vector m for each axis that a group indexes.
    The vectors are variables, so that the schedule moves them without tracing the step anew; the
    product runs as the weight's constraint, inside the training step, after the optimizer (and so
    after its momentum) and after the user's own constraint.

    With a group lasso, doomed channels that still live are drawn to zero in the same place; see
    `PruneChannels`.

    Args:
        analysis: The analysed model, whose own layers are masked.
        lasso: Strength of the group lasso; 0 for none.
        rate: Gives the optimizer's learning rate inside the step, where there is a lasso.
    """

    def __init__(
        self, analysis: Analysis, lasso: float = 0.0, rate: Callable[[], Any] | None = None
    ) -> None:
        self._lasso, self._rate = lasso, rate
        self._doomed: dict[tuple[str, int, int], Any] = {}
        layers = analysis.graph.layers()
        self._vectors: dict[tuple[str, int, int], Any] = {}
        self._pieces: list[tuple[tuple[str, int, int], int, np.ndarray, np.ndarray]] = []
        self._weights: dict[tuple[str, int], Any] = {}
        self._user: list[tuple[Any, Any]] = []
        for number, group in enumerate(analysis.groups):
            if group.blocked:
                continue
            for s in group.slices:
                if s.weight_name.rsplit(".", 1)[-1] in _STATISTICS:
                    continue
                variable = layers[s.layer].weights[s.weight]
                key = (s.layer, s.weight, s.axis)
                if key not in self._vectors:
                    ones = np.ones(variable.shape[s.axis], dtype=dtype_name(variable))
                    self._vectors[key] = tf.Variable(ones, trainable=False)
                    self._weights[key[:2]] = variable
                    if lasso:
                        self._doomed[key] = tf.Variable(0 * ones, trainable=False)
                self._pieces.append((key, number, s.index, s.channel))
        self._install()

    def _axes(self, weight: tuple[str, int], vectors: dict) -> list[tuple[int, Any]]:
        return [(k[2], v) for k, v in vectors.items() if k[:2] == weight]

    def _install(self) -> None:
        for key, variable in self._weights.items():
            own = variable.constraint
            self._user.append((variable, own))
            _constrain(variable, self._constraint(key, own))

    def _constraint(self, key: tuple[str, int], own: Any) -> Callable[[Any], Any]:
        """The user's constraint, then the group lasso, then the masks."""
        masks, doomed = self._axes(key, self._vectors), self._axes(key, self._doomed)

        def masked(weight: Any) -> Any:
            value = own(weight) if own is not None else tf.convert_to_tensor(weight)
            for axis, vector in doomed:
                value = _drawn_to_zero(value, axis, vector, self._lasso * self._rate())
            return _times(value, masks)

        return masked

    def _set(self, vectors: dict, channels: list[np.ndarray], value: int) -> None:
        """Writes `value` where these channels are, and its opposite elsewhere."""
        new = {key: np.full(v.shape, 1 - value, v.dtype.name) for key, v in vectors.items()}
        for key, number, index, channel in self._pieces:
            new[key][index[channels[number][channel]]] = value
        for key, array in new.items():
            vectors[key].assign(array)

    def update(self, dead: list[np.ndarray]) -> None:
        """Sets the masks and applies them to the weights now.

        Args:
            dead: Bool array [channels] by group: True for channels to hold at zero.
        """
        self._set(self._vectors, dead, 0)
        self.apply()

    def doom(self, channels: list[np.ndarray]) -> None:
        """Says which channels the group lasso draws to zero; bool array [channels] by group."""
        self._set(self._doomed, channels, 1)

    def apply(self) -> None:
        """Multiplies every weight by its masks."""
        for key, variable in self._weights.items():
            variable.assign(_times(tf.convert_to_tensor(variable), self._axes(key, self._vectors)))

    def remove(self) -> None:
        """Gives the weights their own constraints back."""
        for variable, own in self._user:
            _constrain(variable, own)
        self._user = []


def _constrain(variable: Any, function: Any) -> None:
    """Sets the constraint of a variable; TensorFlow's has no setter, Keras 3's has."""
    if isinstance(variable, tf.Variable):
        variable._constraint = function
    else:
        variable.constraint = function


def _along(vector: Any, axis: int, rank: int, dtype: Any) -> Any:
    shape = [1] * rank
    shape[axis] = -1
    return tf.cast(tf.reshape(vector, shape), dtype)


def _times(value: Any, axes: list[tuple[int, Any]]) -> Any:
    """A weight times a vector on each of these axes."""
    for axis, vector in axes:
        value = value * _along(vector, axis, len(value.shape), value.dtype)
    return value


def _drawn_to_zero(value: Any, axis: int, doomed: Any, step: Any) -> Any:
    """The proximal step of the group lasso on the doomed positions of one axis."""
    others = [a for a in range(len(value.shape)) if a != axis]
    norm = tf.sqrt(tf.reduce_sum(tf.square(value), others, keepdims=True))
    elements = tf.cast(tf.size(value) // value.shape[axis], value.dtype)
    shrunk = 1.0 - tf.cast(step, value.dtype) * tf.sqrt(elements) / tf.maximum(norm, 1e-12)
    factor = tf.where(_along(doomed, axis, len(value.shape), tf.bool), tf.maximum(shrunk, 0), 1.0)
    return value * factor


def learning_rate(model: Any) -> Any:
    """The learning rate that a compiled model's optimizer uses now; a tensor inside a step."""
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(optimizer, "_decayed_lr"):  # tf_keras's legacy optimizers
        return optimizer._decayed_lr(tf.float32)
    rate = optimizer.learning_rate
    return rate(optimizer.iterations) if callable(rate) else tf.convert_to_tensor(rate)

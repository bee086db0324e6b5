"""Masks that hold in the graph: variable constraints that every optimizer applies at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.graph import Analysis

# Statistics are not multiplied with anything that a channel owns: zeroing the rest is enough.
_STATISTICS = frozenset({"moving_mean", "moving_variance"})


class ChannelMasks:
    """Zeroes the weights of dead channels, at once and after every optimizer step.

    A weight w is replaced by w * m_1 * m_2..., one 0/1 vector m for each axis that a group indexes.
    The vectors are variables, so that the schedule moves them without tracing the step anew; the
    product runs as the weight's constraint, inside the training step, after the optimizer (and so
    after its momentum) and after the user's own constraint.

    Args:
        analysis: The analysed model, whose own layers are masked.
    """

    def __init__(self, analysis: Analysis) -> None:
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
                    ones = np.ones(variable.shape[s.axis], dtype=_dtype(variable))
                    self._vectors[key] = tf.Variable(ones, trainable=False)
                    self._weights[key[:2]] = variable
                self._pieces.append((key, number, s.index, s.channel))
        self._install()

    def _axes(self, weight: tuple[str, int]) -> list[tuple[int, Any]]:
        return [(k[2], v) for k, v in self._vectors.items() if k[:2] == weight]

    def _install(self) -> None:
        for key, variable in self._weights.items():
            own = variable.constraint
            self._user.append((variable, own))
            _constrain(variable, _constraint(own, self._axes(key), len(variable.shape)))

    def update(self, dead: list[np.ndarray]) -> None:
        """Sets the masks and applies them to the weights now.

        Args:
            dead: Bool array [channels] by group: True for channels to hold at zero.
        """
        values = {key: np.ones(v.shape, v.dtype.name) for key, v in self._vectors.items()}
        for key, number, index, channel in self._pieces:
            values[key][index[dead[number][channel]]] = 0
        for key, value in values.items():
            self._vectors[key].assign(value)
        self.apply()

    def apply(self) -> None:
        """Multiplies every weight by its masks."""
        for key, variable in self._weights.items():
            masked = _constraint(None, self._axes(key), len(variable.shape))(variable)
            variable.assign(masked)

    def remove(self) -> None:
        """Gives the weights their own constraints back."""
        for variable, own in self._user:
            _constrain(variable, own)
        self._user = []


def _dtype(variable: Any) -> str:
    """Dtype name of a variable of either Keras."""
    return variable.dtype if isinstance(variable.dtype, str) else variable.dtype.name


def _constrain(variable: Any, function: Any) -> None:
    """Sets the constraint of a variable; TensorFlow's has no setter, Keras 3's has."""
    if isinstance(variable, tf.Variable):
        variable._constraint = function
    else:
        variable.constraint = function


def _constraint(own: Any, axes: list[tuple[int, Any]], rank: int) -> Callable[[Any], Any]:
    """The user's constraint followed by the masks."""

    def masked(weight: Any) -> Any:
        value = own(weight) if own is not None else tf.convert_to_tensor(weight)
        for axis, vector in axes:
            shape = [1] * rank
            shape[axis] = vector.shape[0]
            value = value * tf.cast(tf.reshape(vector, shape), value.dtype)
        return value

    return masked

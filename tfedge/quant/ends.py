"""The ends of ranges: variables, what follows from variables, and how they are set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.errors import InputError

INT16_RATIO = 32768.0 / 32767.0
"""-min/max of a 16-bit range whose zero point is exactly 0: scale = max / 32767."""

RANGE_MODES = ("moving_average", "learned", "fixed")
"""How activation ranges come about in training (see `quantize_aware`)."""

RANGE_NAMES = ("_min:", "_max:")
"""What the names of range variables end in, for `optimizer.exclude_from_weight_decay`."""

LEAST_LEARNED = 1e-5
"""A learned range never gets narrower."""


@dataclass(frozen=True)
class Phase:
    """Where a training stands; read while a training step is traced (see `QatSchedule`).

    Attributes:
        quantizing: False: the quantizer hands its input through, as in the float model.
        moving: False: ranges stay where they are.
    """

    quantizing: bool = True
    moving: bool = True


def check_mode(ranges: str) -> str:
    """The mode itself.

    Raises:
        InputError: No such mode.
    """
    if ranges not in RANGE_MODES:
        raise InputError(
            "no such way to set ranges", repr(ranges), f"Choose one of: {', '.join(RANGE_MODES)}"
        )
    return ranges


class Derived:
    """A value that follows from variables, where a `quantized.Range` has a variable.

    Args:
        compute: Gives the present value, float32.
    """

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute = compute

    def numpy(self) -> np.ndarray:
        """The present value, float32; scalar, or [C] per channel."""
        value = self._compute()
        return np.asarray(value.numpy() if tf.is_tensor(value) else value, np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy().astype(dtype or np.float32)

    def __float__(self) -> float:
        return float(self.numpy())


def above_unset(value: Any) -> Any:
    """A little more, also in float32: a relu6's 6 must not look like a range that nothing set."""
    return value * (1.0 + 2.0**-20)


def set_range(low_end: Any, high_end: Any, low: float, high: float) -> None:
    """Sets both ends of an activation's range; an end that follows from the other is left out."""
    for end, value in ((low_end, low), (high_end, high)):
        if not isinstance(end, Derived):
            end.assign(value, read_value=False)


class _Between(keras.constraints.Constraint):
    """Keeps a learned end of a range in an interval, after every step of the optimizer."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __call__(self, w: Any) -> Any:
        return tf.clip_by_value(w, self._low, self._high)


def add_end(
    layer: Any, name: str, value: float, shape: Any = (), within: tuple[float, float] | None = None
) -> Any:
    """A range variable, trained where it has bounds to stay within.

    Replicas compute equal values, so that their mean is the value.
    """
    options: dict[str, Any] = {"trainable": False}
    if within is not None:
        options = {"trainable": True, "constraint": _Between(*within)}
    else:
        options["synchronization"] = tf.VariableSynchronization.ON_READ
    return layer.add_weight(
        name, shape=shape, initializer=keras.initializers.Constant(value),
        aggregation=tf.VariableAggregation.MEAN, experimental_autocast=False, **options,
    )  # fmt: skip


def present_value(value: Any) -> Any:
    """A variable's value as a constant of the graph in tracing: the converter needs constants."""
    if not isinstance(value, (tf.Variable, Derived)):
        return value
    with tf.init_scope():
        return value.numpy()


def over_replicas(least: Any, most: Any) -> tuple[Any, Any]:
    """The minimum and maximum over all replicas of a distributed step.

    Each replica puts its own into its row of a matrix of zeros, whose sum over replicas holds all:
    tf.distribute reduces by sums and means only, and gathering takes two collectives.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return least, most
    row = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
    ends = row[:, None] * tf.stack([least, most])[None, :]
    ends = context.all_reduce(tf.distribute.ReduceOp.SUM, ends)
    return tf.reduce_min(ends[:, 0]), tf.reduce_max(ends[:, 1])

"""Shapes that a tf_keras model takes with `tf.shape`, which in Keras 3 are plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.bridge.arguments import is_symbolic
from tfedge.graph.trace import flatten


class Sizes:
    """A shape taken by `tf.shape`: known sizes, and unknown ones that only a reshape can use."""

    def __init__(self, values: Any) -> None:
        self.values = list(values)


class Unknown:
    """The size of a free dimension, got by `tf.shape(x)[0]`."""


def plain_sizes(shape: Any) -> tuple[int, ...]:
    """A shape for `keras.ops.reshape`, -1 for the size that is free.

    Raises:
        TypeError: More than one size is free.
    """
    values = shape.values if isinstance(shape, Sizes) else list(shape)
    sizes = [-1 if v is None or isinstance(v, Unknown) else int(v) for v in values]
    if sizes.count(-1) > 1:
        raise TypeError("more than one size is free")
    return tuple(sizes)


def _picked(sizes: Sizes, key: Any) -> Any:
    """A size, or a part of a shape."""
    key = key[0] if isinstance(key, (list, tuple)) else key
    if isinstance(key, dict):
        return Sizes(sizes.values[slice(key["start"], key["stop"], key["step"])])
    value = sizes.values[key]
    return Unknown() if value is None else int(value)


def of_sizes(symbol: str, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a TensorFlow function computes from sizes alone; None where a tensor takes part.

    Raises:
        TypeError: A computation on the size of a free dimension.
    """
    leaves = flatten([list(args), dict(kwargs)])
    if any(is_symbolic(v) for v in leaves):
        return None
    if symbol == "__operators__.getitem" and isinstance(args[0], Sizes):
        return _picked(args[0], args[1] if len(args) > 1 else next(iter(kwargs.values())))
    if any(isinstance(v, (Sizes, Unknown)) for v in leaves):
        if symbol == "stack":
            return Sizes(None if isinstance(v, Unknown) else v for v in args[0])
        raise TypeError("a computation on the size of a free dimension")
    return np.asarray(layer.function(*args, **kwargs)).tolist()

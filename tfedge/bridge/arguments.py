"""The arguments of a call as JSON, with tensors numbered, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.errors import ModelError


def is_symbolic(value: Any) -> bool:
    """True for a symbolic tensor of either Keras."""
    return type(value).__name__ == "KerasTensor" or hasattr(value, "_keras_history")


def is_array(value: Any) -> bool:
    """True for numpy arrays and scalars, eager tensors and variables of either Keras."""
    plain = (np.ndarray, np.generic, tf.Tensor, tf.Variable)
    return isinstance(value, plain) or hasattr(value, "__array__") and hasattr(value, "dtype")


def encode(value: Any, tensors: list[Any], where: str) -> Any:
    """A nested argument as plain JSON data.

    Args:
        value: Nested tuples, lists and dicts of symbolic tensors, arrays, slices and plain values.
        tensors: The symbolic tensors are added to this list; the data hold their numbers.
        where: Name of the layer or operation, for the message.

    Raises:
        ModelError: A value that cannot be written down (a function, say).
    """
    if is_symbolic(value):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, tf.DType):
        return value.name
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return {"slice": [encode(p, tensors, where) for p in parts]}
    if isinstance(value, dict):
        return {"dict": {k: encode(v, tensors, where) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        items = [encode(v, tensors, where) for v in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if is_array(value):
        array = np.asarray(value)
        return {"array": array.tolist(), "dtype": array.dtype.name, "shape": list(array.shape)}
    raise ModelError(
        f"an argument of '{where}' cannot be kept in a model's config",
        f"{type(value).__name__}",
        "Put the computation into a layer and pass its counterpart in custom_objects",
    )


def decode(data: Any, tensors: Sequence[Any]) -> Any:
    """What `encode` was given, with these tensors in place of the symbolic ones."""
    if isinstance(data, list):
        return [decode(v, tensors) for v in data]
    if not isinstance(data, dict):
        return data
    if "tensor" in data:
        return tensors[data["tensor"]]
    if "ellipsis" in data:
        return Ellipsis
    if "slice" in data:
        return slice(*(decode(p, tensors) for p in data["slice"]))
    if "array" in data:
        return np.array(data["array"], data["dtype"]).reshape(data["shape"])
    if "tuple" in data:
        return tuple(decode(v, tensors) for v in data["tuple"])
    return {k: decode(v, tensors) for k, v in data["dict"].items()}

"""tf_keras op layers (TensorFlow functions on symbolic tensors) as `keras.ops` calls."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfedge._keras import keras3
from tfedge.bridge.arguments import is_symbolic
from tfedge.bridge.sizes import Sizes, Unknown, of_sizes
from tfedge.bridge.tf_functions import BINARY, REDUCTIONS, UNARY, table_of
from tfedge.errors import ModelError
from tfedge.graph.trace import Tensor, flatten, map_structure


def to_keras_ops(
    layer: Any, name: str, args: tuple, kwargs: dict[str, Any], expected: Sequence[Tensor]
) -> Any:
    """Runs a tf_keras op layer's TensorFlow function on Keras 3 tensors.

    Args:
        layer: A TensorFlow op layer.
        name: Its name, for the message.
        args: Positional arguments with Keras 3 tensors in place of those of tf_keras.
        kwargs: Keyword arguments.
        expected: Shapes and dtypes of the results in tf_keras.

    Raises:
        ModelError: keras.ops has nothing like it, or not with these arguments.
    """
    symbol = layer.get_config()["function"].removeprefix("compat.v1.")
    try:
        known = of_sizes(symbol, layer, args, kwargs)
        if known is not None:
            return known
        result = _called(layer, symbol, name, args, kwargs)
    except (TypeError, ValueError) as e:
        raise _refused(name, f"tf.{symbol}: {str(e).splitlines()[0]}") from e
    return _cast(result, expected, name, symbol)


def _called(layer: Any, symbol: str, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    function = table_of(keras3().ops).get(symbol)
    if function is None:
        raise _refused(name, f"tf.{symbol}")
    parameters = inspect.signature(function).parameters
    bound = _by_position(symbol, list(parameters), _bound(layer, symbol, args, kwargs))
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    strange = {k: v for k, v in bound.items() if k not in parameters and not open_ended}
    if strange:
        raise _refused(
            name, f"tf.{symbol} with {', '.join(f'{k}={v}' for k, v in strange.items())}"
        )
    return function(**_arrays(bound))


# Arguments that are tensors: a list of numbers there is an array that a file has turned into one.
_TENSORS = frozenset(
    "x y a b value bias filters filter condition tensor input params inputs".split()
)


def _arrays(arguments: dict[str, Any]) -> dict[str, Any]:
    tensors = [v for v in flatten(list(arguments.values())) if is_symbolic(v)]
    floats = [t.dtype for t in tensors if "float" in str(t.dtype)]
    dtype = floats[0] if floats else tensors[0].dtype if tensors else None

    def array(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        if any(is_symbolic(v) for v in flatten(value)):
            return [array(v) for v in value]
        held = np.asarray(value)
        return held if held.dtype == bool else held.astype(dtype)

    return {k: array(v) if k in _TENSORS else v for k, v in arguments.items()}


def _refused(name: str, found: str) -> ModelError:
    return ModelError(
        f"the TensorFlow function of layer '{name}' has no counterpart in keras.ops",
        found,
        "Wrap it in a layer and pass a Keras 3 class for it in custom_objects",
    )


def _bound(layer: Any, symbol: str, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by TensorFlow's names, without those that are the default."""
    if symbol == "__operators__.getitem":
        keys = [*args[1:2], *(v for k, v in kwargs.items() if k in ("key", "slice_spec"))]
        return {"x": args[0], "key": keys[0]}
    signature = inspect.signature(layer.function)
    given = signature.bind(*args, **kwargs).arguments
    flat: dict[str, Any] = {}
    for key, value in given.items():
        kind = signature.parameters[key].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            flat.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            flat[key] = list(value)
        else:
            flat[key] = value
    defaults = {k: p.default for k, p in signature.parameters.items()}
    return {k: v for k, v in flat.items() if k != "name" and not _is(v, defaults.get(k, _bound))}


def _is(value: Any, default: Any) -> bool:
    if value is default:
        return True
    plain = (bool, int, float, str, list)
    return isinstance(value, plain) and isinstance(default, plain) and value == default


def _by_position(symbol: str, known: list[str], bound: dict[str, Any]) -> dict[str, Any]:
    """Unary, binary and reducing functions name their tensors in many ways."""
    if symbol.removeprefix("__operators__.") != symbol and symbol != "__operators__.getitem":
        return dict(zip(known, bound.values(), strict=False))
    if symbol in REDUCTIONS and "input_tensor" in bound:
        return {("x" if k == "input_tensor" else k): v for k, v in bound.items()}
    if symbol in UNARY and bound:
        first, *rest = bound.items()
        return {"x": first[1], **dict(rest)}
    if symbol in BINARY and not set(bound) <= {"x", "y"}:
        return dict(zip(("x", "y"), bound.values(), strict=False))
    return bound


def _cast(result: Any, expected: Sequence[Tensor], name: str, symbol: str) -> Any:
    """The results in the dtype that TensorFlow gave them."""
    flat = flatten(result)
    if len(flat) != len(expected) or any(isinstance(v, (Sizes, Unknown)) for v in flat):
        return result
    kinds = iter(expected)

    def one(tensor: Any) -> Any:
        want = next(kinds).dtype
        have = getattr(tensor, "dtype", want)
        if have == want:
            return tensor
        if "float" in have and "float" not in want:
            raise _refused(name, f"tf.{symbol}, which gives {want} where keras.ops gives {have}")
        return keras3().ops.cast(tensor, want)

    return map_structure(one, result)

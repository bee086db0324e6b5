"""Parameters of a call by name, whichever Keras wrote it.

Both Kerases turn `a + b` or `reshape(x, ...)` on symbolic tensors into nodes: Keras 3 into
operation objects that hold their parameters as attributes, tf_keras into op layers that hold the
function and keep the parameters in the call.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tfedge.graph.trace import Call, Ref, flatten

# Where a value stands: ("args", 1), ("kwargs", "axis", 0) of a call, or ("attr", "axis") of an op.
Path = tuple[Any, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a call: its value and where surgery finds it."""

    value: Any
    path: Path


@lru_cache(maxsize=1024)
def _names(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _parameter_names(function: Any) -> tuple[str, ...]:
    bound = getattr(function, "__func__", None)
    return _names(bound)[1:] if bound is not None else _names(function)


def parameters(layer: Any, call: Call) -> dict[str, Parameter]:
    """All parameters of a call by name: an operation's attributes, then what was passed.

    Args:
        layer: The layer or operation.
        call: The traced call of it.
    """
    found: dict[str, Parameter] = {}
    function = getattr(layer, "function", None)
    if function is None or hasattr(layer, "symbolic_call"):
        if not hasattr(layer, "trainable"):
            found = {k: Parameter(v, ("attr", k)) for k, v in vars(layer).items()}
        function = layer.call
    names = _parameter_names(function)
    for i, value in enumerate(call.args):
        if i < len(names):
            found[names[i]] = Parameter(value, ("args", i))
    for key, value in call.kwargs.items():
        found[key] = Parameter(value, ("kwargs", key))
    return found


def is_dynamic(value: Any) -> bool:
    """True where a parameter is itself a tensor (computed from shapes at run time)."""
    return any(isinstance(v, Ref) or hasattr(v, "node") for v in flatten(value))


def axes_of(value: Any, rank: int) -> list[int]:
    """Axes as non-negative numbers; None means all."""
    if value is None:
        return list(range(rank))
    listed = value if hasattr(value, "__iter__") else [value]
    return [int(a) % rank for a in listed]

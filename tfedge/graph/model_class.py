"""Model classes of the user's own: `class Mine(keras.Model)`, built as `Mine(inputs, outputs)`."""

from __future__ import annotations

import inspect
from typing import Any

from tfedge._keras import flavour, library
from tfedge.errors import ModelError

_FUNCTIONAL = frozenset("self inputs outputs name trainable args kwargs".split())


def own_class(model: Any) -> type | None:
    """The class of a model if it is a user's own and not one of Keras's, else None."""
    root = type(model).__module__.split(".")[0]
    kind = flavour(model)
    if kind is None or root in ("keras", "tf_keras"):
        return None
    return type(model) if isinstance(model, library(kind).Model) else None


def overridden(model: Any) -> list[str]:
    """Methods of Keras's Model that the user's class defines anew (train_step, call, ...)."""
    found: set[str] = set()
    for base in type(model).__mro__:
        if base.__module__.split(".")[0] in ("keras", "tf_keras"):
            break
        found |= {n for n in vars(base) if not n.startswith("__")}
    kind = flavour(model)
    known = library(kind).Model if kind else object
    return sorted(n for n in found if hasattr(known, n) and n not in ("get_config", "from_config"))


def build_model(model: Any, kind: type, inputs: Any, outputs: Any, name: str) -> Any:
    """A functional model of a class, with the other arguments that an earlier model has.

    Args:
        model: The earlier model, of this class or of its counterpart in the other Keras.
        kind: The class; its `__init__` must take `inputs` and `outputs`.
        inputs: Input structure of symbolic tensors.
        outputs: Output structure.
        name: Name of the new model.

    Returns:
        `kind(inputs=inputs, outputs=outputs, name=name, ...)`. Further arguments are looked up in
        `model.get_config()`, then among its attributes, by name.

    Raises:
        ModelError: The class cannot be built on tensors, or an argument is not known.
    """
    parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    named = {k for k, p in parameters.items() if p.kind is not p.VAR_POSITIONAL}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not open_ended and not {"inputs", "outputs"} <= named:
        raise _not_built(kind, f"__init__({', '.join(parameters)})")
    config = _config(model)
    extra = {
        k: _argument(model, kind, k, config)
        for k, p in parameters.items()
        if k not in _FUNCTIONAL and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    if open_ended or "name" in named:
        extra["name"] = name
    try:
        return kind(inputs=inputs, outputs=outputs, **extra)
    except TypeError as e:
        raise _not_built(kind, str(e).splitlines()[0]) from e


def _not_built(kind: type, found: str) -> ModelError:
    return ModelError(
        f"the model class {kind.__name__} cannot be built on other layers",
        found,
        "Let its __init__ take inputs, outputs and **kwargs and pass them to super().__init__",
    )


def _config(model: Any) -> dict[str, Any]:
    try:
        return dict(model.get_config())
    except (NotImplementedError, TypeError, ValueError):
        return {}


def _argument(model: Any, kind: type, key: str, config: dict[str, Any]) -> Any:
    if key in config:
        return config[key]
    if hasattr(model, key):
        return getattr(model, key)
    raise ModelError(
        f"the argument '{key}' of the model class {kind.__name__} is not known",
        f"model '{model.name}'",
        f"Return it from {type(model).__name__}.get_config(), or keep it as the attribute '{key}'",
    )

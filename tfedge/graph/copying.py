"""New layers from old ones: the same class and config, with some entries changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import flavour, library
from tfedge.errors import ModelError


def custom_objects_of(layer: Any) -> dict[str, Any]:
    """Functions and classes that a layer's config may name and that Keras does not know.

    A user's activation or regulariser is serialised by name; rebuilding the layer needs the object
    itself, which the layer still holds.
    """
    inside = getattr(layer, "layer", None)  # of a wrapper
    found = {} if inside is None or inside is layer else custom_objects_of(inside)
    for value in vars(layer).values():
        if isinstance(value, type) or not (callable(value) or hasattr(value, "get_config")):
            continue
        name = getattr(value, "__name__", None)
        if name and not hasattr(value, "get_config"):
            # Keras looks up every string of a config here: its own functions must not be found.
            if str(getattr(value, "__module__", "")).split(".")[0] not in ("keras", "tf_keras"):
                found[name] = value
        elif flavour(value) is not None or not type(value).__module__.startswith("builtins"):
            found[type(value).__name__] = type(value)
    return found


def _set(config: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets an entry of a nested config; the dicts on the way are copied."""
    key, *rest = path
    if not rest:
        config[key] = value
        return
    inner = config.get(key)
    if isinstance(inner, dict):
        config[key] = dict(inner)
        _set(config[key], rest, value)
    elif isinstance(inner, (list, tuple)):  # the cells of stacked cells
        config[key] = list(inner)
        number, *rest = rest
        config[key][int(number)] = dict(inner[int(number)])
        _set(config[key][int(number)], rest, value)


def _without_builds(config: Any) -> Any:
    """Drops "build_config" from wrapped layers: it would build them for the old shapes."""
    if isinstance(config, dict):
        return {k: _without_builds(v) for k, v in config.items() if k != "build_config"}
    return [_without_builds(v) for v in config] if isinstance(config, list) else config


def _without_values(config: Any) -> Any:
    """Drops initial values of one shape: weights are copied, and their shapes may change."""
    if isinstance(config, dict):
        return {
            k: "zeros" if k.endswith("initializer") and _is_fixed(v) else _without_values(v)
            for k, v in config.items()
        }
    return [_without_values(v) for v in config] if isinstance(config, list) else config


def _is_fixed(initializer: Any) -> bool:
    """Whether a serialized initializer is an array, or a lambda, which no config can hold."""
    kind = initializer.get("class_name") if isinstance(initializer, dict) else ""
    if kind != "Constant":
        return kind == "__lambda__"
    value = initializer["config"].get("value", 0.0)
    return isinstance(value, dict) or np.ndim(value) > 0  # Keras 3 writes arrays as dicts


def _is_lambda(value: Any) -> bool:
    """True for an activation that has no name: a config holds its code, which Keras refuses."""
    return getattr(value, "__name__", "") == "<lambda>"


def copy_operation(op: Any, changes: dict[str, Any] | None = None, name: str | None = None) -> Any:
    """A new Keras 3 operation that belongs to no graph yet.

    Args:
        op: The operation.
        changes: Parameters to replace.
        name: New name, or None to keep the operation's own.
    """
    try:
        config = {**op.get_config(), **(changes or {}), "name": name or op.name}
    except NotImplementedError:  # an array parameter has no config
        new = object.__new__(type(op))
        vars(new).update({**vars(op), **(changes or {}), "name": name or op.name})
        new._inbound_nodes, new._outbound_nodes = [], []
        return new
    return type(op).from_config(config)


def _copy_lambda(layer: Any, name: str | None, dtype: Any = None) -> Any:
    """A Lambda with the same function object: a config would lose what it closes over."""
    return type(layer)(
        layer.function,
        output_shape=getattr(layer, "_output_shape", None),
        mask=getattr(layer, "mask", None),
        arguments=layer.arguments,
        name=name or layer.name,
        dtype=dtype or layer.get_config()["dtype"],
        trainable=layer.trainable,
    )


def copy_layer(layer: Any, changes: dict[str, Any] | None = None, name: str | None = None) -> Any:
    """A new, unbuilt layer of the same class from the layer's config.

    Args:
        layer: A layer of either Keras, or a Keras 3 operation (then only the name changes).
        changes: Config entries to replace; a dotted key reaches into a wrapped layer's config, and
            is left out where the config has no such entry.
        name: New name, or None to keep the layer's own.

    Raises:
        ModelError: The layer has no usable `get_config`.
    """
    if not hasattr(layer, "trainable"):
        return copy_operation(layer, changes, name)
    if type(layer).__name__ == "Lambda" and hasattr(layer, "function"):
        return _copy_lambda(layer, name, (changes or {}).get("dtype"))
    try:
        config = dict(layer.get_config())
        for key, value in (changes or {}).items():
            _set(config, key.split("."), value)
        config = _without_values(_without_builds(config))
        if name is not None:
            config["name"] = name
        kept = {k for k in config if k.endswith("activation")} - set(changes or {})
        unnamed = {k: getattr(layer, k) for k in kept if _is_lambda(getattr(layer, k, None))}
        config |= dict.fromkeys(unnamed, "linear")
        scope = library(flavour(layer) or "tf_keras").utils.custom_object_scope
        with scope(custom_objects_of(layer)):
            new = type(layer).from_config(config)
        for key, function in unnamed.items():
            setattr(new, key, function)
        return new
    except (NotImplementedError, TypeError, ValueError) as e:
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt from its config",
            str(e).splitlines()[0] if str(e) else type(e).__name__,
            "Give the layer a get_config() that returns all arguments of its __init__",
        ) from e

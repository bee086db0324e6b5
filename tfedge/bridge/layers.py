"""One layer of one Keras as the same layer of the other: class, config, weights."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

from tfedge._keras import flavour, library
from tfedge.bridge.functions import convert_activation
from tfedge.errors import ModelError

# Where the layers that live outside `keras.layers` stand in each Keras.
_APPLICATION_LAYERS = {
    "LayerScale": "applications.convnext",
    "StochasticDepth": "applications.convnext",
    "CustomScaleLayer": "applications.inception_resnet_v2",
}
# Config entries called otherwise: (class, tf_keras name) -> Keras 3 name.
_RENAMED = {("LeakyReLU", "alpha"): "negative_slope"}
# Entries that say nothing about what a trained layer computes.
_WITHOUT_MEANING = frozenset(
    "name trainable dtype batch_input_shape build_config registered_name quantization_config "
    "lora_rank lora_alpha use_cudnn seed rng_type force_generator implementation input_length "
    "synchronized flash_attention gptq_unpacked_column_size pool_dimensions pool_mode "
    "pool_function conv_op adjustment fused virtual_batch_size autocast sparse shared_object_id "
    "renorm renorm_clipping renorm_momentum time_major zero_output_for_mask score_mode "
    "experimental_autocast query_shape key_shape value_shape".split()
)
_INNER = ("layer", "backward_layer", "cell")


def convert_layer(layer: Any, to: str, name: str, custom: dict[str, Any]) -> Any:
    """The layer in the other Keras, unbuilt, without its weights.

    Args:
        layer: A layer.
        to: "tf_keras" or "keras3".
        name: Name of the new layer.
        custom: Classes and functions of the wanted flavour by name.

    Raises:
        ModelError: The other Keras has no such layer, or not with these arguments.
    """
    kind = _target_class(layer, to, custom)
    config = layer.get_config()
    own = type(layer).__name__ in custom
    out: dict[str, Any] = {}
    accepted = _accepted(kind)
    for key, value in config.items():
        key = _renamed(type(layer).__name__, key, to)
        initial = key.endswith("initializer") and key not in accepted
        if key in _WITHOUT_MEANING or initial:
            continue
        if key not in accepted and not own:
            _require_default(layer, key, value)
            continue
        converted, use = _convert(layer, key, value, to, custom)
        if use:
            out[key] = converted
    new = kind(**out, name=name, dtype=_policy(layer))
    new.trainable = layer.trainable
    return new


def _target_class(layer: Any, to: str, custom: dict[str, Any]) -> Any:
    kind = type(layer).__name__
    if kind in custom:
        return custom[kind]
    lib = library(to)
    native = type(layer).__module__.split(".")[0] in ("keras", "tf_keras")
    if native and kind in _APPLICATION_LAYERS:
        root = "tf_keras.src" if to == "tf_keras" else "keras.src"
        return getattr(importlib.import_module(f"{root}.{_APPLICATION_LAYERS[kind]}"), kind)
    found = getattr(lib.layers, kind, None) if native else None
    if found is None:
        raise ModelError(
            f"layer '{layer.name}' ({kind}) has no counterpart in {to}",
            type(layer).__module__,
            f"Pass a {to} class for it: custom_objects={{'{kind}': MyLayer}}",
        )
    return found


def _accepted(kind: type) -> set[str]:
    names: set[str] = set()
    for base in kind.__mro__:
        if base.__name__ == "Layer":
            break
        if "__init__" in vars(base):
            names |= set(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
    return names


def _renamed(kind: str, key: str, to: str) -> str:
    if to == "keras3":
        return _RENAMED.get((kind, key), key)
    back = {(k, new): old for (k, old), new in _RENAMED.items()}
    return back.get((kind, key), key)


def _require_default(layer: Any, key: str, value: Any) -> None:
    """An argument that the other Keras lacks must not change what is computed."""
    default: Any = None
    for base in type(layer).__mro__:
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        if key in parameters:
            default = parameters[key].default
            break
    if value not in (None, False, default):
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot cross to the other Keras",
            f"it has no argument {key}={value!r}",
            "Rebuild the layer without it, or pass an equivalent class in custom_objects",
        )


def _convert(layer: Any, key: str, value: Any, to: str, custom: dict[str, Any]) -> tuple[Any, bool]:
    """A config value in the other Keras, and whether to use it."""
    if key.endswith("initializer"):
        return _serialized(value, "initializers", to, None)
    if key.endswith("regularizer"):
        return _serialized(value, "regularizers", to, layer)
    if key.endswith("constraint"):
        return _serialized(value, "constraints", to, layer)
    if key.endswith("activation"):
        return convert_activation(getattr(layer, key, value), to, layer.name, custom), True
    if key in _INNER and value is not None:
        inner = getattr(layer, "forward_layer" if key == "layer" else key, None)
        inner = inner if inner is not None else getattr(layer, key, None)
        if flavour(inner) is not None:
            # Bidirectional adds these prefixes itself.
            name = inner.name.removeprefix("forward_").removeprefix("backward_")
            return convert_layer(inner, to, name, custom), True
    if key == "axis" and type(layer).__name__ == "BatchNormalization":
        return int(np.ravel(value)[0]), True
    if key == "output_shape" and type(layer).__name__ == "EinsumDense":
        return _without_gaps(layer, value), True
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist(), True
    return value, True


def _without_gaps(layer: Any, value: Any) -> Any:
    """EinsumDense's output_shape with its Nones filled in: Keras 3 does not infer them."""
    if isinstance(value, int) or None not in tuple(value) or flavour(layer) == "keras3":
        return value
    known = tuple(layer.get_output_shape_at(0))[-len(tuple(value)) :]
    return tuple(k if v is None else v for v, k in zip(value, known, strict=True))


def _serialized(value: Any, module: str, to: str, layer: Any) -> tuple[Any, bool]:
    """An initializer, regularizer or constraint; initializers that do not cross are left out.

    The weights are copied, so an initializer matters only to those who reset them.
    """
    if value is None:
        return None, True
    if isinstance(value, str):
        value = {"class_name": value, "config": {}}
    target = getattr(library(to), module)
    plain = {"class_name": value["class_name"], "config": dict(value.get("config") or {})}
    try:
        return target.deserialize(plain), True
    except (ValueError, TypeError, AttributeError, KeyError) as e:
        if layer is None:
            return None, False
        raise ModelError(
            f"layer '{layer.name}' uses a {module[:-1]} that {to} does not have",
            str(value["class_name"]),
            "Remove it, or register the same class there",
        ) from e


def _policy(layer: Any) -> str:
    policy = getattr(layer, "dtype_policy", None) or getattr(layer, "_dtype_policy", None)
    return getattr(policy, "name", None) or "float32"


def copy_weights(old: Any, new: Any) -> None:
    """Copies the weights of a layer into its built counterpart.

    By position where the shapes agree, else by name.

    Raises:
        ModelError: The weights do not correspond.
    """
    have, want = list(old.weights), list(new.weights)
    if [_size(w) for w in have] != [_size(w) for w in want]:
        have = _by_name(old, have, want)
    new.set_weights(
        [np.asarray(w).reshape(tuple(t.shape)) for w, t in zip(have, want, strict=True)]
    )
    if hasattr(new, "finalize_state"):
        new.finalize_state()


def _size(weight: Any) -> tuple:
    return tuple(d for d in weight.shape if d != 1)


def _by_name(layer: Any, have: list[Any], want: list[Any]) -> list[Any]:
    names = {_last(w): w for w in have}
    found = [names.get(_last(w)) for w in want]
    if len(names) != len(have) or any(f is None for f in found):
        raise ModelError(
            f"the weights of layer '{layer.name}' ({type(layer).__name__}) do not correspond",
            f"{[tuple(w.shape) for w in have]} and {[tuple(w.shape) for w in want]}",
            "Pass an equivalent class in custom_objects",
        )
    return found


def _last(weight: Any) -> str:
    return str(getattr(weight, "path", weight.name)).split("/")[-1].split(":")[0]

"""One layer of one Keras as the same layer of the other: class and config."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import flavour, keras, keras3, library
from tfedge.bridge.carried import require_tensorflow
from tfedge.bridge.functions import convert_activation
from tfedge.errors import ModelError

# Where the layers that live outside `keras.layers` stand in each Keras.
_APPLICATION_LAYERS = {
    "LayerScale": "applications.convnext",
    "StochasticDepth": "applications.convnext",
    "CustomScaleLayer": "applications.inception_resnet_v2",
}
_CLASS_RENAMED = {
    ("SyncBatchNormalization", "keras3"): "BatchNormalization",
    ("BatchNormalizationV1", "keras3"): "BatchNormalization",
}
# Config entries called otherwise: (class, tf_keras name) -> Keras 3 name.
_RENAMED = {("LeakyReLU", "alpha"): "negative_slope"}
# Entries that say nothing about what a layer computes once its weights are there.
_WITHOUT_MEANING = frozenset(
    "name trainable dtype batch_input_shape batch_shape build_config registered_name "
    "quantization_config lora_rank lora_alpha use_cudnn rng_type force_generator implementation "
    "input_length synchronized flash_attention gptq_unpacked_column_size pool_dimensions "
    "pool_mode pool_function conv_op adjustment fused virtual_batch_size renorm renorm_clipping "
    "renorm_momentum autocast experimental_autocast shared_object_id vocabulary_size "
    "query_shape key_shape value_shape unit_forget_bias".split()
)
_LOOKUPS = frozenset(("IntegerLookup", "StringLookup", "TextVectorization"))
# Layers that exist in both and do not compute the same.
_DIFFERENT = {
    "SpectralNormalization": "tf_keras cannot build it on this TensorFlow",
    "RandomCrop": "outside training Keras 3 leaves the image as it is, tf_keras resizes it",
}
_REFUSED = frozenset(("RandomCrop",))


class NoCounterpart(ModelError):
    """The other Keras does not have this layer, or not with these arguments."""


@dataclass(frozen=True)
class Target:
    """Where layers go.

    Attributes:
        to: "tf_keras" or "keras3".
        custom: The user's classes and functions of that flavour by name.
        cross: Carries a whole model that is wrapped in a layer.
    """

    to: str
    custom: Mapping[str, Any]
    cross: Callable[[Any], Any]


def convert_layer(layer: Any, name: str, target: Target) -> Any:
    """The layer in the other Keras, unbuilt, without its weights.

    Args:
        layer: A layer.
        name: Name of the new layer.
        target: The wanted flavour, and the user's own classes.

    Raises:
        NoCounterpart: The other Keras has no such layer, or not with these arguments.
        ModelError: A part of the layer (a regularizer, a layer in it) has no counterpart.
    """
    _require_plain(layer)
    kind = target_class(layer, target)
    policy, trainable = _policy(layer), bool(layer.trainable)
    base = {"name": name, "dtype": policy, "trainable": trainable}
    if type(layer).__name__ == "Lambda":
        return kind(**_lambda_config(layer, target), **base)
    if type(layer).__name__ in target.custom:
        return _own_layer(layer, kind, base, target)
    accepted = _accepted(kind)
    settable = "kwargs" in accepted or "trainable" in accepted
    if not settable:
        del base["trainable"]
    if type(layer).__name__ in _LOOKUPS and "int" not in policy:
        del base["dtype"]  # the other Keras chooses by the output mode
    new = kind(**_native_config(layer, accepted, target), **base)
    if kind is keras.layers.BatchNormalization:
        # The fused kernel rounds in another way (2e-7, which deep networks amplify a thousandfold)
        # and corrects the variance by n / (n - 1) in training; Keras 3 does neither.
        new.fused = False
    if not settable:
        new.trainable = trainable
    return new


def _native_config(layer: Any, accepted: set[str], target: Target) -> dict[str, Any]:
    """The config of a Keras layer in the words of the other Keras.

    Raises:
        NoCounterpart: An argument that the other Keras lacks is not the default.
    """
    out: dict[str, Any] = {}
    for key, value in _config(layer).items():
        key = _renamed(type(layer).__name__, key, target.to)
        if key in ("name", "trainable", "dtype"):
            continue
        if key not in accepted:
            if key not in _WITHOUT_MEANING and not key.endswith("initializer"):
                _require_default(layer, key, value)
            continue
        converted, use = _convert(layer, key, value, target)
        if use:
            out[key] = converted
    return out


def _require_plain(layer: Any) -> None:
    """Refuses layers whose weights are not what they seem."""
    if getattr(layer, "quantization_mode", None):
        raise ModelError(
            f"layer '{layer.name}' was quantized by Keras 3's quantize()",
            str(layer.quantization_mode),
            "Take the model from before quantize(); tfedge.quant quantizes it for the device",
        )
    if getattr(layer, "lora_enabled", False):
        raise ModelError(
            f"layer '{layer.name}' has LoRA adapters that are not merged",
            "lora_enabled",
            "Save the model and load it again, which merges them",
        )
    if type(layer).__module__.startswith("tensorflow_model_optimization"):
        raise ModelError(
            f"layer '{layer.name}' belongs to a quantize-aware model, which stays in tf_keras",
            type(layer).__name__,
            "Carry the model over before it is quantized",
        )


def _config(layer: Any) -> dict[str, Any]:
    try:
        config = dict(layer.get_config())
    except NotImplementedError as e:
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt from its config",
            "its get_config() is missing",
            "Give the layer a get_config() that returns all arguments of its __init__",
        ) from e
    if type(layer).__name__ in _LOOKUPS:
        config["vocabulary"] = layer.get_vocabulary(include_special_tokens=False)
    if type(layer).__name__ == "Discretization" and len(layer.bin_boundaries or ()):
        config["bin_boundaries"], config["num_bins"] = list(layer.bin_boundaries), None
    return config


def class_flavour(kind: type) -> str | None:
    """The Keras that a class belongs to."""
    roots = [base.__module__.split(".")[0] for base in kind.__mro__]
    found = next((r for r in roots if r in ("keras", "tf_keras")), None)
    return "keras3" if found == "keras" else found


def is_native(layer: Any) -> bool:
    """True for a layer of Keras itself."""
    return type(layer).__module__.split(".")[0] in ("keras", "tf_keras")


def target_class(layer: Any, target: Target) -> Any:
    """The class of the layer's counterpart.

    Raises:
        NoCounterpart: There is none.
        ModelError: The user's own tf_keras layer without a counterpart in Keras 3.
    """
    kind, to = type(layer).__name__, target.to
    own = target.custom.get(kind) or (None if is_native(layer) else _registered(layer, to))
    if own is not None:
        if isinstance(own, type) and class_flavour(own) not in (to, None):
            raise NoCounterpart(
                f"custom_objects['{kind}'] is not a {to} class", class_flavour(own) or "",
                f"Pass a {to} class for layer '{layer.name}'",
            )  # fmt: skip
        return own
    found = _native_class(layer, to) if is_native(layer) else None
    if found is None or kind in _DIFFERENT:
        carried = kind not in _REFUSED and (is_native(layer) or to == "tf_keras")
        error = NoCounterpart if carried else ModelError
        raise error(
            f"layer '{layer.name}' ({kind}) has no counterpart in {to}",
            _DIFFERENT.get(kind, type(layer).__module__),
            f"Pass a {to} class for it: custom_objects={{'{kind}': MyLayer}}",
        )
    return found


def _native_class(layer: Any, to: str) -> Any:
    kind = _CLASS_RENAMED.get((type(layer).__name__, to), type(layer).__name__)
    if kind in _APPLICATION_LAYERS:
        return application_layers(to)[kind]
    return getattr(library(to).layers, kind, None)


def application_layers(kind: str) -> dict[str, Any]:
    """Layer classes that stand in the modules of a Keras's applications, by name."""
    root = "tf_keras.src" if kind == "tf_keras" else "keras.src"
    return {
        name: getattr(importlib.import_module(f"{root}.{module}"), name)
        for name, module in _APPLICATION_LAYERS.items()
    }


def _registered(layer: Any, to: str) -> Any:
    """A class that the user registered in the other Keras under the same name."""
    source = library(flavour(layer) or "tf_keras").saving
    return library(to).saving.get_registered_object(source.get_registered_name(type(layer)))


def _accepted(kind: type) -> set[str]:
    """Names that the constructor takes, its own and those it hands on."""
    names: set[str] = set()
    for base in kind.__mro__:
        if base.__name__ == "Layer":
            break
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
            names |= set(parameters)
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                break
    if issubclass(kind, keras.layers.RNN):
        names.add("zero_output_for_mask")  # taken from **kwargs
    return names - {"self", "args"}


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
    usual = key == "data_format" and value == "channels_last"
    if not usual and value not in (None, False, default) and not _seed(key):
        raise NoCounterpart(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot cross to the other Keras",
            f"it has no argument {key}={value!r}",
            "Rebuild the layer without it, or pass an equivalent class in custom_objects",
        )


def _seed(key: str) -> bool:
    return key == "seed"


def _convert(layer: Any, key: str, value: Any, target: Target) -> tuple[Any, bool]:
    """A config value in the other Keras, and whether to use it."""
    if key.endswith(("initializer", "regularizer", "constraint")):
        optional = key.endswith("initializer")
        made, use = _serialized(value, key.rsplit("_", 1)[-1] + "s", target)
        if made is None and value is not None and not optional:
            return _held(layer, key, value, target), True
        return made, use
    if key.endswith("activation"):
        return _activation(layer, key, value, target), True
    if key in ("layer", "backward_layer", "cell") and value is not None:
        inner = getattr(layer, "forward_layer" if key == "layer" else key, None)
        inner = inner if inner is not None else getattr(layer, key, None)
        if flavour(inner) is not None:
            return convert_inner(inner, target), True
    if key == "cells":
        return [convert_inner(c, target) for c in layer.cells], True
    if key == "seed":
        return (value, True) if isinstance(value, int) else (None, False)
    if key == "axis" and type(layer).__name__ == "BatchNormalization":
        return int(np.ravel(value)[0]), True
    if key == "output_shape" and type(layer).__name__ == "EinsumDense":
        return _without_gaps(layer, value), True
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist(), True
    return value, True


def convert_inner(inner: Any, target: Target) -> Any:
    """A wrapped layer, cell or model in the other Keras."""
    if hasattr(inner, "layers") and flavour(inner) is not None:
        return target.cross(inner)
    # Bidirectional adds these prefixes itself.
    name = inner.name.removeprefix("forward_").removeprefix("backward_")
    return convert_layer(inner, name, target)


def _activation(layer: Any, key: str, value: Any, target: Target) -> Any:
    held = getattr(layer, key, None) or getattr(getattr(layer, "cell", None), key, None)
    if held is None:
        if value is None:
            return None
        held = library(flavour(layer) or "tf_keras").activations.get(value)
    if flavour(held) is not None:
        return convert_layer(held, held.name, target)
    return convert_activation(held, target.to, layer.name, target.custom)


def _lambda_config(layer: Any, target: Target) -> dict[str, Any]:
    """A Lambda keeps its function, or takes the one of that name from custom_objects."""
    function = layer.function
    function = target.custom.get(getattr(function, "__name__", ""), function)
    shape = getattr(layer, "_output_shape", None)
    config = {"function": function, "mask": layer.mask, "arguments": dict(layer.arguments or {})}
    return {**config, **({"output_shape": shape} if shape is not None else {})}


def _own_layer(layer: Any, kind: Any, base: dict[str, Any], target: Target) -> Any:
    """The user's own counterpart, from the layer's config."""
    config = {}
    for key, value in _config(layer).items():
        if key in base or key in ("batch_input_shape", "build_config"):
            continue
        converted, use = _convert(layer, key, value, target)
        if use:
            config[key] = converted
    try:
        return kind.from_config({**config, **base})
    except TypeError as e:
        raise ModelError(
            f"layer '{layer.name}' cannot be built as the {target.to} class {kind.__name__}",
            str(e).splitlines()[0],
            "Let it take the same arguments, and name, trainable and dtype through **kwargs",
        ) from e


def _without_gaps(layer: Any, value: Any) -> Any:
    """EinsumDense's output_shape with its Nones filled in: Keras 3 does not infer them."""
    if isinstance(value, int) or None not in tuple(value) or flavour(layer) == "keras3":
        return value
    known = tuple(layer.get_output_shape_at(0))[-len(tuple(value)) :]
    return tuple(k if v is None else v for v, k in zip(value, known, strict=True))


def _serialized(value: Any, module: str, target: Target) -> tuple[Any, bool]:
    """An initializer, regularizer or constraint; (None, False) where it does not cross.

    The weights are copied, so an initializer matters only to those who reset them.
    """
    if value is None:
        return None, True
    if isinstance(value, str):
        value = {"class_name": value, "config": {}}
    if not isinstance(value, dict):
        return None, False
    name = value["class_name"].rsplit(">", 1)[-1]
    plain = {"class_name": name, "config": dict(value.get("config") or {})}
    if name in target.custom:
        return target.custom[name](**plain["config"]), True
    try:
        found = getattr(library(target.to), module).deserialize(plain)
    except (ValueError, TypeError, AttributeError, KeyError):
        found = None
    return (found, True) if callable(found) else (None, False)


def _held(layer: Any, key: str, value: Any, target: Target) -> Any:
    """A regularizer or constraint of the user's own: in tf_keras Keras 3's object is called."""
    held, kind = getattr(layer, key, None), key.rsplit("_", 1)[-1]
    if target.to == "tf_keras" and callable(held):
        require_tensorflow(f"{layer.name}.{key}")
        return held
    name = value["class_name"] if isinstance(value, dict) else type(held).__name__
    raise ModelError(
        f"layer '{layer.name}' uses a {kind} that {target.to} does not have",
        str(name),
        f"Pass the same class of {target.to} in custom_objects, or remove it",
    )


def _policy(layer: Any) -> str:
    policy = getattr(layer, "dtype_policy", None) or getattr(layer, "_dtype_policy", None)
    return getattr(policy, "name", None) or "float32"


def serialized_keras3(layer: Any, name: str) -> dict[str, Any]:
    """A Keras 3 layer as data, under another name."""
    try:
        data = keras3().saving.serialize_keras_object(layer)
    except NotImplementedError as e:
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot be written down as data",
            str(e).strip().splitlines()[0],
            "Give the layer a get_config() that returns all arguments of its __init__",
        ) from e
    data.pop("build_config", None)
    return {**data, "config": {**data["config"], "name": name}}


def is_tf_op(layer: Any) -> bool:
    """True for the layer that tf_keras makes of a TensorFlow function."""
    return isinstance(layer, keras.layers.Layer) and type(layer).__name__ in (
        "TFOpLambda",
        "SlicingOpLambda",
    )

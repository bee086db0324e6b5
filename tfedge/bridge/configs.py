"""Model configs of every Keras 2, put into the words of today's tf_keras."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from tfedge._keras import keras
from tfedge.errors import ModelError

# Class names of TensorFlow 1 and early 2; the GPU's recurrent layers, whose weights the HDF5 reader
# puts into the order of the others.
_RENAMED = {
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "UnifiedLSTM": "LSTM",
    "UnifiedGRU": "GRU",
}
_CARRIED = frozenset(("Keras3Layer", "KerasOp"))  # what is inside belongs to Keras 3
_WRAPPERS = frozenset(("ListWrapper", "_TupleWrapper"))


def mended(config: Any, custom: Mapping[str, Any], *, named_functions: bool) -> Any:
    """A model config in the form that tf_keras reads.

    Old class names and modules are replaced, lists are unwrapped, and a Lambda's bytecode, which
    another Python cannot run, gives way to the user's function.

    Args:
        config: The config of a model or any part of it.
        custom: The user's objects by name; a Lambda's function by the layer's name.
        named_functions: Write a function that serves as activation by its name alone, as the HDF5
            reader wants it.

    Raises:
        ModelError: A Lambda layer whose function is not among the custom objects.
    """
    if isinstance(config, list):
        return [mended(v, custom, named_functions=named_functions) for v in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") in _WRAPPERS:
        return config["config"]
    if str(config.get("class_name")).rpartition(">")[2] in _CARRIED:
        return config
    out = {k: mended(v, custom, named_functions=named_functions) for k, v in config.items()}
    kind = out.get("class_name")
    if isinstance(kind, str):
        out["class_name"] = _RENAMED.get(kind, kind)
        if isinstance(out.get("module"), str):
            out["module"] = _module(out["module"], out["class_name"])
    if kind == "Lambda" and isinstance(out.get("config"), dict):
        out["config"] = _lambda(out["config"], custom)
    for key, value in out.items():
        if named_functions and key.endswith("activation") and _is_function(value):
            out[key] = value["config"]
    return out


def _is_function(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("class_name") == "function"
        and isinstance(value.get("config"), str)
    )


def _module(module: str, kind: str) -> str:
    """Where tf_keras has a class that Keras 2.12 to 2.15 had elsewhere."""
    root, _, rest = module.removeprefix("keras.src.").removeprefix("keras.").partition(".")
    if module.startswith("keras.src."):
        return f"tf_keras.src.{root}.{rest}" if rest else f"tf_keras.src.{root}"
    if not module.startswith("keras.") or hasattr(getattr(keras, root, None), kind):
        return module
    private = f"tf_keras.src.{module.removeprefix('keras.')}"
    try:
        importlib.import_module(private)
    except ModuleNotFoundError:
        return module
    return private


def _lambda(config: dict[str, Any], custom: Mapping[str, Any]) -> dict[str, Any]:
    function = config.get("function")
    code = config.get("function_type") == "lambda" or (
        isinstance(function, dict) and function.get("class_name") == "__lambda__"
    )
    if not code:
        return config
    name = config["name"]
    if name not in custom:
        raise ModelError(
            f"the Lambda layer '{name}' holds its function as Python bytecode, which is not run",
            "code of unknown origin and Python version",
            f"Pass the function: custom_objects={{'{name}': function}}",
        )
    return {**config, "function": name, "function_type": "function", "module": None}

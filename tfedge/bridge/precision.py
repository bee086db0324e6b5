"""Models under a mixed precision policy, computed in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfedge._keras import keras, tf
from tfedge.bridge.crossing import to_tf_keras
from tfedge.errors import ModelError
from tfedge.graph import replay, trace
from tfedge.graph.copying import copy_layer
from tfedge.graph.surgery import fill, weights_of

_HALF = ("float16", "bfloat16")
_POLICIES = frozenset({*_HALF, "mixed_float16", "mixed_bfloat16"})


def to_float32(model: Any) -> Any:
    """A tf_keras model that computes in float32, for what has no 16-bit float arithmetic.

    TFLite's kernels and fake quantization compute in float32. A model trained under the policy
    "mixed_float16" or "mixed_bfloat16" has float32 weights, of which the same layers are built
    anew; 16-bit weights are widened.

    Args:
        model: A Functional or Sequential model of either Keras.

    Returns:
        A new plain Functional model with the same layer names, inputs and outputs; the model
        itself where nothing in it computes in 16 bits.

    Raises:
        ModelError: The model itself casts to 16 bits, or a layer cannot be rebuilt.
    """
    model = to_tf_keras(model, keep_class=False)
    if not any(layer.compute_dtype in _HALF for layer in model._flatten_layers(include_self=False)):
        return model
    graph = trace(model)
    weights = weights_of(graph)
    made: dict[str, Any] = {}

    def make(name: str, layer: Any) -> Any:
        config = layer.get_config() if hasattr(layer, "get_config") else {}
        plain = {k: _without_policies(v, k) for k, v in config.items()}
        changes = {k: v for k, v in plain.items() if v is not config[k]}
        made[name] = copy_layer(layer, changes, name)
        return made[name]

    try:
        built = replay(graph, make, model_class=keras.Model)
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise ModelError(
            f"model '{model.name}' cannot be computed in float32",
            str(error).strip().splitlines()[0],
            "Leave out its own casts to 16 bits, or rebuild it under the policy 'float32'",
        ) from error
    fill(made, weights)
    return built


@contextmanager
def float32_policy() -> Iterator[None]:
    """New tf_keras layers compute in float32 here, whatever the user's global policy is."""
    given = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(given)


def _without_policies(value: Any, key: str = "") -> Any:
    """A config entry with 16-bit policies replaced; the same object where it has none."""
    if isinstance(value, str):
        return "float32" if key == "dtype" and value in _POLICIES else value
    if isinstance(value, dict):
        if value.get("class_name") in ("Policy", "DTypePolicy"):
            return "float32" if value["config"]["name"] in _POLICIES else value
        new: Any = {k: _without_policies(v, k) for k, v in value.items()}
        return new if any(new[k] is not v for k, v in value.items()) else value
    if isinstance(value, (list, tuple)):
        new = type(value)([_without_policies(v) for v in value])
        return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
    return value

"""A whole model from one Keras into the other, by replaying its graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfedge._keras import flavour
from tfedge.bridge.layers import convert_layer, copy_weights
from tfedge.bridge.operations import keras_operation, tf_operation
from tfedge.errors import ModelError
from tfedge.graph.trace import Graph, replay, trace


def to_tf_keras(model: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """A Keras 3 model as a tf_keras model with the same layer names and weights.

    Nested models are written out; `keras.ops` calls become TensorFlow op layers.

    Args:
        model: A Keras 3 Functional or Sequential model (a tf_keras model is returned as it is).
        custom_objects: tf_keras classes and functions for the user's own layers, by name.

    Raises:
        ModelError: A layer that has no counterpart; the message names it and what to supply.
    """
    return model if flavour(model) == "tf_keras" else _cross(model, "tf_keras", custom_objects)


def to_keras3(model: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """A tf_keras model as a Keras 3 model with the same layer names and weights.

    Args:
        model: A tf_keras Functional or Sequential model (a Keras 3 model is returned as it is).
        custom_objects: Keras 3 classes and functions for the user's own layers, by name.

    Raises:
        ModelError: A layer that has no counterpart, or a quantize-aware model.
    """
    return model if flavour(model) == "keras3" else _cross(model, "keras3", custom_objects)


def _cross(model: Any, to: str, custom_objects: Mapping[str, Any] | None) -> Any:
    if flavour(model) is None:
        raise ModelError("this is not a Keras model", type(model).__name__)
    custom = dict(custom_objects or {})
    graph = trace(model)
    made: dict[str, Any] = {}

    def make(name: str, layer: Any) -> Any:
        if not hasattr(layer, "trainable"):
            return tf_operation(layer, name)
        if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda", "KerasOp"):
            return keras_operation(layer, name)
        made[name] = convert_layer(layer, to, _legal(name, to), custom)
        return _Caller(made[name], to)

    crossed = replay(graph, make, into=to)
    _copy(graph, made)
    return crossed


def _legal(name: str, to: str) -> str:
    """Keras 3 forbids slashes in layer names."""
    return name.replace("/", "_") if to == "keras3" else name


class _Caller:
    """Calls a layer without the arguments that only say how it is called (training, masks)."""

    def __init__(self, layer: Any, to: str) -> None:
        self.layer, self.to = layer, to

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = {k: v for k, v in kwargs.items() if v is not None and k != "training"}
        return self.layer(*args, **given)


def _copy(graph: Graph, made: dict[str, Any]) -> None:
    for name, layer in graph.layers().items():
        if name in made and layer.weights:
            copy_weights(layer, made[name])

"""Activation functions of one Keras expressed in the other.

A name that means the same in both is passed on. `hard_sigmoid` does not: Keras 3 computes
relu6(x + 3) / 6, tf_keras clip(0.2 x + 0.5, 0, 1). Functions that tf_keras lacks are defined here
and registered, so that models with them save and reload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfedge._keras import keras, keras3, tf
from tfedge.errors import ModelError

_PACKAGE = "tfedge"
_register = keras.saving.register_keras_serializable(_PACKAGE)


@_register
def hard_sigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6, Keras 3's hard sigmoid (Howard et al. 2019)."""
    return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


@_register
def hard_silu(x: Any) -> Any:
    """Hard SiLU, x * relu6(x + 3) / 6, also called hard swish (Howard et al. 2019)."""
    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


@_register
def gelu_tanh(x: Any) -> Any:
    """Gelu by its tanh approximation (Hendrycks and Gimpel 2016)."""
    return tf.nn.gelu(x, approximate=True)


@_register
def relu6(x: Any) -> Any:
    """min(max(x, 0), 6)."""
    return tf.nn.relu6(x)


@_register
def leaky_relu(x: Any) -> Any:
    """max(x, 0.2 x), the slope that Keras 3's function of this name has."""
    return tf.nn.leaky_relu(x, 0.2)


@_register
def log_softmax(x: Any) -> Any:
    """log(softmax(x)) over the last axis."""
    return tf.nn.log_softmax(x)


@_register
def log_sigmoid(x: Any) -> Any:
    """-softplus(-x)."""
    return tf.math.log_sigmoid(x)


@_register
def celu(x: Any) -> Any:
    """max(0, x) + min(0, exp(x) - 1)."""
    return tf.nn.relu(x) + tf.minimum(0.0, tf.math.expm1(tf.minimum(x, 0.0)))


@_register
def hard_tanh(x: Any) -> Any:
    """Clips to [-1, 1]."""
    return tf.clip_by_value(x, -1.0, 1.0)


@_register
def squareplus(x: Any) -> Any:
    """(x + sqrt(x^2 + 4)) / 2."""
    return (x + tf.sqrt(x * x + 4.0)) * 0.5


# Keras 3 functions that are missing in tf_keras, or bear the name of another function there.
OURS: dict[str, Callable[[Any], Any]] = {
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "log_softmax": log_softmax,
    "log_sigmoid": log_sigmoid,
    "celu": celu,
    "hard_tanh": hard_tanh,
    "squareplus": squareplus,
}
# Rarer ones run Keras 3's own code.
_RARE = (
    "glu hard_shrink soft_shrink sparse_plus sparse_sigmoid sparsemax tanh_shrink threshold"
).split()


def _running(name: str) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return getattr(keras3().activations, name)(x)

    function.__name__ = name
    function.__doc__ = f"Keras 3's {name}."
    return _register(function)


OURS |= {name: _running(name) for name in _RARE}
# The same function under another name: Keras 3 -> tf_keras.
_RENAMED = {"silu": "swish"}
# TensorFlow functions that people pass as activations and that Keras 3 has under the same name.
_TENSORFLOW = (
    "relu relu6 elu selu gelu silu swish softplus softsign leaky_relu softmax log_softmax sigmoid "
    "tanh"
).split()


def convert_activation(value: Any, to: str, layer: str, custom: Mapping[str, Any]) -> Any:
    """An activation of one Keras in the other.

    Args:
        value: The layer's activation function.
        to: Flavour that is wanted.
        layer: Layer name, for the message.
        custom: The user's own functions by name.

    Returns:
        A function of the other Keras or its name. A user's own function is passed on as it is: it
        must work on tensors of TensorFlow and be given to whoever loads the saved model.

    Raises:
        ModelError: The other Keras has no such function and none was supplied.
    """
    name = getattr(value, "__name__", type(value).__name__)
    if name in custom:
        return custom[name]
    if to == "keras3":
        known = _of_tf_keras(value, name)
    else:
        known = _of_keras3(value, name)
    if known is not None:
        return known
    if callable(value):
        return value
    raise ModelError(
        f"layer '{layer}' uses an activation that {to} does not have", f"'{name}'",
        f"Pass it by name: custom_objects={{'{name}': function}}",
    )  # fmt: skip


def _of_keras3(value: Any, name: str) -> Any:
    """The counterpart of a function of Keras 3, or None for a user's own."""
    from tfedge.bridge.native import hard_sigmoid_keras2

    if value is hard_sigmoid_keras2:
        return "hard_sigmoid"
    if value is not getattr(keras3().activations, name, None):
        return None
    return OURS.get(name) or _RENAMED.get(name, name)


def _of_tf_keras(value: Any, name: str) -> Any:
    """The counterpart of a function of tf_keras, TensorFlow or this module, or None."""
    from tfedge.bridge.native import hard_sigmoid_keras2

    if value is keras.activations.hard_sigmoid:
        return hard_sigmoid_keras2
    ours = value is OURS.get(name)
    native = value is getattr(keras.activations, name, None)
    plain = name in _TENSORFLOW and value is getattr(tf.nn, name, None)
    return name if ours or native or plain else None

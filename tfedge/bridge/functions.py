"""Activation functions of one Keras expressed in the other.

A name that means the same in both is passed on. `hard_sigmoid` does not: Keras 3 computes
relu6(x + 3) / 6, tf_keras clip(0.2 x + 0.5, 0, 1). Functions that tf_keras lacks are defined here
and registered, so that models with them save and reload.
"""

from __future__ import annotations

from collections.abc import Callable
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
# The same function under another name: Keras 3 -> tf_keras.
_RENAMED = {"silu": "swish"}


def convert_activation(value: Any, to: str, layer: str, custom: dict[str, Any]) -> Any:
    """An activation of one Keras in the other.

    Args:
        value: The layer's activation function.
        to: Flavour that is wanted.
        layer: Layer name, for the message.
        custom: The user's own functions by name.

    Raises:
        ModelError: The other Keras has no such function and none was supplied.
    """
    if value is None:
        return None
    name = getattr(value, "__name__", type(value).__name__)
    if name in custom:
        return custom[name]
    if to == "tf_keras":
        if name in OURS:
            return OURS[name]
        name = _RENAMED.get(name, name)
        known = hasattr(keras.activations, name)
    else:
        if value is keras.activations.hard_sigmoid:
            return _old_hard_sigmoid()
        known = hasattr(keras3().activations, name)
    if known:
        return name
    if callable(value):
        return value
    raise ModelError(
        f"layer '{layer}' uses an activation that {to} does not have", f"'{name}'",
        f"Pass it by name: custom_objects={{'{name}': function}}",
    )  # fmt: skip


def _old_hard_sigmoid() -> Callable[[Any], Any]:
    """tf_keras's hard sigmoid for Keras 3."""
    lib = keras3()

    @lib.saving.register_keras_serializable(_PACKAGE, name="hard_sigmoid_keras2")
    def hard_sigmoid_keras2(x: Any) -> Any:
        """clip(0.2 x + 0.5, 0, 1)."""
        return lib.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    return hard_sigmoid_keras2

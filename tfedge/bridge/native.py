"""Keras 3 objects that stand for what only tf_keras has; importing this registers them."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras3

_lib = keras3()
_register = _lib.saving.register_keras_serializable("tfedge")


@_register
def hard_sigmoid_keras2(x: Any) -> Any:
    """clip(0.2 x + 0.5, 0, 1), the hard sigmoid of tf_keras."""
    return _lib.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@_register
class PassMask(_lib.layers.Layer):
    """Gives its first input the mask of its second one, or none where it has one input only.

    Some layers hand on a mask in one Keras and not in the other; this mends it.
    """

    def call(self, inputs: Any) -> Any:
        """The first input."""
        first = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        return _lib.ops.copy(first)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the second input."""
        two = isinstance(inputs, (list, tuple)) and len(inputs) == 2
        return previous_mask[1] if two and previous_mask is not None else None

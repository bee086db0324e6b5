"""Looking into Lambda layers: the function, called on symbolic tensors, is a graph of its own."""

from __future__ import annotations

import inspect
from typing import Any

from tfedge._keras import flavour, library


def opened(layer: Any, inputs: Any, outputs: list[Any]) -> Any:
    """A functional model of the operations that a Lambda layer runs.

    Args:
        layer: Any layer.
        inputs: The symbolic tensors that it was called on, one or a list.
        outputs: The flat symbolic results.

    Returns:
        The model, or None where the layer is no Lambda, or its function cannot be called on
        symbolic tensors (plain TensorFlow functions in Keras 3, for example) or gives something
        else there.
    """
    if type(layer).__name__ != "Lambda" or not callable(getattr(layer, "function", None)):
        return None
    lib = library(flavour(layer) or "tf_keras")
    many = isinstance(inputs, (list, tuple))
    fresh = [
        lib.Input(batch_shape=tuple(t.shape), dtype=t.dtype) for t in (inputs if many else [inputs])
    ]
    known = inspect.signature(layer.function).parameters
    extra = {k: None for k in ("mask", "training") if k in known and k not in layer.arguments}
    try:
        result = layer.function(fresh if many else fresh[0], **layer.arguments, **extra)
        model = lib.Model(fresh, result)
    except Exception:  # noqa: BLE001 - a function of the user's that wants numbers
        return None
    made = list(model.outputs)
    same = [(tuple(t.shape), t.dtype) for t in made] == [(tuple(t.shape), t.dtype) for t in outputs]
    return model if same else None


def last_operation(model: Any) -> Any:
    """The operation that makes the only output of an opened Lambda, to be named after it.

    Args:
        model: What `opened` returned.

    Returns:
        None where there are several outputs, or where the output is an input, or is made by a
        model or a layer with weights, which have names of their own.
    """
    if len(model.outputs) != 1:
        return None
    last = model.outputs[0]._keras_history[0]  # the layer or operation, in both Kerases
    own_name = getattr(last, "weights", None) or hasattr(last, "layers")
    return None if own_name or type(last).__name__ == "InputLayer" else last

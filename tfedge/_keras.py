"""The one place that knows both Kerases, and starts TensorFlow quietly.

`keras` is tf_keras, the working flavour (tfmot needs it); Keras 3 is only recognised here. Import
both from this module: `from tfedge._keras import keras, tf`.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Literal

# TensorFlow reads these once, when its shared library loads; a value set by the user stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _import_tensorflow() -> Any:
    """Imports TensorFlow with its C++ start-up lines (written before logging is up) held back."""
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        import tensorflow

        # Looks for a GPU now, so that a missing driver's complaint is held back as well.
        tensorflow.config.list_physical_devices()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
    return tensorflow


tf = _import_tensorflow()
tf.get_logger().setLevel("ERROR")

import tf_keras as keras  # noqa: E402

__all__ = ["Flavour", "flavour", "keras", "keras3", "library", "tf"]

Flavour = Literal["tf_keras", "keras3"]


def flavour(model: Any) -> Flavour | None:
    """Tells which Keras a model or layer belongs to.

    Args:
        model: Any object.

    Returns:
        "tf_keras", "keras3", or None for an object that is neither.
    """
    for base in type(model).__mro__:
        root = base.__module__.split(".")[0]
        if root == "tf_keras":
            return "tf_keras"
        if root == "keras":
            return "keras3"
    return None


def keras3() -> Any:
    """Keras 3, imported on first use, on the TensorFlow backend where nothing else was chosen."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras as module

    return module


def library(kind: str) -> Any:
    """The Keras module of a flavour."""
    return keras3() if kind == "keras3" else keras

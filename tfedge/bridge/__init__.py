"""Loading models, and the way between Keras 3 and tf_keras."""

from __future__ import annotations

from tfedge.bridge.called import CalledModel
from tfedge.bridge.crossing import to_keras3, to_tf_keras
from tfedge.bridge.loading import ServingModel, holds_quantizers, load_model, register_code
from tfedge.bridge.precision import to_float32
from tfedge.bridge.shapes import with_shapes

__all__ = [
    "CalledModel",
    "ServingModel",
    "holds_quantizers",
    "load_model",
    "register_code",
    "to_float32",
    "to_keras3",
    "to_tf_keras",
    "with_shapes",
]

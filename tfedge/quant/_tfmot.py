"""The only import of tensorflow_model_optimization, without its side effect on the process.

tfmot sets TF_USE_LEGACY_KERAS=1 while it is imported. `tf.keras` reads that variable the first time
it is touched, so `tf.keras` is resolved before and the variable is put back afterwards: a program
that uses Keras 3 next to tfedge keeps it.
"""

from __future__ import annotations

import os

from tfedge._keras import tf

_VARIABLE = "TF_USE_LEGACY_KERAS"


def _import_wrapper_module() -> object:
    before = os.environ.get(_VARIABLE)
    _ = tf.keras.layers  # Resolves the lazy module under the user's own setting.
    try:
        from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
    return quantize_wrapper


_import_wrapper_module()

from tensorflow_model_optimization.python.core.quantization.keras import (  # noqa: E402
    quantize_config,
    quantize_layer,
    quantize_wrapper,
    quantizers,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize import (  # noqa: E402
    quantize_scope,
)

LastValueQuantizer = quantizers.LastValueQuantizer
MovingAverageQuantizer = quantizers.MovingAverageQuantizer
QuantizeConfig = quantize_config.QuantizeConfig
QuantizeLayer = quantize_layer.QuantizeLayer
QuantizeWrapper = quantize_wrapper.QuantizeWrapper
QuantizeWrapperV2 = quantize_wrapper.QuantizeWrapperV2
Quantizer = quantizers.Quantizer

__all__ = [
    "LastValueQuantizer",
    "MovingAverageQuantizer",
    "QuantizeConfig",
    "QuantizeLayer",
    "QuantizeWrapper",
    "QuantizeWrapperV2",
    "Quantizer",
    "quantize_scope",
]

"""What a conversion costs: seconds and memory of tfedge.convert beside the stock converter.

    python benchmarks/convert_cost.py [--only MODEL/WHO/SCHEME] [--force]

tf_keras.applications, random weights; int8 with 100 samples. Each row runs in a process of its own:
seconds from the Keras model to the bytes (for tfedge with its trial run in a subprocess, the
certificate and the checks), CPU seconds of the process and its children, and the most memory that
the process had above what the imports and the model took. Stock: TFLiteConverter.from_keras_model.
"ptq" is tfedge.convert with the default steps of post-training quantization.
"""

from __future__ import annotations

import resource
import time
import warnings
from typing import Any

import numpy as np
import rows

MODELS = {"MobileNetV2": 224, "ResNet50": 224, "EfficientNetB0": 224}
CASES = ("tfedge/float32", "stock/float32", "tfedge/w8a8", "stock/w8a8", "ptq/w8a8")
SAMPLES = 100


def measure(row: str) -> dict[str, Any]:
    """The columns of one row."""
    warnings.simplefilter("ignore")
    import tfedge
    from tfedge import lower, quant  # noqa: F401  (imports are no part of the cost)
    from tfedge._keras import keras

    name, who, scheme = row.split("/")
    size = MODELS[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    images = np.random.default_rng(0).random((SAMPLES, size, size, 3), np.float32)
    before, began, cpu = _peak(), time.monotonic(), _cpu()
    if who == "stock":
        data = _stock(model, scheme, images)
    else:
        samples = images if scheme == "w8a8" else None
        steps = "default" if who == "ptq" else ()
        data = tfedge.convert(model, scheme, calibration=samples, ptq=steps).data
    return {
        "seconds": round(time.monotonic() - began, 1),
        "CPU s": round(_cpu() - cpu, 1),
        "peak MB": round(_peak() - before),
        "bytes": len(data),
    }


def _stock(model: Any, scheme: str, images: np.ndarray) -> bytes:
    from tfedge._keras import tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if scheme == "w8a8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None]] for x in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _peak() -> float:
    """Most memory of this process so far, 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _cpu() -> float:
    """CPU seconds of this process and of children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(u.ru_utime + u.ru_stime for u in used)


if __name__ == "__main__":
    every = [f"{model}/{case}" for model in MODELS for case in CASES]
    rows.main("convert_cost", every, measure, __doc__ or "")

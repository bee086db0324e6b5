"""TFLite files without TensorFlow: read, run, compare with a reference, certify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfedge.tflite.certificate import certify, require_integer
    from tfedge.tflite.check import check_runs
    from tfedge.tflite.drift import compare
    from tfedge.tflite.interpreter import Interpreter
    from tfedge.tflite.model import TFLiteModel

_HOMES = {
    "Interpreter": "interpreter",
    "TFLiteModel": "model",
    "certify": "certificate",
    "check_runs": "check",
    "compare": "drift",
    "require_integer": "certificate",
}

__all__ = ["Interpreter", "TFLiteModel", "certify", "check_runs", "compare", "require_integer"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'tfedge.tflite' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tfedge.tflite.{_HOMES[name]}"), name)

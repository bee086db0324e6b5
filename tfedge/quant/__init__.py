"""Quantization-aware training; the only package that imports tfmot."""

from __future__ import annotations

from tfedge.quant.configs import custom_objects
from tfedge.quant.ends import RANGE_MODES, RANGE_NAMES
from tfedge.quant.qat import QAT_SCHEMES, QatReport, quantize_aware, report, to_16x8
from tfedge.quant.schedule import QatSchedule
from tfedge.quantized import is_quantized, layer_name, qat_scheme

__all__ = [
    "QAT_SCHEMES",
    "RANGE_MODES",
    "RANGE_NAMES",
    "QatReport",
    "QatSchedule",
    "custom_objects",
    "is_quantized",
    "layer_name",
    "qat_scheme",
    "quantize_aware",
    "report",
    "to_16x8",
]

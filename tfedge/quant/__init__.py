"""Quantization-aware training; the only package that imports tfmot."""

from __future__ import annotations

from tfedge.quant.ends import RANGE_MODES, RANGE_NAMES
from tfedge.quant.objects import custom_objects
from tfedge.quant.ptq import DEFAULT_STEPS, PTQ_STEPS, PtqStep, post_training, step_names
from tfedge.quant.qat import QatReport, QuantizationWarning, quantize_aware, report
from tfedge.quant.schedule import QatSchedule
from tfedge.quant.sixteen import to_16x8
from tfedge.quant.treatment import LAYER_SCHEMES, QAT_SCHEMES
from tfedge.quantized import is_quantized, layer_name, qat_scheme

__all__ = [
    "DEFAULT_STEPS",
    "LAYER_SCHEMES",
    "PTQ_STEPS",
    "QAT_SCHEMES",
    "RANGE_MODES",
    "RANGE_NAMES",
    "PtqStep",
    "QatReport",
    "QuantizationWarning",
    "QatSchedule",
    "custom_objects",
    "is_quantized",
    "layer_name",
    "post_training",
    "qat_scheme",
    "quantize_aware",
    "report",
    "step_names",
    "to_16x8",
]

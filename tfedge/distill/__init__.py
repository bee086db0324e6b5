"""Distillation: a student learns from a teacher's outputs and features beside the labels."""

from tfedge.distill.cache import TeacherCache
from tfedge.distill.detection import DetectionOutputs, YoloHead
from tfedge.distill.distiller import Distiller
from tfedge.distill.features import (
    FEATURES,
    AttentionTransfer,
    ChannelKL,
    Feature,
    FitNet,
    RelationalKD,
    SimilarityPreserving,
)
from tfedge.distill.targets import KINDS
from tfedge.distill.temperature import (
    TEMPERATURES,
    ConstantTemperature,
    CosineTemperature,
    CurriculumTemperature,
    EntropyTemperature,
    GapTemperature,
    LinearTemperature,
    Moment,
    StepTemperature,
    Temperature,
)

__all__ = [
    "FEATURES",
    "KINDS",
    "TEMPERATURES",
    "AttentionTransfer",
    "ChannelKL",
    "ConstantTemperature",
    "CosineTemperature",
    "CurriculumTemperature",
    "DetectionOutputs",
    "Distiller",
    "EntropyTemperature",
    "Feature",
    "FitNet",
    "GapTemperature",
    "LinearTemperature",
    "Moment",
    "RelationalKD",
    "SimilarityPreserving",
    "StepTemperature",
    "TeacherCache",
    "Temperature",
    "YoloHead",
]

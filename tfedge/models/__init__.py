"""Reference networks: the small models that the demo and the benchmarks start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfedge.models.efficientnet import efficientnet_small
from tfedge.models.mobilenet import mobilenet_v2_035
from tfedge.models.resnet import resnet8, resnet20

MODELS: dict[str, Callable[..., Any]] = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "mobilenet_v2_035": mobilenet_v2_035,
    "efficientnet_small": efficientnet_small,
}

__all__ = ["MODELS", "efficientnet_small", "mobilenet_v2_035", "resnet20", "resnet8"]

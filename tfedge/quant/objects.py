"""The classes that a saved quantize-aware model consists of."""

from __future__ import annotations

from typing import Any

from tfedge.quant import _tfmot
from tfedge.quant.configs import InputQuantizer, LayerConfig, TfedgeQuantizeWrapper
from tfedge.quant.quantizers import ActivationQuantizer, FixedQuantizer, WeightQuantizer
from tfedge.quant.seams import Boundary, Requantize
from tfedge.quant.tables import AboveZero, Tabled


def custom_objects() -> dict[str, Any]:
    """Everything that `load_model(path, custom_objects=...)` needs for a quantize-aware model.

    Holds tfmot's own classes too, so that models made by tfmot itself load.
    """
    scope = _tfmot.quantize_scope().custom_objects
    found = {k: v for part in scope for k, v in part.items()}
    ours = (
        ActivationQuantizer,
        FixedQuantizer,
        Boundary,
        InputQuantizer,
        LayerConfig,
        Requantize,
        AboveZero,
        Tabled,
        TfedgeQuantizeWrapper,
        WeightQuantizer,
    )
    return {**found, **{c.__name__: c for c in ours}}

"""Which layers of a quantize-aware model compute in whole codes in inference, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfedge._keras import keras
from tfedge.quant.integer_fixed import FixedMean, FixedMultiply, FixedSum
from tfedge.quant.integer_grid import Integers, Range, quantizes, target
from tfedge.quant.integer_product import IntegerProduct
from tfedge.quant.integer_sums import IntegerMean, IntegerMultiply, IntegerSum

_L = keras.layers


def integers_of(wrapper: Any, sources: Sequence[Range]) -> Integers | None:
    """A wrapped layer in whole codes; None for layers that have no such form.

    Args:
        wrapper: The layer's quantize wrapper, in a built model.
        sources: What quantizes each tensor that the layer reads.
    """
    layer, goal = wrapper.layer, target(wrapper)
    ends = [*sources, *([] if goal is None else [goal])]
    bits = {quantizer.num_bits for quantizer, _ in ends}
    if len(bits) > 1 or not all(map(quantizes, sources)):
        return None
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    if wrapper._weight_vars:  # But an embedding, which looks rows up.
        kernel = wrapper._weight_vars[0]
        whole = hasattr(layer, "use_bias") and kernel[1].phase.quantizing
        return IntegerProduct(wrapper, kernel, sources[0]) if whole else None
    if goal is None:
        return None
    wide = bits == {16}
    if isinstance(layer, (_L.Add, _L.Subtract)) and len(sources) == 2:
        return FixedSum(sources, goal) if wide else IntegerSum(sources, goal)
    if isinstance(layer, _L.Multiply) and len(sources) == 2:
        return FixedMultiply(sources, goal) if wide else IntegerMultiply(sources, goal)
    if isinstance(layer, (_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D)):
        return FixedMean(sources[0], goal) if wide else IntegerMean(sources[0], goal)
    return None

"""Rewrites that let XNNPACK take more of a file, each keeping what the file computes.

Every fix takes a model and changes its main subgraph in place, where wanted only at the ops of some
positions; it gives the number of places that it changed, and finds none the second time. Its
docstring says what it does and why that is the same. `tfedge.tflite.repair` proves each of them on
the file at hand.
"""

from __future__ import annotations

from typing import Any, Protocol

from tfedge.tflite.editing import Only
from tfedge.tflite.fixes_float import float_islands
from tfedge.tflite.fixes_layout import nearest_resize, padding, slices, wide_concat
from tfedge.tflite.fixes_values import (
    hard_swish,
    missing_bias,
    quantize_pairs,
    quantized_axis,
    squared_difference,
    subsampling,
    unfused_activations,
    whole_average,
)

__all__ = ["FIXES", "ON_REQUEST", "TO_RUN", "Fix", "find"]


class Fix(Protocol):
    """One fix."""

    def __call__(self, model: Any, only: Only = None) -> int:
        """Rewrites a model; see the module."""
        ...


FIXES: dict[str, Fix] = {
    "quantize_pairs": quantize_pairs,
    "quantized_axis": quantized_axis,
    "missing_bias": missing_bias,
    "padding": padding,
    "unfused_activations": unfused_activations,
    "squared_difference": squared_difference,
    "subsampling": subsampling,
    "hard_swish": hard_swish,
    "whole_average": whole_average,
    "nearest_resize": nearest_resize,
    "wide_concat": wide_concat,
    "slices": slices,
}
"""Fix by name, in the order of applying."""

ON_REQUEST: dict[str, Fix] = {"float_islands": float_islands}
"""Fixes that cost a file something else; tried last, and only where asked for."""

TO_RUN = ("quantized_axis", "missing_bias")
"""Fixes without which a file does not run at all."""


def find(name: str) -> Fix:
    """A fix by its name, of either table."""
    return FIXES[name] if name in FIXES else ON_REQUEST[name]

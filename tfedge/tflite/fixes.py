"""Rewrites that let XNNPACK take more of a file, each keeping what the file computes.

Every fix takes a model and changes its main subgraph in place; it gives the number of places that
it changed, and finds none the second time. Its docstring says what it does and why that is the
same. `tfedge.tflite.repair` proves each of them on the file at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfedge.tflite.fixes_layout import nearest_resize, padding, slices, wide_concat
from tfedge.tflite.fixes_values import (
    missing_bias,
    quantize_pairs,
    squared_difference,
    unfused_activations,
    whole_average,
)

FIXES: dict[str, Callable[[Any], int]] = {
    "quantize_pairs": quantize_pairs,
    "missing_bias": missing_bias,
    "padding": padding,
    "unfused_activations": unfused_activations,
    "squared_difference": squared_difference,
    "whole_average": whole_average,
    "nearest_resize": nearest_resize,
    "wide_concat": wide_concat,
    "slices": slices,
}
"""Fix by name, in the order of applying."""


def headline(name: str) -> str:
    """The first line of a fix's docstring."""
    return (FIXES[name].__doc__ or "").strip().partition("\n")[0]

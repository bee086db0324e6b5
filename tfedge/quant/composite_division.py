"""Division by a tensor that keeps away from 0, by a reciprocal square root taken twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge.graph.arguments import is_dynamic, parameters
from tfedge.graph.canonical import symbol_of
from tfedge.graph.rewrite import Piece
from tfedge.graph.trace import Ref
from tfedge.quant.divisors import DIVISIONS, divisor_of
from tfedge.quant.sketch import NoForm, Sketch

_WIDEST = 32.0
"""Largest over smallest magnitude of a divisor; of 8 bits the smallest then has 3 left."""


def divided(s: Sketch) -> list[Piece]:
    """X / y = x * rsqrt(y) * rsqrt(y) for y > 0 (TFLite has no integer DIV); -x / -y for y < 0."""
    if divisor_of(s.call) is None:
        return []
    sign = _sign(s.divisor)
    x, y = _operands(s)
    root = s.rsqrt(s.affine(y, sign, suffix="positive") if sign < 0 else y)
    if x is None or isinstance(x, float):
        return s.piece(_scaled(s, s.times(root, root, "inverse"), sign * (x or 1.0)))
    part = s.times(_scaled(s, x, sign), root, "half")
    return s.piece(s.times(part, root, "quotient"))


def _scaled(s: Sketch, x: Any, factor: float) -> Any:
    return x if factor == 1.0 else s.affine(x, factor, suffix="signed")


def _sign(bounds: tuple[float, float] | None) -> float:
    """1 or -1: the divisor's sign.

    Raises:
        NoForm: It is not known, changes, or comes near 0.
    """
    if bounds is None:
        raise NoForm("its divisor's range is not known; give calibration data")
    low, high = bounds
    said = f"its divisor is in [{low:.3g}, {high:.3g}] on the calibration data"
    if not low * high > 0:
        raise NoForm(f"{said}, where 0 is no divisor for integers; keep it away from 0")
    least, most = sorted((abs(low), abs(high)))
    if most > _WIDEST * least:
        raise NoForm(f"{said}, and the smallest has too few codes; keep it above 1/32 of the rest")
    return 1.0 if low > 0 else -1.0


def _operands(s: Sketch) -> tuple[Any, Any]:
    """Dividend (a tensor, a number, or None for 1) and divisor."""
    if symbol_of(s.call.layer) == "math.reciprocal":
        return None, s.inputs[0]
    value, y = parameters(s.layer, s.call)["x"].value, s.inputs[-1]
    if isinstance(value, Ref):
        x = s.inputs[0]
        if len(x.shape) != len(y.shape):
            raise NoForm("it divides tensors of different rank")
        return x, y
    if is_dynamic(value) or np.size(value) != 1:
        raise NoForm("its dividend is a constant of several numbers")
    return float(np.ravel(value)[0]), y


DIVISION_OPS: dict[str, Callable[[Sketch], list[Piece]]] = dict.fromkeys(DIVISIONS, divided)
"""By the function of an operation (see `canonical.symbol_of`)."""

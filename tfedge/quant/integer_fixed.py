"""Sums, products, means and changes of scale of 16-bit activations, in the integers of the file.

TFLite's own kernels compute them (tensorflow/lite/kernels/internal/reference: add.h, mul.h,
reduce.h, requantize.h), with a, b, x codes, s the steps, t = 2 * max(s_a, s_b), and `*` as
`integer_ops.fixed_point` computes it, halves away from 0:

    sum:      y = (a * 2^15 * s_a/t + b * 2^15 * s_b/t) * (t / (2^15 * s_y))
    product:  y = (a * b) * (s_a * s_b / s_y)
    mean:     y = sum(x) * (s_x / s_y / n), n the number of values
    quantize: y = x * (s_x / s_y)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfedge._keras import tf
from tfedge.quant import integer_ops as ops
from tfedge.quant.integer_grid import Range, narrow, step, whole

_SHIFT = 2.0**15


class FixedSum:
    """The sum or difference of two tensors.

    Args:
        sources: What quantizes the two.
        goal: What quantizes the output.
    """

    def __init__(self, sources: Sequence[Range], goal: Range) -> None:
        self._reads, self._goal = [_stored(s) for s in sources], _stored(goal)
        self._twice = 2.0 * tf.maximum(*self._reads)

    def inputs(self, values: Sequence[Any]) -> list[Any]:
        """The tensors in steps of t / 2^15, float64."""
        pairs = zip(values, self._reads, strict=True)
        return [ops.fixed_terms(value, read, read / self._twice) for value, read in pairs]

    def outputs(self, sums: Any) -> Any:
        """The output on its grid, float32.

        Args:
            sums: Of `inputs`, float64.
        """
        return ops.fixed_sums(sums, self._twice / (_SHIFT * self._goal), self._goal)


class FixedMultiply:
    """The product of two tensors.

    Args:
        sources: What quantizes the two.
        goal: What quantizes the output.
    """

    def __init__(self, sources: Sequence[Range], goal: Range) -> None:
        self._reads, self._goal = [_stored(s) for s in sources], _stored(goal)

    def inputs(self, values: Sequence[Any]) -> list[Any]:
        """Codes, float64."""
        return [ops.wide_codes(v, read) for v, read in zip(values, self._reads, strict=True)]

    def outputs(self, products: Any) -> Any:
        """The output on its grid, float32.

        Args:
            products: Of `inputs`, float64.
        """
        scale = self._reads[0] * self._reads[1] / self._goal
        return ops.fixed_sums(products, scale, self._goal)


class FixedMean:
    """The mean over all places of a tensor with channels last.

    Args:
        source: What quantizes the tensor.
        goal: What quantizes the mean.
    """

    def __init__(self, source: Range, goal: Range) -> None:
        self._read, self._goal = _stored(source), _stored(goal)
        self._count: Any = None

    def inputs(self, values: Any) -> Any:
        """Codes, float64."""
        self._count = tf.cast(tf.reduce_prod(tf.shape(values)[1:-1]), tf.float64)
        return ops.wide_codes(values, self._read)

    def outputs(self, sums: Any) -> Any:
        """The mean on its grid, float32.

        Args:
            sums: The mean of `inputs`, float64.
        """
        totals = whole(sums * self._count)
        codes = ops.fixed_point(totals, self._read / self._goal, away=True, count=self._count)
        return narrow(codes * self._goal)


def requantized_fixed(values: Any, source: Range, goal: Range) -> Any:
    """Values of one grid on another.

    Args:
        values: float32, any shape.
        source: What quantizes them.
        goal: What quantizes the result (whose ends clip it).
    """
    read, own = _stored(source), _stored(goal)
    return ops.fixed_moved(values, read, read / own, own)


def _stored(source: Range) -> Any:
    """The step as the file stores it, in float32, as float64."""
    return tf.cast(narrow(step(source)), tf.float64)

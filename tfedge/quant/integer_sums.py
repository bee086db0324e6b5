"""Sums, products, means and changes of scale of 8 bits in inference, in the integers of the file.

XNNPACK's kernels (src/microparams-init.c and src/subgraph in its repository), with a, b, x whole
codes less their zero points and s the steps:

    sum:   y = (a * M_a + b * M_b + 2^(k-1)) >> k,  M_a = round(s_a / s_y * 2^k), M_b alike,
           k such that the larger of both has 21 bits
    product: y = round(a * b * m),  m = s_a * s_b / s_y in float32, rounded to even
    mean:  y = round((sum(x) + n * z_x) * m + (z_y - z_x * s_x / s_y)) - z_y,  m = s_x / (s_y * n),
           n the number of values, z the zero points, all in float32, rounded to even
    quantize: y = (x * M + 128) >> 8,  M = round(s_x / s_y * 256)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfedge._keras import tf
from tfedge.quant import integer_ops as ops
from tfedge.quant.integer_grid import Range, narrow, step, whole, zero_point

_MULTIPLIER_BITS = 20  # Of the larger multiplier, less one.


class IntegerSum:
    """The sum or difference of two tensors.

    Args:
        sources: What quantizes the two.
        goal: What quantizes the output.
    """

    def __init__(self, sources: Sequence[Range], goal: Range) -> None:
        self._reads = [narrow(step(s)) for s in sources]
        self._goal = narrow(step(goal))
        shares = [read / self._goal for read in self._reads]
        bits = tf.bitcast(tf.maximum(*shares), tf.int32)
        exponent = tf.bitwise.right_shift(bits, 23) - 127
        # The products have up to 29 bits, which float64 holds.
        self._unit = 2.0 ** tf.cast(_MULTIPLIER_BITS - exponent, tf.float64)
        self._multipliers = [tf.round(tf.cast(s, tf.float64) * self._unit) for s in shares]

    def inputs(self, values: Sequence[Any]) -> list[Any]:
        """Codes times multipliers, float64."""
        pairs = zip(values, self._reads, self._multipliers, strict=True)
        return [ops.multiplied(value, read, factor) for value, read, factor in pairs]

    def outputs(self, sums: Any) -> Any:
        """The output on its grid, float32.

        Args:
            sums: Of `inputs`, float64.
        """
        return ops.shifted(sums, self._unit, self._goal)


class IntegerMultiply:
    """The product of two tensors.

    Args:
        sources: What quantizes the two.
        goal: What quantizes the output.
    """

    def __init__(self, sources: Sequence[Range], goal: Range) -> None:
        self._reads = [narrow(step(s)) for s in sources]
        self._goal = narrow(step(goal))

    def inputs(self, values: Sequence[Any]) -> list[Any]:
        """Codes, float32."""
        return [ops.codes(v, read) for v, read in zip(values, self._reads, strict=True)]

    def outputs(self, products: Any) -> Any:
        """The output on its grid, float32.

        Args:
            products: Of `inputs`, float32.
        """
        scale = self._reads[0] * self._reads[1] / self._goal
        return ops.times(products, scale, self._goal)


class IntegerMean:
    """The mean over all places of a tensor with channels last.

    Args:
        source: What quantizes the tensor.
        goal: What quantizes the mean.
    """

    def __init__(self, source: Range, goal: Range) -> None:
        self._read, self._goal = narrow(step(source)), narrow(step(goal))
        self._zeros = zero_point(source), zero_point(goal)
        self._count: Any = None

    def inputs(self, values: Any) -> Any:
        """Codes, float32."""
        self._count = tf.cast(tf.reduce_prod(tf.shape(values)[1:-1]), tf.float32)
        return ops.codes(values, self._read)

    def outputs(self, sums: Any) -> Any:
        """The mean on its grid, float32.

        Args:
            sums: The mean of `inputs`.
        """
        before, behind = self._zeros
        codes = whole(sums * self._count) + self._count * before
        offset = behind - before * (self._read / self._goal)
        codes = codes * (self._read / (self._goal * self._count)) + offset
        return (whole(codes) - behind) * self._goal


def requantized(values: Any, source: Range, goal: Range) -> Any:
    """Values of one grid on another, as a QUANTIZE computes them.

    Args:
        values: float32, any shape.
        source: What quantizes them.
        goal: What quantizes the result (whose ends clip it).
    """
    read, own = narrow(step(source)), narrow(step(goal))
    multiplier = tf.round(256.0 * (read / own))
    return ops.moved(values, read, multiplier, own)

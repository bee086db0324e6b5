"""Arithmetic on whole codes that many layers share: each function is traced once for all of them.

A copy of these ops in every layer would take longer to trace than the layer. Roundings pass the
gradient straight through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from tfedge._keras import tf

_LEAST_FACTOR = 2.0**-100  # Of what rounds to 0 anyway.
_HALF = 256.0
_SHIFT = 2.0**15
_COARSE = 2048.0
_F, _D = tf.float32, tf.float64

Function = Callable[..., Any]


def _once(*dtypes: Any, samples: tuple[int, int] = (1, 1)) -> Callable[[Function], Function]:
    """Makes a function of tensors that is traced once, whatever their shapes.

    Args:
        *dtypes: Of its arguments. If it gives one tensor, that has the shape of the first.
        samples: The batch that it gives over the one that it takes, as a fraction.
    """
    more, fewer = samples

    def wrap(function: Function) -> Function:
        signature = tf.nest.map_structure(lambda dtype: tf.TensorSpec(None, dtype), list(dtypes))
        run = tf.function(function, input_signature=signature, autograph=False)

        @functools.wraps(function)
        def call(values: Any, *others: Any) -> Any:
            result = run(values, *others)
            known = values.shape.rank is not None and tf.is_tensor(result)
            if known and not tf.executing_eagerly():
                first = [None if n is None else n * more // fewer for n in values.shape[:1]]
                result.set_shape([*first, *values.shape[1:]])
            return result

        return call

    return wrap


@tf.custom_gradient
def _even(values: Any) -> Any:
    return tf.round(values), lambda upstream: upstream


@tf.custom_gradient
def _up(values: Any) -> Any:
    return tf.floor(values + 0.5), lambda upstream: upstream


@tf.custom_gradient
def _away(values: Any) -> Any:
    return tf.sign(values) * tf.floor(tf.abs(values) + 0.5), lambda upstream: upstream


@_once(_F, _F, _D)
def range_step(low: Any, high: Any, levels: Any) -> Any:
    """The step of a range with so many levels, float64; one that is empty is 1 wide."""
    low, high = tf.cast(low, _D), tf.cast(high, _D)
    return tf.stop_gradient(tf.where(high > low, high - low, 1.0) / levels)


def _kernel_step(limit: Any, top: Any) -> Any:
    limit = tf.where(limit > 0.0, limit, 1.0)
    return tf.stop_gradient(tf.cast(limit, _D) / top)


@_once(_F, _F, _F, _F, _F)
def affine(variance: Any, mean: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    """Batch norm in inference as gain * x + shift."""
    gain = tf.math.rsqrt(variance + epsilon) * gamma
    return tf.stop_gradient(gain), tf.stop_gradient(beta - mean * gain)


class Terms(NamedTuple):
    """What a layer with a kernel computes with, by channel or for all.

    Attributes:
        read: The input's step, float32.
        weight: The kernel's steps, float32.
        sign: Of the batch norm's gain.
        bias: Codes of the bias, float64.
        parts: The same as two float32: the second has no digits where sums below 2^24 have theirs,
            so that it is rounded with them where it is added last.
        factor: From sums to codes of the output, float32.
        exact: The same, float64.
        unit: From codes of the output to what the layer gives.
        offset: What is taken from that: the batch norm behind adds it.
    """

    read: Any
    weight: Any
    sign: Any
    bias: Any
    parts: tuple[Any, Any]
    factor: Any
    exact: Any
    unit: Any
    offset: Any


@_once(_D, _D, (_F, _D), (_F, _F), _F)
def product_terms(read: Any, goal: Any, kernel: Any, norm: Any, bias: Any) -> Any:
    """The `Terms` of a layer.

    Args:
        read: Step of the input.
        goal: Step of the output, or 1.
        kernel: Largest magnitudes, and the code that they have.
        norm: Gain and shift of the batch norm behind, or 1 and 0.
        bias: The bias, or 0.
    """
    gain, shift = norm
    weight = _kernel_step(*kernel)
    folded = weight * tf.abs(tf.cast(gain, _D))
    codes = _even(tf.math.divide_no_nan(tf.cast(shift + bias * gain, _D), read * folded))
    upper = _COARSE * tf.stop_gradient(tf.round(codes / _COARSE))
    read, weight, folded, goal = (tf.cast(x, _F) for x in (read, weight, folded, goal))
    exact = tf.cast(read, _D) * tf.cast(folded, _D) / tf.cast(goal, _D)
    return Terms(
        read, weight, tf.sign(gain), codes, (tf.cast(codes - upper, _F), tf.cast(upper, _F)),
        read * folded / goal, exact,
        tf.math.divide_no_nan(goal, gain), tf.math.divide_no_nan(shift, gain),
    )  # fmt: skip


@_once(_F, _F, _F)
def kernel_codes(kernel: Any, step: Any, sign: Any) -> Any:
    """Whole codes of a kernel with its channels last, float32."""
    return _even(kernel / step) * sign


@_once(_F, _F)
def codes(values: Any, step: Any) -> Any:
    """float32 values of a grid as whole codes, float32."""
    return _even(values / step)


@_once(_F, _D)
def wide_codes(values: Any, step: Any) -> Any:
    """float32 values of a grid as whole codes, float64."""
    return _even(tf.cast(values, _D) / step)


@_once(_F, _F, samples=(2, 1))
def halved_codes(values: Any, step: Any) -> Any:
    """Codes of 16 bits as two of 8: upper halves of all samples, then the lower ones, float32."""
    whole = _even(values / step)
    upper = _up(whole / _HALF)
    return tf.concat([upper, whole - _HALF * upper], 0)


@_once(_F, _F)
def on_grid(values: Any, step: Any) -> Any:
    """The nearest values of a grid, float32."""
    return tf.cast(_even(tf.cast(values, _D) / tf.cast(step, _D)), _F) * step


@_once(_F, (_F, _F), _F, _F)
def scaled(sums: Any, bias: Any, factor: Any, step: Any) -> Any:
    """round((sums + bias) * factor) * step, to even, float32; the bias in `Terms.parts`."""
    return _even((_even(sums) + bias[0] + bias[1]) * factor) * step


@_once(_F, (_F, _F), _F, _F)
def real(sums: Any, bias: Any, factor: Any, step: Any) -> Any:
    """(sums + bias) * factor * step, float32; the bias in `Terms.parts`."""
    return (_even(sums) + bias[0] + bias[1]) * (factor * step)


@_once(_F, _F)
def less(values: Any, offset: Any) -> Any:
    """Values - offset, float32."""
    return values - offset


@_once(_F, _F, _F)
def times(products: Any, factor: Any, step: Any) -> Any:
    """round(products * factor) * step, to even, float32."""
    return _even(products * factor) * step


@_once(_F, _F, _D)
def multiplied(values: Any, step: Any, factor: Any) -> Any:
    """Whole codes of float32 values times a factor, float64."""
    return tf.cast(_even(values / step), _D) * factor


@_once(_D, _D, _F)
def shifted(sums: Any, unit: Any, step: Any) -> Any:
    """round(sums / unit) * step, halves up, float32."""
    return tf.cast(_up(sums / unit), _F) * step


@_once(_F, _F, _F, _F)
def moved(values: Any, before: Any, factor: Any, behind: Any) -> Any:
    """Codes of one step times a factor / 256, halves up, in another step, float32."""
    return _up(_even(values / before) * factor / 256.0) * behind


@_once(_F, _D, _D, _F)
def fixed(sums: Any, bias: Any, factor: Any, step: Any) -> Any:
    """`fixed_point` of sums with a bias, times a step, float32."""
    whole = tf.cast(_even(sums), _D) + bias
    return tf.cast(fixed_point(whole, factor), _F) * step


@_once(_F, _D, _D, _F, samples=(1, 2))
def fixed_halves(sums: Any, bias: Any, factor: Any, step: Any) -> Any:
    """`fixed` of sums of `halved_codes`."""
    return tf.cast(fixed_point(_joined(sums) + bias, factor), _F) * step


@_once(_F, _D, _D, _F, samples=(1, 2))
def reduced_halves(sums: Any, bias: Any, factor: Any, step: Any) -> Any:
    """`reduced_point` of sums of `halved_codes` with a bias, times a step, float32."""
    return tf.cast(reduced_point(_joined(sums) + bias, factor), _F) * step


@_once(_F, _D, _D, _F, samples=(1, 2))
def real_halves(sums: Any, bias: Any, factor: Any, step: Any) -> Any:
    """Sums of `halved_codes` with a bias, times factor and step, float32."""
    return tf.cast((_joined(sums) + bias) * factor, _F) * step


@_once(_F, _D, _D)
def fixed_terms(values: Any, step: Any, factor: Any) -> Any:
    """2^15 times the codes of float32 values, by `fixed_point`, halves away from 0, float64."""
    return fixed_point(_even(tf.cast(values, _D) / step) * _SHIFT, factor, away=True)


@_once(_D, _D, _D)
def fixed_sums(sums: Any, factor: Any, step: Any) -> Any:
    """`fixed_point` of float64 sums, halves away from 0, times a step, float32."""
    return tf.cast(fixed_point(sums, factor, away=True) * step, _F)


@_once(_F, _D, _D, _D)
def fixed_moved(values: Any, before: Any, factor: Any, behind: Any) -> Any:
    """Codes of one step by `fixed_point`, halves away from 0, in another step, float32."""
    whole = _even(tf.cast(values, _D) / before)
    return tf.cast(fixed_point(whole, factor, away=True) * behind, _F)


def _joined(halves: Any) -> Any:
    """Sums of `halved_codes` as one, float64."""
    upper, lower = tf.split(tf.cast(_even(halves), _D), 2)
    return _HALF * upper + lower


def fixed_point(values: Any, factor: Any, away: bool = False, count: Any = None) -> Any:
    """Whole numbers times a factor, rounded twice, as TFLite's own kernels compute it.

    The factor is q * 2^(e-31) with 2^30 <= q <= 2^31 (MultiplyByQuantizedMultiplier of gemmlowp and
    ruy):

        y = (((x * 2^max(e, 0) * q + 2^30) >> 31) + 2^(-e-1)) >> -e    (the latter for e < 0)

    For a mean of n values, n in [2^k, 2^(k+1)), q becomes floor(q * 2^k / n) and e becomes e - k.

    Args:
        values: float64, whole, up to 2^53.
        factor: float64, positive.
        away: The last rounding takes halves away from 0 (gemmlowp's), not up (ruy's).
        count: n, float64; None: 1.
    """
    share, exponent = _mantissa(factor)
    if count is not None:
        halves = _mantissa(count)[1] - 1.0
        share = tf.floor(share * 2.0**halves / count)
        exponent -= halves
    before = tf.stop_gradient(share * 2.0 ** (tf.maximum(exponent, 0.0) - 31.0))
    last = _away if away else _up
    return last(_up(values * before) * 2.0 ** tf.minimum(exponent, 0.0))


def reduced_point(values: Any, factor: Any) -> Any:
    """Whole numbers times a factor of 16 bits, as kernels with 64-bit sums compute it.

    With q and e as in `fixed_point` (MultiplyByQuantizedMultiplier for int64):

        y = (x * r + 2^(14-e)) >> (15-e),  r = min((q + 2^15) >> 16, 2^15 - 1)

    Args:
        values: float64, whole, up to 2^38.
        factor: float64, positive.
    """
    share, exponent = _mantissa(factor)
    reduced = tf.minimum(tf.floor(share / 2.0**16 + 0.5), 2.0**15 - 1.0)
    return _up(values * tf.stop_gradient(reduced * 2.0 ** (exponent - 15.0)))


def _mantissa(factor: Any) -> tuple[Any, Any]:
    """What `fixed_point` calls q and e, whole numbers as float64."""
    factor = tf.maximum(factor, _LEAST_FACTOR)
    bits = tf.bitwise.right_shift(tf.bitcast(factor, tf.int64), tf.constant(52, tf.int64))
    exponent = tf.cast(bits - 1022, _D)
    return tf.round(factor * 2.0 ** (31.0 - exponent)), exponent

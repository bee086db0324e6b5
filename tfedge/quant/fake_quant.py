"""Fake quantization with cheap gradients: the ops that quantizers are made of.

Forward, every function here gives exactly what `tf.quantization.fake_quant_with_min_max_vars` (or
its per-channel form) gives. Backward, TensorFlow's own op makes three passes over the tensor, two
of them for gradients of min and max that nobody reads while ranges are not learned; here it is one
pass, by the gradient op of QuantizeAndDequantizeV4, which masks by tensors of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from tfedge._keras import tf

Gradient = Callable[[Any], Any]

_ABOVE_0 = 1e-37  # The least normal float32 or so: a relu has no gradient at 0.
_ROWS = 4  # Of so many rows one is taken for the gradient of a range.


@functools.lru_cache(maxsize=None, typed=True)
def constant(value: Any, dtype: Any = None) -> Any:
    """A small constant that a traced function holds once, however often it is used.

    Python numbers would each become an op of their own, and tracing time goes by ops.

    Args:
        value: A number or a tuple of numbers.
        dtype: A TensorFlow type; None: by the value.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(value, dtype)


def largest(x: Any, axes: int) -> Any:
    """The maximum over the first `axes` axes of `x`."""
    return tf.raw_ops.Max(input=x, axis=constant(tuple(range(axes))))


def smallest(x: Any, axes: int) -> Any:
    """The minimum over the first `axes` axes of `x`."""
    return tf.raw_ops.Min(input=x, axis=constant(tuple(range(axes))))


def plain(x: Any, low: Any, high: Any, bits: int) -> Any:
    """TensorFlow's own op, which the TFLite converter recognises."""
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=bits)


def _window(upstream: Any, x: Any, low: Any, high: Any) -> Any:
    """`upstream` where low <= x <= high, else 0, in one pass."""
    return tf.raw_ops.QuantizeAndDequantizeV4Grad(
        gradients=upstream, input=x, input_min=low, input_max=high
    )[0]


def clipped(x: Any, low: Any, high: Any, bits: int) -> Any:
    """Fake quantization whose gradient passes straight through inside the range.

    dy/dx = 1 for low <= x <= high, else 0. The range itself has no gradient.

    Args:
        x: float32, any shape.
        low: Scalar, at most 0.
        high: Scalar, at least 0.
        bits: 8 or 16.
    """

    @tf.custom_gradient
    def run(x: Any) -> tuple[Any, Gradient]:
        return plain(x, low, high, bits), lambda g: _window(g, x, low, high)

    return run(x)


def clipped_relu(x: Any, high: Any, bits: int) -> Any:
    """Relu and fake quantization to [0, high] in one: the lower end of the range is the relu.

    dy/dx = 1 for 0 < x <= high, else 0.

    Args:
        x: float32, any shape: what enters the relu.
        high: Scalar, at most where the relu itself clips (6 for relu6).
        bits: 8.
    """

    @tf.custom_gradient
    def run(x: Any) -> tuple[Any, Gradient]:
        y = plain(x, constant(0.0), high, bits)
        return y, lambda g: _window(g, x, constant(_ABOVE_0), high)

    return run(x)


def learned(x: Any, low: Any, high: Any, bits: int) -> Any:
    """Fake quantization with gradients for both ends of the range (LSQ+).

    With y the output and w = high - low:
    dy/dx = 1 inside the range, 0 outside;
    dy/dhigh = (y - x) / w inside, 1 above, 0 below;
    dy/dlow = -(y - x) / w inside, 0 above, 1 below.
    These are the gradients of Bhalgat et al. 2020, "LSQ+: Improving low-bit quantization through
    learnable offsets and better initialization", eq. 4 to 7, with step s = w / q and offset low,
    written for the ends. Esser et al. 2020, "Learned Step Size Quantization", eq. 3, scale the
    step's gradient by g = 1 / sqrt(N q), N the elements of a sample and q the number of steps. To
    move an end by the share by which that moves the step, the gradients of the ends are scaled by
    q^2 g (s = w / q enters twice: in the derivative, and in the size of what is moved).

    The sums over x for the ends are taken from every fourth row (axis 1) of tensors of rank 3 and
    more, and scaled up: over all of it they would cost more than the rest together.

    Args:
        x: float32, batch first.
        low: Scalar tensor, at most 0.
        high: Scalar tensor, above 0.
        bits: 8 or 16.
    """

    @tf.custom_gradient
    def run(x: Any, low: Any, high: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any]]]:
        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            dx = _window(upstream, x, low, high)
            return dx, *_ends(upstream, x, (low, high), bits)

        return plain(x, low, high, bits), gradient

    return run(x, low, high)


def learned_relu(x: Any, high: Any, bits: int) -> Any:
    """`clipped_relu` with the gradient of `learned` for the range's high end.

    Args:
        x: float32, batch first: what enters the relu.
        high: Scalar tensor, above 0, at most where the relu itself clips.
        bits: 8.
    """

    @tf.custom_gradient
    def run(x: Any, high: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            dx = _window(upstream, x, constant(_ABOVE_0), high)
            return dx, _ends(upstream, x, (constant(0.0), high), bits)[1]

        return plain(x, constant(0.0), high, bits), gradient

    return run(x, high)


def _ends(upstream: Any, x: Any, ends: tuple[Any, Any], bits: int) -> tuple[Any, Any]:
    """Scaled gradients of (low, high); see `learned`."""
    low, high = ends
    steps = 2.0**bits - 1.0
    size = _sample_size(x)
    if len(x.shape) > 2:
        # tf.gather copies whole rows; a strided slice takes twenty times as long.
        count = x.shape[1] or tf.shape(x)[1]
        rows = tf.range(tf.minimum(_ROWS // 2, count - 1), count, _ROWS)
        x, upstream = tf.gather(x, rows, axis=1), tf.gather(upstream, rows, axis=1)
    dx, below, above = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(
        gradients=upstream, inputs=x, min=low, max=high, num_bits=bits
    )
    error = tf.reduce_sum(dx * (plain(x, low, high, bits) - x)) / (high - low)
    scale = steps**1.5 / tf.sqrt(size) * (size / _sample_size(x))
    return scale * (below - error), scale * (above + error)


def _sample_size(x: Any) -> Any:
    """Elements of one sample, float32."""
    if None not in x.shape[1:]:
        return tf.constant(float(math.prod(x.shape[1:])))
    return tf.cast(tf.size(x) // tf.shape(x)[0], tf.float32)


def straight_through(w: Any, rounded: Any) -> Any:
    """`rounded` with the gradient of the identity to `w`.

    y + (w - w) is y, exactly. A gradient of its own (`tf.custom_gradient`) takes longer to trace.

    Args:
        w: float32, any shape: a kernel.
        rounded: Of the same shape.
    """
    return tf.stop_gradient(rounded) + (w - tf.stop_gradient(w))


def narrow(w: Any, limit: Any, bits: int) -> Any:
    """TensorFlow's own op with the range [-limit, limit], scalar or per channel (last axis)."""
    if len(limit.shape) == 0:
        op = tf.quantization.fake_quant_with_min_max_vars
    else:
        op = tf.quantization.fake_quant_with_min_max_vars_per_channel
    return op(w, -limit, limit, num_bits=bits, narrow_range=True)


def learned_kernel(w: Any, limit: Any, bits: int) -> Any:
    """Symmetric narrow-range fake quantization with a gradient for the limit (LSQ).

    With q the largest code, s = limit / q and y the output: dy/dw = 1 for |w| < limit + s/2, else
    0; dy/dlimit = (y - w) / limit there, else the sign of w. The limit's gradient is scaled by
    q^2 / sqrt(N q), N the weights that share the limit (see `learned`).

    Args:
        w: float32; with a limit per channel the channels are its last axis.
        limit: Scalar or [channels] tensor, above 0.
        bits: 4 or 8.
    """
    top = 2.0 ** (bits - 1) - 1.0
    axes = list(range(len(w.shape) - 1)) if len(limit.shape) else None
    count = math.prod(w.shape) / (limit.shape[0] if axes else 1)

    @tf.custom_gradient
    def run(w: Any, limit: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        y = narrow(w, limit, bits)

        def gradient(upstream: Any) -> tuple[Any, Any]:
            inside = tf.abs(w) < limit * (1.0 + 0.5 / top)
            slope = tf.where(inside, (y - w) / limit, tf.sign(w))
            total = tf.reduce_sum(upstream * slope, axis=axes)
            return tf.where(inside, upstream, 0.0), total * (top**1.5 / math.sqrt(count))

        return y, gradient

    return run(w, limit)

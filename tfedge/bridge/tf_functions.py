"""The table of TensorFlow functions as `keras.ops` calls.

Every entry takes the arguments of the TensorFlow function under their TensorFlow names; an argument
that an entry does not name cannot be expressed and is refused where it is not the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfedge._keras import keras3, tf
from tfedge.bridge.sizes import Sizes, plain_sizes

# Binary functions: TensorFlow name -> name in keras.ops; operators and `math.` alike.
BINARY = {
    "math.add": "add", "math.subtract": "subtract", "math.multiply": "multiply",
    "math.truediv": "true_divide", "math.divide": "true_divide", "math.floordiv": "floor_divide",
    "floor_div": "floor_divide", "math.floormod": "mod", "math.mod": "mod",
    "math.maximum": "maximum", "math.minimum": "minimum", "math.pow": "power",
    "math.divide_no_nan": "divide_no_nan", "math.greater": "greater",
    "math.greater_equal": "greater_equal", "math.less": "less", "math.less_equal": "less_equal",
    "math.equal": "equal", "math.not_equal": "not_equal", "math.logical_and": "logical_and",
    "math.logical_or": "logical_or", "math.logical_xor": "logical_xor",
}  # fmt: skip
_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "div": "true_divide", "floordiv": "floor_divide", "mod": "mod", "pow": "power",
    "matmul": "matmul", "eq": "equal", "ne": "not_equal", "gt": "greater",
    "ge": "greater_equal", "lt": "less", "le": "less_equal", "and": "logical_and",
    "or": "logical_or", "xor": "logical_xor",
}  # fmt: skip
UNARY = {
    "math.negative": "negative", "__operators__.neg": "negative", "math.abs": "absolute",
    "__operators__.abs": "absolute", "__operators__.invert": "logical_not",
    "math.logical_not": "logical_not", "math.asin": "arcsin", "math.acos": "arccos",
    "math.atan": "arctan", "math.asinh": "arcsinh", "math.acosh": "arccosh",
    "math.atanh": "arctanh", "math.is_finite": "isfinite", "math.is_nan": "isnan",
    "math.is_inf": "isinf", "stop_gradient": "stop_gradient", "identity": "copy",
    "zeros_like": "zeros_like", "ones_like": "ones_like", "nn.swish": "silu", "nn.silu": "silu",
    "math.log_sigmoid": "log_sigmoid",
    **{f"math.{n}": n for n in (
        "exp expm1 log log1p sqrt rsqrt square reciprocal sign floor ceil round sin cos tan sinh "
        "cosh tanh erf sigmoid softplus").split()},
    **{f"nn.{n}": n for n in "relu relu6 selu elu softsign softplus sigmoid tanh".split()},
}  # fmt: skip
REDUCTIONS = {
    "math.reduce_mean": "mean", "math.reduce_sum": "sum", "math.reduce_max": "max",
    "math.reduce_min": "min", "math.reduce_prod": "prod", "math.reduce_variance": "var",
    "math.reduce_std": "std", "math.reduce_logsumexp": "logsumexp", "math.reduce_any": "any",
    "math.reduce_all": "all",
}  # fmt: skip


def table_of(ops: Any) -> dict[str, Callable[..., Any]]:
    """TensorFlow function (canonical name) -> function on Keras 3 tensors."""
    table: dict[str, Callable[..., Any]] = {}
    for key, name in BINARY.items():
        table[key] = _binary(getattr(ops, name))
    for key, name in _OPERATORS.items():
        f = getattr(ops, name)
        table[f"__operators__.{key}"] = lambda a, b, f=f: f(a, b)
        table[f"__operators__.r{key}"] = lambda a, b, f=f: f(b, a)
    for key, name in UNARY.items():
        table[key] = _unary(getattr(ops, name))
    for key, name in REDUCTIONS.items():
        table[key] = _reduction(getattr(ops, name))
    return {**table, **_activations(ops), **_shapes(ops), **_images(ops), **_products(ops)}


def _binary(f: Any) -> Callable[..., Any]:
    return lambda x, y: f(x, y)


def _unary(f: Any) -> Callable[..., Any]:
    return lambda x: f(x)


def _reduction(f: Any) -> Callable[..., Any]:
    return lambda x, axis=None, keepdims=False: f(x, axis=_axis(axis), keepdims=bool(keepdims))


def _activations(ops: Any) -> dict[str, Callable[..., Any]]:
    return {
        "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
        "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
        "nn.softmax": lambda logits, axis=None: ops.softmax(logits, axis=_last(axis)),
        "nn.log_softmax": lambda logits, axis=None: ops.log_softmax(logits, axis=_last(axis)),
        "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(
            t, clip_value_min, clip_value_max
        ),
        "math.atan2": lambda y, x: ops.arctan2(y, x),
        "math.squared_difference": lambda x, y: ops.square(ops.subtract(x, y)),
        "math.reciprocal_no_nan": lambda x: ops.divide_no_nan(ops.ones_like(x), x),
        "math.l2_normalize": lambda x, axis=None, epsilon=1e-12, dim=None: ops.multiply(
            x,
            ops.rsqrt(ops.maximum(ops.sum(ops.square(x), _axis(axis), keepdims=True), epsilon)),
        ),
        "nn.bias_add": lambda value, bias, data_format=None: ops.add(
            value, _channel_bias(ops, value, bias, data_format)
        ),
        "where": lambda condition, x=None, y=None: ops.where(condition, x, y),
        "cast": lambda x, dtype: ops.cast(x, tf.as_dtype(dtype).name),
        "math.argmax": lambda input, axis=None, output_type="int64": ops.cast(
            ops.argmax(input, axis=axis or 0), tf.as_dtype(output_type).name
        ),
        "math.argmin": lambda input, axis=None, output_type="int64": ops.cast(
            ops.argmin(input, axis=axis or 0), tf.as_dtype(output_type).name
        ),
        "math.cumsum": lambda x, axis=0: ops.cumsum(x, axis=axis),
        "math.add_n": lambda inputs: _sum_of(ops, inputs),
        "norm": lambda tensor, ord="euclidean", axis=None, keepdims=None, keep_dims=None: ops.norm(
            tensor, None if ord == "euclidean" else ord, _axis(axis), bool(keepdims or keep_dims)
        ),
        "sort": lambda values, axis=-1: ops.sort(values, axis=axis),
        "math.top_k": lambda input, k=1, sorted=True: ops.top_k(input, k, sorted),
        "nn.moments": lambda x, axes, keepdims=False: ops.moments(x, _axis(axes), keepdims),
    }


def _shapes(ops: Any) -> dict[str, Callable[..., Any]]:
    return {
        "reshape": lambda tensor, shape: ops.reshape(tensor, plain_sizes(shape)),
        "transpose": lambda a, perm=None: ops.transpose(a, perm),
        "concat": lambda values, axis: ops.concatenate(values, axis=axis),
        "stack": lambda values, axis=0: ops.stack(values, axis=axis),
        "unstack": lambda value, num=None, axis=0: ops.unstack(value, num, axis),
        "split": lambda value, num_or_size_splits, axis=0: ops.split(
            value, _sections(num_or_size_splits), axis=axis
        ),
        "__operators__.getitem": _getitem,
        "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
        "squeeze": lambda input, axis=None, squeeze_dims=None: ops.squeeze(
            input, axis=_axis(axis if squeeze_dims is None else squeeze_dims)
        ),
        "pad": _pad,
        "tile": lambda input, multiples: ops.tile(input, tuple(multiples)),
        "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis=axis),
        "reverse": lambda tensor, axis: ops.flip(tensor, axis=_axis(axis)),
        "roll": lambda input, shift, axis: ops.roll(input, _axis(shift), axis=_axis(axis)),
        "gather": lambda params, indices, axis=0: ops.take(params, indices, axis=axis or 0),
        "one_hot": _one_hot,
        "slice": lambda input_, begin, size: input_[
            tuple(slice(b, None if s == -1 else b + s) for b, s in zip(begin, size, strict=True))
        ],
        "broadcast_to": lambda input, shape: ops.broadcast_to(input, tuple(shape)),
        "shape": lambda input, out_type=None: Sizes(input.shape),
        "image.flip_left_right": lambda image: ops.flip(image, axis=-2),
        "image.flip_up_down": lambda image: ops.flip(image, axis=-3),
    }


def _images(ops: Any) -> dict[str, Callable[..., Any]]:
    return {
        "nn.depth_to_space": lambda input, block_size, data_format="NHWC": ops.depth_to_space(
            input, block_size, data_format=_data_format(data_format)
        ),
        "nn.space_to_depth": lambda input, block_size, data_format="NHWC": ops.space_to_depth(
            input, block_size, data_format=_data_format(data_format)
        ),
        "image.resize": lambda images, size, method="bilinear", antialias=False: ops.image.resize(
            images, tuple(size), interpolation=_method(method), antialias=antialias,
            data_format="channels_last",
        ),
        "nn.max_pool2d": lambda input, ksize, strides, padding, data_format="NHWC": ops.max_pool(
            input, _window(ksize), _window(strides), padding.lower(), _data_format(data_format)
        ),
        "nn.avg_pool2d": lambda input, ksize, strides, padding, data_format="NHWC": (
            ops.average_pool(
                input, _window(ksize), _window(strides), padding.lower(), _data_format(data_format)
            )
        ),
        "nn.conv1d": _convolution(ops.conv),
        "nn.conv2d": _convolution(ops.conv),
        "nn.conv3d": _convolution(ops.conv),
        "nn.depthwise_conv2d": _convolution(ops.depthwise_conv),
    }  # fmt: skip


def _convolution(function: Callable[..., Any]) -> Callable[..., Any]:
    """TensorFlow 1 and 2 give the same arguments different names."""

    def convolve(
        input: Any = None,
        filters: Any = None,
        strides: Any = 1,
        padding: str = "VALID",
        dilations: Any = None,
        **names: Any,
    ) -> Any:
        input = names.get("value", input)
        filters = names.get("filter", filters)
        strides, dilations = names.get("stride", strides), names.get("rate", dilations)
        layout = _data_format(names.get("data_format") or "NHWC")
        if layout == "channels_first" or not isinstance(padding, str):
            raise TypeError("channels first, or padding by numbers")
        return function(
            input, filters, _window(strides), padding.lower(), layout, _window(dilations or 1)
        )

    return convolve


def _products(ops: Any) -> dict[str, Callable[..., Any]]:
    def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        a = ops.swapaxes(a, -1, -2) if transpose_a else a
        return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)

    return {
        "linalg.matmul": matmul,
        "einsum": lambda equation, inputs: ops.einsum(equation, *inputs),
        "tensordot": lambda a, b, axes: ops.tensordot(a, b, axes=axes),
    }


def _axis(axis: Any) -> Any:
    """An axis or several as int, tuple or None."""
    if axis is None or isinstance(axis, int):
        return axis
    axes = np.ravel(np.asarray(axis)).tolist()
    return axes[0] if np.ndim(axis) == 0 else tuple(axes)


def _last(axis: Any) -> int:
    return -1 if axis is None else axis


def _sections(splits: Any) -> Any:
    if isinstance(splits, (int, np.integer)):
        return int(splits)
    return np.cumsum(list(splits))[:-1].tolist()


def _sum_of(ops: Any, inputs: Sequence[Any]) -> Any:
    total = inputs[0]
    for x in inputs[1:]:
        total = ops.add(total, x)
    return total


def _channel_bias(ops: Any, value: Any, bias: Any, data_format: Any) -> Any:
    if data_format is None or not str(data_format).startswith("NC"):
        return bias
    return ops.reshape(bias, (-1, *(1 for _ in value.shape[2:])))


def _getitem(x: Any, key: Any) -> Any:
    def part(k: Any) -> Any:
        return slice(k["start"], k["stop"], k["step"]) if isinstance(k, dict) else k

    return x[tuple(part(k) for k in key) if isinstance(key, (list, tuple)) else part(key)]


def _pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Any:
    widths = [tuple(int(n) for n in p) for p in np.asarray(paddings)]
    extra = {"constant_values": constant_values} if mode.upper() == "CONSTANT" else {}
    return keras3().ops.pad(tensor, widths, mode.lower(), **extra)


def _one_hot(
    indices: Any,
    depth: int,
    on_value: Any = None,
    off_value: Any = None,
    axis: Any = None,
    dtype: Any = None,
) -> Any:
    name = "float32" if dtype is None else tf.as_dtype(dtype).name
    result = keras3().ops.one_hot(indices, depth, axis=_last(axis), dtype=name)
    low, high = (0 if off_value is None else off_value), (1 if on_value is None else on_value)
    return result if (low, high) == (0, 1) else result * (high - low) + low


def _data_format(name: str) -> str:
    return "channels_first" if name.startswith("NC") else "channels_last"


def _window(size: Any) -> Any:
    """Pool sizes and strides: TensorFlow takes 1, 2 or 4 numbers."""
    if isinstance(size, int):
        return size
    sizes = [int(s) for s in size]
    sizes = sizes[1:3] if len(sizes) == 4 else sizes
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def _method(method: Any) -> str:
    return str(getattr(method, "value", method)).lower().removesuffix("_neighbor")

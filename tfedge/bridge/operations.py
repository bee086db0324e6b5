"""`keras.ops` calls as layers of tf_keras.

Common operations become tf_keras op layers on plain TensorFlow functions (or merge layers), which
save and reload anywhere and which pruning and quantization know. The rest, and calls whose result
would have another dtype in TensorFlow, become `KerasOp`, which runs the Keras 3 operation itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.bridge.arguments import is_array, is_symbolic
from tfedge.bridge.carried import KerasOp, operation_config, require_tensorflow, template
from tfedge.bridge.functions import hard_sigmoid, hard_silu
from tfedge.errors import ModelError
from tfedge.graph.trace import Tensor, flatten, map_structure

Builder = Callable[[Any, str], Callable[..., Any]]


def op_layer(function: Any, name: str) -> Any:
    """The layer that tf_keras makes of a TensorFlow function, under a name."""
    from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda, TFOpLambda

    kind = SlicingOpLambda if function is tf.__operators__.getitem else TFOpLambda
    return kind(function, name=name)


def _plain(function: Any) -> Builder:
    """Positional arguments are passed on; the operation has no parameters."""
    return lambda op, name: op_layer(function, name)


def _merge(layer: str, function: Any) -> Builder:
    """Two tensors of one rank become a merge layer, which QAT knows; anything else a function.

    A merge layer hands on masks and an operation does not, so masked tensors take the function.
    """

    def build(op: Any, name: str) -> Any:
        def call(a: Any, b: Any) -> Any:
            both = is_symbolic(a) and is_symbolic(b)
            masked = any(getattr(t, "_keras_mask", None) is not None for t in (a, b))
            if both and len(a.shape) == len(b.shape) and a.dtype == b.dtype and not masked:
                return getattr(keras.layers, layer)(name=name, dtype=a.dtype.name)([a, b])
            return op_layer(function, name)(a, b)

        return call

    return build


def _with(function: Any, **parameters: str) -> Builder:
    """Parameters of the operation become keyword arguments: keyword=attribute."""

    def build(op: Any, name: str) -> Any:
        layer = op_layer(function, name)
        fixed = {k: getattr(op, a) for k, a in parameters.items()}
        return lambda *args: layer(*args, **fixed)

    return build


def _activation(function: Any) -> Builder:
    return lambda op, name: (
        lambda x: keras.layers.Activation(function, name=name, dtype=x.dtype.name)(x)
    )


def _permutation(order: Callable[[Any, int], Sequence[int]]) -> Builder:
    """Operations that reorder the axes: order(operation, rank)."""
    return lambda op, name: (
        lambda x: op_layer(tf.transpose, name)(x, perm=[int(a) for a in order(op, len(x.shape))])
    )


def _transposed(op: Any, rank: int) -> Sequence[int]:
    return range(rank - 1, -1, -1) if op.axes is None else op.axes


def _swapped(op: Any, rank: int) -> Sequence[int]:
    order = list(range(rank))
    order[op.axis1], order[op.axis2] = order[op.axis2], order[op.axis1]
    return order


def _moved(op: Any, rank: int) -> Sequence[int]:
    probe = np.moveaxis(np.empty(range(2, 2 + rank)), op.source, op.destination)
    return [d - 2 for d in probe.shape]


def _split(op: Any, name: str) -> Any:
    def call(x: Any) -> Any:
        where = op.indices_or_sections
        sizes: Any = where
        if not isinstance(where, (int, np.integer)):
            bounds = [0, *(int(i) for i in where), int(x.shape[op.axis])]
            sizes = [b - a for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        return op_layer(tf.split, name)(x, num_or_size_splits=sizes, axis=op.axis)

    return call


def _getitem(op: Any, name: str) -> Any:
    """The ellipsis is written out: it does not survive every file format."""

    def call(x: Any, key: Any) -> Any:
        parts = list(key) if isinstance(key, tuple) else [key]
        used = sum(p is not None and p is not Ellipsis for p in parts)
        full = [slice(None)] * (len(x.shape) - used)
        where = next((n for n, p in enumerate(parts) if p is Ellipsis), None)
        if where is not None:
            parts[where : where + 1] = full
        return op_layer(tf.__operators__.getitem, name)(x, [_as_dict(p) for p in parts])

    return call


def _as_dict(part: Any) -> Any:
    """tf_keras writes slices down as dicts."""
    if not isinstance(part, slice):
        return part
    return {"start": part.start, "stop": part.stop, "step": part.step}


def _expand_dims(op: Any, name: str) -> Any:
    axes = op.axis if isinstance(op.axis, (list, tuple)) else [op.axis]
    if len(axes) > 1:
        return None
    return lambda x: op_layer(tf.expand_dims, name)(x, axis=int(axes[0]))


def _pad(op: Any, name: str) -> Any:
    def call(x: Any, constant_values: Any = None) -> Any:
        extra = {} if constant_values is None else {"constant_values": constant_values}
        widths = [list(p) for p in op.pad_width]
        return op_layer(tf.pad, name)(x, widths, mode=op.mode.upper(), **extra)

    return call


def _resize(op: Any, name: str) -> Any:
    plain = not (op.crop_to_aspect_ratio or op.pad_to_aspect_ratio)
    if not plain or op.data_format != "channels_last":
        return None
    return lambda x: op_layer(tf.image.resize, name)(
        x, list(op.size), method=op.interpolation, antialias=op.antialias
    )


def _depth_to_space(op: Any, name: str) -> Any:
    if op.data_format != "channels_last":
        return None
    return lambda x: op_layer(tf.nn.depth_to_space, name)(x, op.block_size)


def _axis(function: Any) -> Builder:
    return _with(function, axis="axis", keepdims="keepdims")


# Keras 3 operation -> layer of tf_keras on the operation's tensor arguments.
_TO_TF: dict[str, Builder] = {
    "Add": _merge("Add", tf.math.add),
    "Subtract": _merge("Subtract", tf.math.subtract),
    "Multiply": _merge("Multiply", tf.math.multiply),
    "Maximum": _merge("Maximum", tf.math.maximum),
    "Minimum": _merge("Minimum", tf.math.minimum),
    **{
        name: _plain(function)
        for name, function in {
            "Divide": tf.math.truediv, "TrueDivide": tf.math.truediv, "Power": tf.math.pow,
            "Negative": tf.math.negative, "Absolute": tf.math.abs, "Abs": tf.math.abs,
            "Exp": tf.math.exp, "Expm1": tf.math.expm1, "Log": tf.math.log,
            "Log1p": tf.math.log1p, "Sqrt": tf.math.sqrt, "Rsqrt": tf.math.rsqrt,
            "Square": tf.math.square, "Reciprocal": tf.math.reciprocal, "Sign": tf.math.sign,
            "Round": tf.math.round, "Floor": tf.math.floor, "Ceil": tf.math.ceil,
            "Sin": tf.math.sin, "Cos": tf.math.cos, "Erf": tf.math.erf, "Tanh": tf.math.tanh,
            "Sigmoid": tf.math.sigmoid, "Relu": tf.nn.relu, "Relu6": tf.nn.relu6,
            "Silu": tf.nn.silu, "Softplus": tf.math.softplus, "Softsign": tf.nn.softsign,
            "Selu": tf.nn.selu, "StopGradient": tf.stop_gradient, "Where": tf.where,
            "Greater": tf.math.greater, "GreaterEqual": tf.math.greater_equal,
            "Less": tf.math.less, "LessEqual": tf.math.less_equal, "Equal": tf.math.equal,
            "NotEqual": tf.math.not_equal, "LogicalAnd": tf.math.logical_and,
            "LogicalOr": tf.math.logical_or, "LogicalNot": tf.math.logical_not,
            "Matmul": tf.linalg.matmul, "DivideNoNan": tf.math.divide_no_nan,
        }.items()
    },
    "Gelu": _with(tf.nn.gelu, approximate="approximate"),
    "LeakyRelu": _with(tf.nn.leaky_relu, alpha="negative_slope"),
    "HardSigmoid": _activation(hard_sigmoid),
    "HardSilu": _activation(hard_silu),
    "Softmax": _with(tf.nn.softmax, axis="axis"),
    "LogSoftmax": _with(tf.nn.log_softmax, axis="axis"),
    "Reshape": _with(tf.reshape, shape="newshape"),
    "Transpose": _permutation(_transposed),
    "Swapaxes": _permutation(_swapped),
    "Moveaxis": _permutation(_moved),
    "Concatenate": _with(tf.concat, axis="axis"),
    "Stack": _with(tf.stack, axis="axis"),
    "Split": _split,
    "GetItem": _getitem,
    "ExpandDims": _expand_dims,
    "Squeeze": _with(tf.squeeze, axis="axis"),
    "Mean": _axis(tf.math.reduce_mean),
    "Sum": _axis(tf.math.reduce_sum),
    "Max": _axis(tf.math.reduce_max),
    "Min": _axis(tf.math.reduce_min),
    "Prod": _axis(tf.math.reduce_prod),
    "Var": _axis(tf.math.reduce_variance),
    "Std": _axis(tf.math.reduce_std),
    "Logsumexp": _axis(tf.math.reduce_logsumexp),
    "Any": _axis(tf.math.reduce_any),
    "All": _axis(tf.math.reduce_all),
    "Cast": lambda op, name: lambda x: op_layer(tf.cast, name)(x, dtype=str(op.dtype)),
    "Clip": lambda op, name: lambda x: op_layer(tf.clip_by_value, name)(
        x, clip_value_min=op.x_min, clip_value_max=op.x_max
    ),
    "Pad": _pad,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
}  # fmt: skip


def to_tensorflow(
    op: Any, name: str, args: tuple, kwargs: dict[str, Any], expected: Sequence[Tensor]
) -> Any:
    """Runs a Keras 3 operation on tf_keras tensors.

    Args:
        op: The operation.
        name: Name of the new layer.
        args: Positional arguments with tf_keras tensors in place of Keras 3's.
        kwargs: Keyword arguments.
        expected: Shapes and dtypes of the results in Keras 3.

    Returns:
        The symbolic results.

    Raises:
        ModelError: An operation that cannot be rebuilt (a user's own, or one on functions).
    """
    if not type(op).__module__.startswith("keras.src."):
        raise ModelError(
            f"the operation '{op.name}' ({type(op).__name__}) is not one of Keras 3",
            type(op).__module__,
            "Put it into a layer and pass a tf_keras class for that layer in custom_objects",
        )
    build = _TO_TF.get(type(op).__name__)
    native = build(op, name) if build and _keeps(args) and _positional(kwargs) else None
    if native is not None:
        try:
            result = native(*map_structure(_plain_array, args))
        except (TypeError, ValueError, tf.errors.InvalidArgumentError):
            result = None  # TensorFlow does not promote dtypes as Keras 3 does
        if result is not None and _as_expected(result, expected):
            return result
    return _carried(op, name, (args, kwargs), expected)


def _plain_array(value: Any) -> Any:
    """Tensors and variables that stand for constants as arrays."""
    return np.asarray(value) if is_array(value) and not is_symbolic(value) else value


def _positional(kwargs: dict[str, Any]) -> bool:
    return all(v is None for v in kwargs.values())


def _keeps(args: tuple) -> bool:
    """Whether the constants survive a file, where arrays become lists of numbers."""
    arrays: list[Any] = []
    map_structure(lambda v: arrays.append(v) if is_array(v) and not is_symbolic(v) else None, args)
    return all(np.asarray(v).dtype in (np.float32, np.bool_) for v in arrays)


def _as_expected(result: Any, expected: Sequence[Tensor]) -> bool:
    flat = flatten(result)
    if len(flat) != len(expected):
        return False
    for tensor, spec in zip(flat, expected, strict=True):
        shape = tensor.shape.as_list() if tensor.shape.rank is not None else None
        if tensor.dtype.name != spec.dtype or shape is None or len(shape) != len(spec.shape):
            return False
        if any(w is not None and g != w for g, w in zip(shape, spec.shape, strict=True)):
            return False
    return True


def _carried(
    op: Any, name: str, call: tuple[tuple, dict[str, Any]], expected: Sequence[Tensor]
) -> Any:
    require_tensorflow(op.name)
    arguments, tensors = template(*call, name)
    shapes = [list(spec.shape) for spec in expected]
    layer = KerasOp(operation_config(op), arguments=arguments, shapes=shapes, name=name)
    return layer(tensors if len(tensors) > 1 else tensors[0])

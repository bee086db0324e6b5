"""`keras.ops` calls as TensorFlow op layers of tf_keras, and back.

Common operations become tf_keras op layers on plain TensorFlow functions, which save and reload
anywhere. The rest become `KerasOp`, a layer that runs the Keras 3 operation itself.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge._keras import keras, keras3, tf
from tfedge.bridge.functions import hard_sigmoid, hard_silu
from tfedge.errors import ModelError


@keras.saving.register_keras_serializable("tfedge")
class KerasOp(keras.layers.Layer):
    """Runs one Keras 3 operation on TensorFlow tensors.

    Args:
        module: Module of the operation's class.
        op: Name of the class.
        config: The operation's config.
        **kwargs: As for any layer.
    """

    def __init__(self, module: str, op: str, config: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        keras3()
        self.module, self.op_name, self.op_config = module, op, dict(config)
        self.operation = getattr(importlib.import_module(module), op).from_config(dict(config))

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The operation's own call."""
        return self.operation.call(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """All arguments of the constructor."""
        own = {"module": self.module, "op": self.op_name, "config": self.op_config}
        return {**super().get_config(), **own}


def _layer(function: Any, name: str) -> Any:
    from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

    return TFOpLambda(function, name=name)


def _plain(function: Any) -> Callable[[Any, str], Any]:
    """Positional arguments are passed on; the operation has no parameters."""
    return lambda op, name: _layer(function, name)


def _merge(layer: str, function: Any) -> Callable[[Any, str], Any]:
    """Two tensors of one rank become a merge layer, which QAT knows; anything else a function."""

    def build(op: Any, name: str) -> Any:
        def call(a: Any, b: Any) -> Any:
            ranks = [len(v.shape) if hasattr(v, "node") else None for v in (a, b)]
            if None not in ranks and ranks[0] == ranks[1]:
                return getattr(keras.layers, layer)(name=name)([a, b])
            return _layer(function, name)(a, b)

        return call

    return build


def _with(function: Any, **parameters: str) -> Callable[[Any, str], Any]:
    """Parameters of the operation become keyword arguments: keyword=attribute."""

    def build(op: Any, name: str) -> Any:
        layer = _layer(function, name)
        fixed = {k: getattr(op, a) for k, a in parameters.items()}
        return lambda *args: layer(*args, **fixed)

    return build


def _activation(function: Any) -> Callable[[Any, str], Any]:
    return lambda op, name: keras.layers.Activation(function, name=name)


def _transpose(op: Any, name: str) -> Any:
    axes = op.axes if op.axes is None else [int(a) for a in op.axes]
    return lambda x: _layer(tf.transpose, name)(x, perm=axes)


def _swapaxes(op: Any, name: str) -> Any:
    def call(x: Any) -> Any:
        order, a, b = list(range(len(x.shape))), op.axis1, op.axis2
        order[a], order[b] = order[b], order[a]
        return _layer(tf.transpose, name)(x, perm=order)

    return call


def _moveaxis(op: Any, name: str) -> Any:
    def call(x: Any) -> Any:
        probe = np.moveaxis(np.empty(range(2, 2 + len(x.shape))), op.source, op.destination)
        return _layer(tf.transpose, name)(x, perm=[d - 2 for d in probe.shape])

    return call


def _split(op: Any, name: str) -> Any:
    def call(x: Any) -> Any:
        where = op.indices_or_sections
        sizes: Any = where
        if not isinstance(where, (int, np.integer)):
            bounds = [0, *(int(i) for i in where), int(x.shape[op.axis])]
            sizes = [b - a for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        return _layer(tf.split, name)(x, num_or_size_splits=sizes, axis=op.axis)

    return call


def _getitem(op: Any, name: str) -> Any:
    return lambda x, key: x[key]


def _expand_dims(op: Any, name: str) -> Any:
    axes = op.axis if isinstance(op.axis, (list, tuple)) else [op.axis]
    if len(axes) > 1:
        return _wrapped(op, name)
    return lambda x: _layer(tf.expand_dims, name)(x, axis=int(axes[0]))


def _cast(op: Any, name: str) -> Any:
    return lambda x: _layer(tf.cast, name)(x, dtype=str(op.dtype))


def _clip(op: Any, name: str) -> Any:
    return lambda x: _layer(tf.clip_by_value, name)(
        x, clip_value_min=op.x_min, clip_value_max=op.x_max
    )


def _wrapped(op: Any, name: str) -> Any:
    config = {k: v for k, v in op.get_config().items() if k != "name"}
    return KerasOp(type(op).__module__, type(op).__name__, config, name=name)


def _axis(function: Any) -> Callable[[Any, str], Any]:
    return _with(function, axis="axis", keepdims="keepdims")


# Keras 3 operation -> layer of tf_keras on the operation's tensor arguments.
_TO_TF: dict[str, Callable[[Any, str], Any]] = {
    "Add": _merge("Add", tf.math.add),
    "Subtract": _merge("Subtract", tf.math.subtract),
    "Multiply": _merge("Multiply", tf.math.multiply),
    "Divide": _plain(tf.math.truediv),
    "TrueDivide": _plain(tf.math.truediv),
    "Maximum": _merge("Maximum", tf.math.maximum),
    "Minimum": _merge("Minimum", tf.math.minimum),
    "Power": _plain(tf.math.pow),
    "Negative": _plain(tf.math.negative),
    "Absolute": _plain(tf.math.abs),
    "Abs": _plain(tf.math.abs),
    "Exp": _plain(tf.math.exp),
    "Log": _plain(tf.math.log),
    "Sqrt": _plain(tf.math.sqrt),
    "Rsqrt": _plain(tf.math.rsqrt),
    "Square": _plain(tf.math.square),
    "Tanh": _plain(tf.math.tanh),
    "Sigmoid": _plain(tf.math.sigmoid),
    "Relu": _plain(tf.nn.relu),
    "Relu6": _plain(tf.nn.relu6),
    "Silu": _plain(tf.nn.silu),
    "Softplus": _plain(tf.math.softplus),
    "Softsign": _plain(tf.nn.softsign),
    "Selu": _plain(tf.nn.selu),
    "Gelu": _with(tf.nn.gelu, approximate="approximate"),
    "LeakyRelu": _with(tf.nn.leaky_relu, alpha="negative_slope"),
    "HardSigmoid": _activation(hard_sigmoid),
    "HardSilu": _activation(hard_silu),
    "Softmax": _with(tf.nn.softmax, axis="axis"),
    "LogSoftmax": _with(tf.nn.log_softmax, axis="axis"),
    "Reshape": _with(tf.reshape, shape="newshape"),
    "Transpose": _transpose,
    "Swapaxes": _swapaxes,
    "Moveaxis": _moveaxis,
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
    "Cast": _cast,
    "Clip": _clip,
    "Matmul": _plain(tf.linalg.matmul),
}


def tf_operation(op: Any, name: str) -> Any:
    """A callable on tf_keras tensors that does what a Keras 3 operation does.

    Args:
        op: The operation.
        name: Name of the new layer.
    """
    return _TO_TF.get(type(op).__name__, _wrapped)(op, name)


def _reverse() -> dict[str, Callable[..., Any]]:
    """TensorFlow function (canonical name) -> function of Keras 3 tensors, by argument names."""
    ops = keras3().ops
    binary = {
        "math.add": ops.add,
        "__operators__.add": ops.add,
        "math.subtract": ops.subtract,
        "__operators__.sub": ops.subtract,
        "math.multiply": ops.multiply,
        "__operators__.mul": ops.multiply,
        "math.truediv": ops.true_divide,
        "math.divide": ops.true_divide,
        "__operators__.truediv": ops.true_divide,
        "math.maximum": ops.maximum,
        "math.minimum": ops.minimum,
        "math.pow": ops.power,
        "__operators__.pow": ops.power,
        "math.squared_difference": lambda x, y: ops.square(ops.subtract(x, y)),
    }
    unary = {
        "math.negative": ops.negative,
        "__operators__.neg": ops.negative,
        "math.abs": ops.absolute,
        "math.exp": ops.exp,
        "math.log": ops.log,
        "math.sqrt": ops.sqrt,
        "math.rsqrt": ops.rsqrt,
        "math.square": ops.square,
        "math.tanh": ops.tanh,
        "nn.tanh": ops.tanh,
        "math.sigmoid": ops.sigmoid,
        "nn.sigmoid": ops.sigmoid,
        "nn.relu": ops.relu,
        "nn.relu6": ops.relu6,
        "nn.silu": ops.silu,
        "math.softplus": ops.softplus,
        "nn.softsign": ops.softsign,
        "nn.selu": ops.selu,
    }
    reduce = {
        "math.reduce_mean": ops.mean,
        "math.reduce_sum": ops.sum,
        "math.reduce_max": ops.max,
        "math.reduce_min": ops.min,
    }
    table: dict[str, Callable[..., Any]] = {}
    for key, f in binary.items():
        table[key] = lambda f=f, **a: f(*_values(a, "x", "y"))
    for key, f in unary.items():
        table[key] = lambda f=f, **a: f(_values(a)[0])
    for key, f in reduce.items():
        table[key] = lambda f=f, **a: f(
            a["input_tensor"], axis=a.get("axis"), keepdims=bool(a.get("keepdims"))
        )
    return {**table, **_reverse_shapes(ops)}


def _reverse_shapes(ops: Any) -> dict[str, Callable[..., Any]]:
    return {
        "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
        "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
        "nn.softmax": lambda logits, axis=None: ops.softmax(logits, axis=_last(axis)),
        "nn.log_softmax": lambda logits, axis=None: ops.log_softmax(logits, axis=_last(axis)),
        "reshape": lambda tensor, shape: ops.reshape(tensor, tuple(shape)),
        "transpose": lambda a, perm=None: ops.transpose(a, perm),
        "concat": lambda values, axis: ops.concatenate(values, axis=axis),
        "stack": lambda values, axis=0: ops.stack(values, axis=axis),
        "split": _split_back,
        "__operators__.getitem": _getitem_back,
        "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
        "squeeze": lambda input, axis=None: ops.squeeze(input, axis=axis),
        "compat.v1.squeeze": _squeeze_back,
        "cast": lambda x, dtype: ops.cast(x, tf.as_dtype(dtype).name),
        "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(
            t, clip_value_min, clip_value_max
        ),
        "linalg.matmul": _matmul_back,
    }


def _last(axis: Any) -> int:
    return -1 if axis is None else axis


def _values(arguments: dict[str, Any], *names: str) -> list[Any]:
    """The tensor arguments: by these names, else the first ones."""
    if names and all(n in arguments for n in names):
        return [arguments[n] for n in names]
    return [v for k, v in arguments.items() if k != "name"]


def _split_back(value: Any, num_or_size_splits: Any, axis: int = 0) -> Any:
    where = num_or_size_splits
    if not isinstance(where, (int, np.integer)):
        where = np.cumsum(list(where))[:-1].tolist()
    return keras3().ops.split(value, where, axis=axis)


def _getitem_back(x: Any, key: Any) -> Any:
    def part(k: Any) -> Any:
        return slice(k["start"], k["stop"], k["step"]) if isinstance(k, dict) else k

    return x[tuple(part(k) for k in key) if isinstance(key, (list, tuple)) else part(key)]


def _squeeze_back(input: Any, axis: Any = None, squeeze_dims: Any = None) -> Any:  # noqa: A002
    return keras3().ops.squeeze(input, axis=axis if squeeze_dims is None else squeeze_dims)


def _matmul_back(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    ops = keras3().ops
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def keras_operation(layer: Any, name: str) -> Callable[..., Any]:
    """A callable on Keras 3 tensors that does what a tf_keras op layer does.

    Args:
        layer: A TensorFlow op layer, or a `KerasOp`.
        name: Name of the new operation, for the message.

    Raises:
        ModelError: Keras 3 has no operation for this TensorFlow function.
    """
    if isinstance(layer, KerasOp):
        return type(layer.operation).from_config(
            {**layer.op_config, "name": name.replace("/", "_")}
        )
    symbol = layer.get_config()["function"]
    function = _reverse().get(symbol)
    if function is None:
        raise ModelError(
            f"the TensorFlow function of layer '{name}' has no counterpart in keras.ops",
            f"tf.{symbol}",
            "Wrap it in a layer and pass a Keras 3 class for it in custom_objects",
        )
    signature = None if symbol == "__operators__.getitem" else inspect.signature(layer.function)

    def call(*args: Any, **kwargs: Any) -> Any:
        if signature is None:
            return function(*args[:2], **{k: v for k, v in kwargs.items() if k == "key"})
        bound = signature.bind(*args, **kwargs).arguments
        return function(**{k: v for k, v in bound.items() if k != "name"})

    return call

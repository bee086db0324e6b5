"""The normal form of a model: nested models written out, operations as layers, batch norms folded.

Operations written as functions (`a + b`, `tf.nn.relu(x)`, `keras.ops.reshape(x, ...)`) become the
Keras layer that computes the same, where there is one; what has none stays an operation. Whoever
needs layers (quantization-aware training, converters' rules) then meets one spelling of each thing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tfedge._keras import library
from tfedge.graph.arguments import axes_of, is_dynamic, parameters
from tfedge.graph.folding import find_foldable, folded
from tfedge.graph.rewrite import Piece, Rewriter, as_is
from tfedge.graph.trace import Call, Ref, flatten, trace


def canonical(model: Any, fold_batch_norm: bool = False) -> Any:
    """Brings a model into its normal form.

    Args:
        model: A built functional or sequential model of either Keras; it is not changed.
        fold_batch_norm: Fold every batch norm into the linear layer before it, where only the
            batch norm reads that. For inference: the statistics no longer move.

    Returns:
        A functional model of the same Keras with equal outputs, the same input names, output names
        and layer names (a folded batch norm is gone).

    Raises:
        ModelError: The model cannot be traced.
    """
    norms: dict[str, Call] = {}

    def expand(site: Rewriter, call: Call) -> list[Piece]:
        if any(norm is call for norm in norms.values()):
            return []
        if call.name in norms:
            return folded(call, norms[call.name])
        return unwrap(site, call) or as_is(site, call)

    site = Rewriter(trace(model), expand)
    if fold_batch_norm:
        norms.update(find_foldable(site))
    return site.run()


def unwrap(site: Rewriter, call: Call) -> list[Piece]:
    """The layer that computes what an operation does; empty where the call is a layer or has none.

    Args:
        site: The rewriter of the graph.
        call: The call.
    """
    make = UNWRAP.get(symbol_of(call.layer))
    if make is None:
        return []
    shapes = [site.graph.tensors[i] for i in (*call.inputs, *call.outputs)]
    if len(call.outputs) != 1 or not all(t.dtype.startswith(("float", "bfloat")) for t in shapes):
        return []
    return make(_Operation(site, call)) or []


def symbol_of(layer: Any) -> str:
    """The operation's name in this module's table, or ""."""
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        # Some functions of TensorFlow 2 arrive as the ones of version 1 that they call.
        return str(layer.get_config()["function"]).removeprefix("compat.v1.")
    return "" if hasattr(layer, "trainable") else type(layer).__name__


class _Operation:
    """One call of an operation as the makers below see it."""

    def __init__(self, site: Rewriter, call: Call) -> None:
        self.call, self.layer, self.name = call, call.layer, call.name
        self.layers = library(site.graph.flavour).layers
        tensors = site.graph.tensors
        self.in_shapes = [tensors[i].shape for i in call.inputs]
        self.out_shape = tensors[call.outputs[0]].shape
        self.dtype = tensors[call.outputs[0]].dtype
        self._parameters = parameters(call.layer, call)

    def get(self, *names: str) -> Any:
        """A parameter by any of its names; None where it has none."""
        return next((self._parameters[n].value for n in names if n in self._parameters), None)

    def made(self, kind: str, *args: Any, takes: str = "tensor", **kwargs: Any) -> list[Piece]:
        """A chain of one layer of this class, under the operation's name."""
        layer = getattr(self.layers, kind)(*args, **kwargs, name=self.name, dtype=self.dtype)
        return [Piece(layer, None, self.name, takes)]

    def constants(self) -> list[Any]:
        """The operands that are no tensors."""
        return [a for a in self.call.args if not isinstance(a, Ref)]


def _activation(name: str) -> Callable[[_Operation], list[Piece]]:
    return lambda op: op.made("Activation", name)


def _relu(op: _Operation) -> list[Piece]:
    return op.made("ReLU")


def _relu6(op: _Operation) -> list[Piece]:
    return op.made("ReLU", 6.0)


def _gelu(op: _Operation) -> list[Piece]:
    """The layers' gelu is the exact one."""
    return [] if op.get("approximate") else op.made("Activation", "gelu")


def _elu(op: _Operation) -> list[Piece]:
    return op.made("Activation", "elu") if op.get("alpha") in (None, 1, 1.0) else []


def _leaky_relu(op: _Operation) -> list[Piece]:
    slope = op.get("alpha", "negative_slope")
    return op.made("LeakyReLU", 0.2 if slope is None else float(slope))


def _softmax(op: _Operation) -> list[Piece]:
    axis = op.get("axis")
    return op.made("Softmax", -1 if axis is None else axis)


def _clip(op: _Operation) -> list[Piece]:
    low, high = op.get("x_min", "clip_value_min"), op.get("x_max", "clip_value_max")
    plain = all(isinstance(v, (int, float)) for v in (low, high))
    return op.made("ReLU", float(high)) if plain and low == 0 and high > 0 else []


def _merge(kind: str, constant: Callable[..., tuple[Any, Any]] | None = None) -> Callable:
    """Two tensors of one rank become a merge layer; a tensor and a constant a Rescaling.

    `constant(c, first)` gives scale and offset, `first` where the constant is the first operand.
    """

    def make(op: _Operation) -> list[Piece]:
        if len(op.in_shapes) == 2 and len(set(map(len, op.in_shapes))) == 1:
            return op.made(kind, takes="list")
        values = op.constants()
        if constant is None or len(op.in_shapes) != 1 or len(values) != 1:
            return []
        value = np.asarray(values[0])
        if value.dtype == object or not _fits(value.shape, op.in_shapes[0], op.out_shape):
            return []
        scale, offset = constant(value.astype("float64"), not isinstance(op.call.args[0], Ref))
        return op.made("Rescaling", _plain(scale), _plain(offset))

    return make


def _fits(constant: tuple, shape: tuple, out: tuple) -> bool:
    """A scalar, or one number a channel."""
    return shape == out and (constant == () or constant == (1,) or constant == (shape[-1],))


def _plain(value: Any) -> Any:
    """A float or list of floats, which a config can hold."""
    array = np.asarray(value, "float64")
    return float(array.reshape(-1)[0]) if array.size == 1 else array.tolist()


def _negative(op: _Operation) -> list[Piece]:
    return op.made("Rescaling", -1.0)


def _static(shape: tuple) -> tuple[int, ...] | None:
    """A Reshape target of a shape without its batch; None where two axes are free."""
    dims = tuple(-1 if d is None else int(d) for d in shape[1:])
    return dims if dims.count(-1) < 2 else None


def _reshape(op: _Operation) -> list[Piece]:
    """Reshape, expand_dims and squeeze that leave the batch alone."""
    target, before = _static(op.out_shape), op.in_shapes[0]
    if target is None or not op.out_shape or op.out_shape[0] != before[0]:
        return []
    given = op.get("newshape", "shape")
    if given is None:  # expand_dims, squeeze
        axes = op.get("axis", "squeeze_dims")
        rank = max(len(before), len(op.out_shape))
        return [] if axes is None or 0 in axes_of(axes, rank) else op.made("Reshape", target)
    known = None not in before[1:] and -1 not in target and not is_dynamic(given)
    return op.made("Reshape", target) if known and prod(before[1:]) == prod(target) else []


def _transpose(op: _Operation) -> list[Piece]:
    order = op.get("axes", "perm")
    if order is None or is_dynamic(order) or int(order[0]) != 0:
        return []
    return op.made("Permute", tuple(int(a) for a in order[1:]))


def _concat(op: _Operation) -> list[Piece]:
    axis, rank = op.get("axis"), len(op.out_shape)
    tensors = [v for v in flatten(op.call.args[0]) if isinstance(v, Ref)] if op.call.args else []
    if axis is None or is_dynamic(axis) or int(axis) % rank == 0:
        return []
    if len(tensors) != len(op.in_shapes) or len(tensors) < 2:
        return []
    return op.made("Concatenate", int(axis), takes="list")


def _pool(kind: str) -> Callable[[_Operation], list[Piece]]:
    """A mean or maximum over exactly the spatial axes."""

    def make(op: _Operation) -> list[Piece]:
        rank = len(op.in_shapes[0])
        axes = axes_of(op.get("axis"), rank)
        if rank not in (3, 4, 5) or sorted(axes) != list(range(1, rank - 1)):
            return []
        keepdims = len(op.out_shape) == rank
        return op.made(f"Global{kind}Pooling{rank - 2}D", "channels_last", keepdims=keepdims)

    return make


def _pad(op: _Operation) -> list[Piece]:
    """Zeros around the spatial axes."""
    widths, rank = op.get("pad_width", "paddings"), len(op.in_shapes[0])
    mode, value = op.get("mode"), op.get("constant_values")
    if (
        is_dynamic(widths)
        or str(mode or "constant").lower() != "constant"
        or value not in (None, 0)
    ):
        return []
    table = np.broadcast_to(np.asarray(widths), (rank, 2)).tolist()
    if rank not in (3, 4) or any(table[0]) or any(table[-1]):
        return []
    pads = tuple(tuple(int(n) for n in row) for row in table[1:-1])
    if rank == 3:
        return op.made("ZeroPadding1D", pads[0])
    return op.made("ZeroPadding2D", pads, data_format="channels_last")


_BY_NAME: dict[str, Callable[[_Operation], list[Piece]]] = {
    "relu": _relu,
    "relu6": _relu6,
    **{n: _activation(n) for n in ("sigmoid", "tanh", "softplus", "softsign", "selu")},
    "silu": _activation("swish"),
    "gelu": _gelu,
    "elu": _elu,
    "leaky_relu": _leaky_relu,
    "softmax": _softmax,
    "add": _merge("Add", lambda c, first: (1.0, c)),
    "subtract": _merge("Subtract", lambda c, first: (-1.0, c) if first else (1.0, -c)),
    "multiply": _merge("Multiply", lambda c, first: (c, 0.0)),
    "maximum": _merge("Maximum"),
    "minimum": _merge("Minimum"),
    "negative": _negative,
    "clip": _clip,
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "mean": _pool("Average"),
    "max": _pool("Max"),
    "pad": _pad,
}


def _divide(op: _Operation) -> list[Piece]:
    """X / c becomes a Rescaling; c / x and x / y have no layer."""
    if len(op.in_shapes) != 1 or not op.call.args or not isinstance(op.call.args[0], Ref):
        return []
    return _merge("", lambda c, first: (1.0 / c, 0.0))(op)


# TensorFlow functions and Keras 3 operation classes by name -> maker of the layer.
UNWRAP: dict[str, Callable[[_Operation], list[Piece]]] = {
    **{f"nn.{n}": _BY_NAME[n] for n in "relu relu6 sigmoid tanh softsign selu silu gelu".split()},
    **{f"math.{n}": _BY_NAME[n] for n in "sigmoid tanh softplus negative".split()},
    **{f"math.{n}": _BY_NAME[n] for n in "add subtract multiply maximum minimum".split()},
    "nn.elu": _elu,
    "nn.leaky_relu": _leaky_relu,
    "nn.softmax": _softmax,
    "__operators__.add": _BY_NAME["add"],
    "__operators__.radd": _BY_NAME["add"],
    "__operators__.mul": _BY_NAME["multiply"],
    "__operators__.sub": _BY_NAME["subtract"],
    "__operators__.neg": _negative,
    "__operators__.truediv": _divide,
    "math.truediv": _divide,
    "math.divide": _divide,
    "clip_by_value": _clip,
    "reshape": _reshape,
    "expand_dims": _reshape,
    "squeeze": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "math.reduce_mean": _BY_NAME["mean"],
    "math.reduce_max": _BY_NAME["max"],
    "pad": _pad,
    "Relu": _relu,
    "Relu6": _relu6,
    **{n.title(): _BY_NAME[n] for n in "sigmoid tanh softplus softsign selu gelu elu".split()},
    "Silu": _activation("silu"),
    "HardSigmoid": _activation("hard_sigmoid"),
    "HardSilu": _activation("hard_silu"),
    "LeakyRelu": _leaky_relu,
    "Softmax": _softmax,
    **{n.title(): _BY_NAME[n] for n in "add subtract multiply maximum minimum negative".split()},
    "Divide": _divide,
    "TrueDivide": _divide,
    "Clip": _clip,
    "Reshape": _reshape,
    "ExpandDims": _reshape,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Concatenate": _concat,
    "Mean": _BY_NAME["mean"],
    "Max": _BY_NAME["max"],
    "Pad": _pad,
}

"""Calls whose result depends on how many channels there are, evaluated over the kept ones.

A masked channel is zero where it is produced, but a layer norm still divides by the number of all
channels, and a softmax still gives the zeros a share. While a model is pruned in `fit`, such layers
and operations compute what they will compute when the channels are gone, so that the masked model
is the stripped one. The formulas here are those of Keras, with sums over the kept channels k:
mean = sum(k x) / sum(k), variance = sum(k (x - mean)^2) / sum(k).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.graph import Analysis, Call, Marks
from tfedge.graph.trace import flatten, map_structure

_BIG = 1e9  # taken off where a channel must not win a maximum or share a softmax


@dataclass
class _Patch:
    """A call that is evaluated otherwise: what its inputs carry, and their masks."""

    marks: list[Marks]
    keeps: list[Any]


class CountedCalls:
    """Replaces the `call` of counting layers while they are pruned.

    Args:
        analysis: The analysed model, whose own layers are changed until `remove`.

    Attributes:
        left: Names of counting layers for which there is no formula; there the masked model
            differs from the stripped one.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._patches: list[_Patch] = []
        self._before: list[tuple[Any, Any]] = []
        self.left: list[str] = []
        counted = {name for _, name in analysis.table.counting}
        done: set[str] = set()
        for call in analysis.graph.calls:
            marks = [analysis.marks[i] for i in call.inputs]
            kind = kind_of(call.layer)
            if call.name in done or not any(m.axes for m in marks):
                continue
            if call.name not in counted and kind not in ZERO_IS_NONE:
                continue
            done.add(call.name)
            rule = KEPT.get(kind) or ZERO_IS_NONE.get(kind)
            if rule is None:
                self.left.append(call.name)
            else:
                self._install(call, marks, rule)

    def _install(self, call: Call, marks: list[Marks], rule: Callable) -> None:
        keeps = [tf.Variable(np.ones(_shape(m), "float32"), trainable=False) for m in marks]
        layer, own = call.layer, vars(call.layer).get("call")
        original = layer.call
        self._patches.append(_Patch(marks, keeps))
        self._before.append((layer, own))

        def kept(*args: Any, **kwargs: Any) -> Any:
            return rule(layer, original, keeps, args, kwargs)

        object.__setattr__(layer, "call", kept)

    def update(self, dead: list[np.ndarray]) -> None:
        """Says which channels are held at zero; bool array [channels] by group."""
        group_of, channel_of = self._analysis.group_of, self._analysis.channel_of
        alive = np.ones(len(group_of) + 1, "float32")  # the last one stands for the label -1
        for number, channels in enumerate(dead):
            own = np.flatnonzero(group_of == number)
            alive[own] = ~channels[channel_of[own]]
        for patch in self._patches:
            for marks, keep in zip(patch.marks, patch.keeps, strict=True):
                value = np.ones(_shape(marks), "float32")
                for plane in marks.planes:
                    value = value * alive[plane]
                keep.assign(value)

    def remove(self) -> None:
        """Gives the layers their own `call` back."""
        for layer, own in reversed(self._before):
            if own is None:
                object.__delattr__(layer, "call")
            else:
                object.__setattr__(layer, "call", own)
        self._before, self._patches = [], []


def _shape(marks: Marks) -> tuple[int, ...]:
    """Shape of a mask: that of the tensor where it is labelled, 1 elsewhere."""
    return tuple(max((p.shape[a] for p in marks.planes), default=1) for a in range(marks.rank))


def kind_of(layer: Any) -> str:
    """Class name of a layer or Keras 3 operation, or the name of a TensorFlow function."""
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return str(layer.get_config()["function"])
    name = type(layer).__name__
    if name == "Activation":
        return str(getattr(layer.activation, "__name__", ""))
    return name


def _axes(value: Any, rank: int) -> list[int]:
    if value is None:
        return list(range(rank))
    listed = value if hasattr(value, "__iter__") else [value]
    return sorted(int(a) % rank for a in listed)


def _moments(x: Any, keep: Any, axes: list[int]) -> tuple[Any, Any, Any]:
    """(mask over the axes, mean, variance) of the kept positions, float32."""
    shape = [x.shape[a] if a in axes else 1 for a in range(len(x.shape))]
    wide = tf.broadcast_to(keep, [max(s or 1, k) for s, k in zip(shape, keep.shape, strict=True)])
    if any(x.shape[a] is None for a in axes):  # a free axis: count it where the data is known
        wide = wide * tf.ones_like(x[:1])
    count = tf.reduce_sum(wide, axes, keepdims=True)
    mean = tf.reduce_sum(x * wide, axes, keepdims=True) / count
    variance = tf.reduce_sum(wide * tf.square(x - mean), axes, keepdims=True) / count
    return wide, mean, variance


def _affine(y: Any, axes: list[int], scale: Any, shift: Any) -> Any:
    """Y times a weight plus a weight, both along the axes."""
    shape = [y.shape[a] if a in axes else 1 for a in range(len(y.shape))]
    if scale is not None:
        y = y * tf.reshape(tf.cast(scale, y.dtype), shape)
    return y if shift is None else y + tf.reshape(tf.cast(shift, y.dtype), shape)


def _layer_norm(layer: Any, original: Any, keeps: list, args: tuple, kwargs: dict) -> Any:
    x = tf.cast(_first(args, kwargs), tf.float32)
    axes = _axes(layer.axis, len(x.shape))
    wide, mean, variance = _moments(x, keeps[0], axes)
    if getattr(layer, "rms_scaling", False):
        square = variance + tf.square(mean)
        y = _affine(x * tf.math.rsqrt(square + layer.epsilon), axes, layer.gamma, None)
    else:
        y = (x - mean) * tf.math.rsqrt(variance + layer.epsilon)
        y = _affine(y, axes, layer.gamma, layer.beta)
    return tf.cast(y * keeps[0], layer.compute_dtype)


def _rms_norm(layer: Any, original: Any, keeps: list, args: tuple, kwargs: dict) -> Any:
    x = tf.cast(_first(args, kwargs), tf.float32)
    axes = _axes(layer.axis, len(x.shape))
    _, mean, variance = _moments(x, keeps[0], axes)
    y = x * tf.math.rsqrt(variance + tf.square(mean) + layer.epsilon)
    return tf.cast(_affine(y, axes, layer.scale, None) * keeps[0], layer.compute_dtype)


def _group_norm(layer: Any, original: Any, keeps: list, args: tuple, kwargs: dict) -> Any:
    value = tf.cast(_first(args, kwargs), tf.float32)
    rank, axis = len(value.shape), layer.axis % len(value.shape)
    order = [a for a in range(rank) if a != axis] + [axis]
    x, keep = tf.transpose(value, order), tf.transpose(keeps[0], order)
    channels = value.shape[axis]
    groups = channels if layer.groups == -1 else layer.groups
    split = tf.concat([tf.shape(x)[:-1], [groups, channels // groups]], 0)
    x = tf.ensure_shape(tf.reshape(x, split), [*x.shape[:-1], groups, channels // groups])
    keep = tf.reshape(keep, [*keep.shape[:-1], groups, channels // groups])
    inner = [*range(1, rank - 1), rank]
    _, mean, variance = _moments(x, keep, inner)
    y = (x - mean) * tf.math.rsqrt(variance + layer.epsilon)
    y = tf.reshape(y, tf.gather(tf.shape(value), order))
    y = tf.ensure_shape(y, [value.shape[a] for a in order])
    y = _affine(y, [rank - 1], layer.gamma, layer.beta)
    y = tf.transpose(y, np.argsort(order)) * keeps[0]
    return tf.cast(tf.ensure_shape(y, value.shape), layer.compute_dtype)


def _first(args: tuple, kwargs: dict) -> Any:
    return flatten([args, kwargs])[0]


def _on_first(change: Callable[[Any, Any], Any], zero: bool = False) -> Callable:
    """The ordinary call on a changed first input; its dead outputs zero where they are channels."""

    def kept(layer: Any, original: Any, keeps: list, args: tuple, kwargs: dict) -> Any:
        first = _first(args, kwargs)

        def swap(leaf: Any) -> Any:
            return change(leaf, tf.cast(keeps[0], leaf.dtype)) if leaf is first else leaf

        y = original(*map_structure(swap, args), **map_structure(swap, kwargs))
        return y * tf.cast(keeps[0], y.dtype) if zero else y

    return kept


def _lowered(x: Any, keep: Any) -> Any:
    """Dead positions far below all others."""
    low = _BIG if x.dtype != tf.float16 else 3e4
    return x * keep + (keep - 1) * tf.cast(low, x.dtype)


def _raised(x: Any, keep: Any) -> Any:
    low = _BIG if x.dtype != tf.float16 else 3e4
    return x * keep - (keep - 1) * tf.cast(low, x.dtype)


def _reduction(which: str) -> Callable:
    """A mean, variance or deviation over some axes."""

    def kept(layer: Any, original: Any, keeps: list, args: tuple, kwargs: dict) -> Any:
        value = _first(args, kwargs)
        x = tf.cast(value, tf.float32)
        axis, keepdims = _parameter(layer, args, kwargs, "axis"), layer_keepdims(layer, kwargs)
        axes = _axes(axis, len(x.shape))
        _, mean, variance = _moments(x, keeps[0], axes)
        found = {"mean": mean, "variance": variance, "deviation": tf.sqrt(variance)}[which]
        return tf.cast(found if keepdims else tf.squeeze(found, axes), value.dtype)

    return kept


def _parameter(layer: Any, args: tuple, kwargs: dict, name: str) -> Any:
    """A parameter of an operation (an attribute) or of a TensorFlow function (an argument)."""
    if name in kwargs:
        return kwargs[name]
    if type(layer).__name__ == "TFOpLambda":
        return args[1] if len(args) > 1 else None
    return getattr(layer, name, None)


def layer_keepdims(layer: Any, kwargs: dict) -> bool:
    """Whether a reduction keeps the axes it reduces, with length 1."""
    return bool(kwargs.get("keepdims", getattr(layer, "keepdims", False)))


def _masked_inputs(layer: Any, original: Any, keeps: list, args: tuple, kwargs: dict) -> Any:
    """A product of activations: every input with its dead channels at zero."""
    todo = iter(keeps)

    def times(leaf: Any) -> Any:
        if not (tf.is_tensor(leaf) and leaf.dtype.is_floating):
            return leaf
        keep = next(todo, None)
        return leaf if keep is None else leaf * tf.cast(keep, leaf.dtype)

    return original(*map_structure(times, args), **map_structure(times, kwargs))


_SOFTMAX = _on_first(_lowered, zero=True)
_ZEROED = _on_first(lambda x, keep: x * keep)
_LARGEST, _SMALLEST = _on_first(_lowered), _on_first(_raised)
_ONES = _on_first(lambda x, keep: x * keep + (1 - keep))
_MEAN, _VARIANCE, _DEVIATION = map(_reduction, ("mean", "variance", "deviation"))

# Kind of a counting call -> how it is evaluated: (layer, its call, masks, args, kwargs) -> result.
KEPT: dict[str, Callable] = {
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    **dict.fromkeys(
        "Softmax LogSoftmax softmax log_softmax nn.softmax nn.log_softmax".split(), _SOFTMAX
    ),
    **dict.fromkeys("Sum math.reduce_sum".split(), _ZEROED),
    **dict.fromkeys("Max Amax math.reduce_max Logsumexp math.reduce_logsumexp".split(), _LARGEST),
    **dict.fromkeys("Min Amin math.reduce_min".split(), _SMALLEST),
    **dict.fromkeys("Prod math.reduce_prod".split(), _ONES),
    **dict.fromkeys("Mean math.reduce_mean".split(), _MEAN),
    **dict.fromkeys("Var math.reduce_variance".split(), _VARIANCE),
    **dict.fromkeys("Std math.reduce_std".split(), _DEVIATION),
}
# What is right with zeros, but a masked channel need not be zero (a sigmoid gives 0.5).
ZERO_IS_NONE: dict[str, Callable] = {
    **dict.fromkeys(
        "Matmul linalg.matmul __operators__.matmul Dot Attention AdditiveAttention".split(),
        _masked_inputs,
    ),
    **dict.fromkeys("UnitNormalization Normalize math.l2_normalize Norm norm".split(), _ZEROED),
}

"""Activation functions that no integer op computes, written in ones that have kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.bridge import functions
from tfedge.graph.copying import copy_layer
from tfedge.graph.rewrite import Piece
from tfedge.quant.masks import mask_of, masked_scores
from tfedge.quant.placement import FIXED_RANGE_ACTIVATIONS, FUSED_ACTIVATIONS
from tfedge.quant.sketch import NoForm, Sketch

_L = keras.layers
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805

_GELU = (1.59501067763988, 0.07401590297254863, -0.0007037788457496025)
"""x*sigmoid(x*(a + b*t + c*t^2)), t = min(x^2, 16), is within 2.6e-5 of gelu (own minimax fit)."""

_GELU_TANH = (2.0 * np.sqrt(2.0 / np.pi), 2.0 * np.sqrt(2.0 / np.pi) * 0.044715)
"""The same for the tanh form, whose definition it is: 0.5*(1 + tanh(u)) = sigmoid(2u)."""


def _negative_part(s: Sketch, x: Any) -> Any:
    return s.at_most(x, 0.0, "negative")


def _hard_sigmoid(s: Sketch, x: Any, slope: float = 1.0 / 6.0) -> Any:
    """clip(slope*x + 0.5, 0, 1): one affine whose output range clips."""
    return s.add(_L.ReLU(1.0, name=s.name("gate")), s.affine(x, slope, 0.5))


def _hard_silu(s: Sketch, x: Any) -> Any:
    return s.times(x, _hard_sigmoid(s, x), "gated")


def _elu(s: Sketch, x: Any, alpha: float = 1.0, scale: float = 1.0) -> Any:
    """scale*(relu(x) + alpha*(exp(min(x, 0)) - 1))."""
    grown = s.tabled("exp", _negative_part(s, x))
    below = s.affine(grown, alpha * scale, -alpha * scale, "below")
    above = s.relu(x, suffix="above")
    above = above if scale == 1.0 else s.affine(above, scale, suffix="slope")
    return s.plus(above, below)


def _log_1p_exp(s: Sketch, x: Any, above: Any, below: Any) -> Any:
    """log(1 + exp(-|x|)); `above` is max(x, 0), `below` min(x, 0)."""
    tail = s.tabled("exp", s.minus(below, above, "minus_abs"))
    return s.tabled("log", s.affine(tail, 1.0, 1.0, "one_more"))


def _softplus(s: Sketch, x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))."""
    above, below = s.relu(x, "above"), _negative_part(s, x)
    return s.plus(above, _log_1p_exp(s, x, above, below))


def _log_sigmoid(s: Sketch, x: Any) -> Any:
    """-softplus(-x) = min(x, 0) - log(1 + exp(-|x|))."""
    above, below = s.relu(x, "above"), _negative_part(s, x)
    return s.minus(below, _log_1p_exp(s, x, above, below))


def _mish(s: Sketch, x: Any) -> Any:
    return s.times(x, s.function("tanh", _softplus(s, x), "gate"), "gated")


def _softsign(s: Sketch, x: Any) -> Any:
    """X / (1 + |x|) by the square of a reciprocal square root."""
    size = s.minus(s.relu(x, "above"), _negative_part(s, x), "abs")
    root = s.rsqrt(s.affine(size, 1.0, 1.0))
    return s.times(x, s.times(root, root, "inverse"))


def _exponential(s: Sketch, x: Any) -> Any:
    return s.tabled("exp", x)


def log_softmax(s: Sketch, x: Any) -> Any:
    """X - max - log(sum(exp(x - max))) over the last axis."""
    if x.shape[-1] is None:
        raise NoForm("the axis that it normalises has a free size; declare it")
    most = s.op(tf.math.reduce_max, "most", x, axis=[-1], keepdims=True)
    below = s.minus(x, most, "below")
    mean = s.mean(s.tabled("exp", below), [-1])
    total = s.affine(mean, float(x.shape[-1]), suffix="total")
    return s.minus(below, s.tabled("log", total), "logs")


def _gelu(s: Sketch, x: Any, terms: tuple[float, ...] = _GELU) -> Any:
    """x*sigmoid(x*polynomial(min(x^2, 16)))."""
    square = s.at_most(s.times(x, x, "square"), 16.0, "bounded")
    shape = s.affine(square, terms[-1], terms[-2], "bent")
    for term in terms[-3::-1]:
        shape = s.affine(s.times(square, shape, "curve"), 1.0, term, "curved")
    gate = s.function("sigmoid", s.times(x, shape, "steep"), "gate")
    return s.times(x, gate, "gated")


def _gelu_tanh(s: Sketch, x: Any) -> Any:
    return _gelu(s, x, _GELU_TANH)


def _leaky(s: Sketch, x: Any, slope: float = 0.2) -> Any:
    return s.add(_L.LeakyReLU(slope, name=s.name("leaky")), x)


FORMS: dict[str, Callable[[Sketch, Any], Any]] = {
    "celu": _elu,
    "elu": _elu,
    "exponential": _exponential,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "leaky_relu": _leaky,
    "log_sigmoid": _log_sigmoid,
    "log_softmax": log_softmax,
    "mish": _mish,
    "selu": lambda s, x: _elu(s, x, _SELU_ALPHA, _SELU_SCALE),
    "softplus": _softplus,
    "softsign": _softsign,
}
"""Functions of tf_keras and of the bridge, by name."""


def form_of(function: Any, bits: int) -> Callable[[Sketch, Any], Any] | None:
    """How an activation function is written; None where it stays or has no form.

    Args:
        function: Of tf_keras, of `tfedge.bridge.functions`, or a user's own.
        bits: Activation bits.
    """
    name = getattr(function, "__name__", type(function).__name__)
    known = getattr(function, "__module__", "").split(".")[0] in ("tf_keras", "tfedge")
    if not known or name in (*FUSED_ACTIVATIONS, *FIXED_RANGE_ACTIVATIONS):
        return None
    if name == "gelu":
        return _gelu if bits == 16 else None
    if name == "gelu_tanh":
        return _gelu_tanh if bits == 16 else None
    if name == "hard_sigmoid" and function.__module__.startswith("tf_keras"):
        return lambda s, x: _hard_sigmoid(s, x, 0.2)
    return FORMS.get(name)


def activation(s: Sketch) -> list[Piece]:
    """An Activation layer."""
    form = form_of(s.layer.activation, s.bits)
    return s.piece(form(s, s.inputs[0])) if form else []


def split_activation(s: Sketch) -> list[Piece]:
    """A layer with weights whose activation has a form: the two apart."""
    function = getattr(s.layer, "activation", None)
    if function is None or form_of(function, s.bits) is None:
        return []
    act = _L.Activation(function, name=s.name("act"))
    linear = copy_layer(s.layer, {"activation": "linear"}, s.call.name)
    return [Piece(linear, s.layer.get_weights()), Piece(act)]


_STEEP = {8: 1e6, 16: 1e5}
"""Slope of the gate at a threshold, by bits: int16 TANH holds inputs of up to 170000."""


def _beyond(s: Sketch, x: Any, threshold: float, closed: bool = False) -> Any:
    """X above a threshold > 0, else 0: x times a tanh so steep that it jumps from code to code.

    The gate's input is kept between 0 and twice the threshold, so that its range is known. Its
    gradient is left out, as Keras leaves it out: the jump has none.

    Args:
        s: The sketch.
        x: Any tensor.
        threshold: Where it jumps.
        closed: Whether x == threshold is above it.
    """
    steep = _STEEP[s.bits]
    near = s.add(_L.ReLU(2.0 * threshold, name=s.name("near")), x)
    excess = s.affine(near, steep / threshold, 20.0 * closed - steep, "excess")
    sign = s.function("tanh", s.op(tf.stop_gradient, "fixed", excess), "sign")
    return s.times(x, s.relu(sign, "gate"), "beyond")


def thresholded(s: Sketch) -> list[Piece]:
    """ThresholdedReLU: x where it is above theta, else 0."""
    (x,), theta = s.inputs, float(s.layer.theta)
    return s.piece(_beyond(s, x, theta) if theta else s.relu(x))


def relu(s: Sketch) -> list[Piece]:
    """A ReLU with a threshold, a slope or a limit and a slope."""
    layer, (x,) = s.layer, s.inputs
    slope, threshold = float(layer.negative_slope or 0.0), float(layer.threshold or 0.0)
    if threshold:
        y = _beyond(s, x, threshold, closed=True)
        if slope:  # slope*(x - threshold) below the threshold, 0 above it
            below = s.affine(s.at_most(x, threshold, "below"), slope, -slope * threshold, "slope")
            y = s.plus(y, below)
    elif slope:
        y = _leaky(s, x, slope)
    else:
        return []
    return s.piece(y if layer.max_value is None else s.at_most(y, float(layer.max_value)))


def prelu(s: Sketch) -> list[Piece]:
    """PReLU with one slope a channel, for 16 bits: max(x, 0) + slope*min(x, 0)."""
    alpha = np.asarray(s.layer.alpha)
    if s.bits != 16 or alpha.size != alpha.shape[-1]:
        return []
    (x,) = s.inputs
    below = s.per_channel(_negative_part(s, x), alpha.ravel(), None, "slopes")
    return s.piece(s.plus(s.relu(x, "above"), below))


def elu(s: Sketch) -> list[Piece]:
    """ELU with its depth."""
    return s.piece(_elu(s, s.inputs[0], float(s.layer.alpha)))


def softmax(s: Sketch) -> list[Piece]:
    """Softmax over an axis that is not the last: moved there and back."""
    x = s.inputs[0]
    rank, axes = len(x.shape), np.ravel(s.layer.axis)
    axis = int(axes[0]) % rank
    if len(axes) != 1 or axis == 0:
        raise NoForm(f"its axis {s.layer.axis} has no kernel")
    mask = mask_of(s, "mask")
    if mask is not None:
        if axis != rank - 1:
            raise NoForm("it has a mask and its axis is not the last one")
        return s.piece(s.function("softmax", masked_scores(s, x, mask), "softmax"))
    if axis == rank - 1:
        return []
    order = [a for a in range(rank) if a != axis] + [axis]
    y = s.function("softmax", s.permute(x, order), "softmax")
    return s.piece(s.permute(y, np.argsort(order).tolist(), "back"))


ACTIVATIONS: dict[type, Any] = {
    _L.Activation: activation,
    **dict.fromkeys(
        (
            _L.Conv1D, _L.Conv2D, _L.Conv2DTranspose, _L.Dense, _L.DepthwiseConv2D,
            _L.SeparableConv1D, _L.SeparableConv2D,
        ),
        split_activation,
    ),
    _L.ReLU: relu,
    _L.ThresholdedReLU: thresholded,
    _L.PReLU: prelu,
    _L.ELU: elu,
    _L.Softmax: softmax,
}  # fmt: skip


def _operation(form: Callable[[Sketch, Any], Any]) -> Callable[[Sketch], list[Piece]]:
    return lambda s: s.piece(form(s, s.inputs[0])) if len(s.inputs) == 1 else []


def _op_gelu(s: Sketch) -> list[Piece]:
    """tf.nn.gelu(approximate=True); the exact form is a layer in the normal form."""
    if s.bits == 16:
        return s.piece(_gelu_tanh(s, s.inputs[0]))
    return s.piece(s.function(functions.gelu_tanh, s.inputs[0], "gelu"))


def _op_log_softmax(s: Sketch) -> list[Piece]:
    if s.call.kwargs.get("axis", -1) not in (-1, len(s.inputs[0].shape) - 1, None):
        raise NoForm("its axis is not the last one")
    return s.piece(log_softmax(s, s.inputs[0]))


ACTIVATION_OPS: dict[str, Callable[[Sketch], list[Piece]]] = {
    "nn.log_softmax": _op_log_softmax,
    "nn.gelu": _op_gelu,
    "math.log_sigmoid": _operation(_log_sigmoid),
}
"""Operations that the normal form leaves alone, by name."""

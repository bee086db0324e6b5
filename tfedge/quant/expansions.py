"""How each layer type is rewritten so that its op has an integer kernel, and why.

The rules were found by what tfmot and the TFLite converter leave in float. Each takes one call of a
layer and returns the chain of layers that computes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tfedge._keras import keras
from tfedge.graph.copying import copy_layer
from tfedge.graph.folding import affine
from tfedge.graph.rewrite import Piece, activation_name, as_is
from tfedge.graph.trace import Call, Graph
from tfedge.quant.placement import (
    FIXED_RANGE_ACTIVATIONS,
    FUSED_ACTIVATIONS,
    OTHER_ACTIVATIONS,
)

_L = keras.layers
FOLD_INTO = (_L.Dense, _L.Conv1D, _L.Conv2DTranspose, _L.SeparableConv1D)
"""Layers that a following batch norm is folded into before training."""

SPLIT = (*FOLD_INTO, _L.Conv2D, _L.DepthwiseConv2D, _L.SeparableConv2D)
"""Layers whose activation is taken out where no op fuses it."""

_KEEP_BATCH_NORM = (_L.Conv2D, _L.DepthwiseConv2D, _L.SeparableConv2D)


class Site(Protocol):
    """What an expansion may ask about the network around a call."""

    graph: Graph
    folded: dict[str, Call]
    floats: set[str]
    identities: int

    def bits(self, name: str) -> int:
        """Activation bits of a layer; 0 where it stays float."""

    def name(self, base: str, suffix: str) -> str:
        """A layer name that is not taken."""

    def note(self, layer: Any, text: str) -> None:
        """Records what was done to a layer."""

    def sole_maker(self, call: Call) -> Call | None:
        """The linear layer call whose only reader is `call`."""

    def rank(self, call: Call) -> int:
        """Rank of the call's first input."""


def _split(site: Site, call: Call, changes: dict[str, Any]) -> list[Piece]:
    """The activation layer that is taken out of `call.layer`, where TFLite does not fuse it."""
    name = activation_name(call.layer)
    if name in FUSED_ACTIVATIONS or name in FIXED_RANGE_ACTIVATIONS:
        return []
    changes["activation"] = "linear"
    site.note(call.layer, f"its activation '{name}' became a layer, because no op fuses it")
    layer = _L.Activation(call.layer.activation, name=site.name(call.name, "act"))
    if name not in OTHER_ACTIVATIONS:
        site.floats.add(layer.name)
    return [Piece(layer)]


def _fold(
    site: Site, call: Call, kernel: np.ndarray, bias: np.ndarray | None, axis: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Kernel and bias with the following batch norm folded in, where one is to be folded."""
    if call.name not in site.folded:
        return kernel, bias
    norm = site.folded[call.name].layer
    scale, shift = affine(norm)
    shape = [1] * kernel.ndim
    shape[axis] = -1
    site.note(
        norm, f"folded into '{call.name}' with its statistics as they are (no integer op beside "
        f"{type(call.layer).__name__} takes it)"
    )  # fmt: skip
    return kernel * scale.reshape(shape), shift + (0.0 if bias is None else bias * scale)


def _dense(site: Site, call: Call) -> list[Piece]:
    """Dense: batch norm folded in; on more than 2 axes a 1x1 convolution (MatMul stays float)."""
    layer, changes = call.layer, {}
    after = _split(site, call, changes)
    kernel, *rest = layer.get_weights()
    kernel, bias = _fold(site, call, kernel, rest[0] if rest else None, -1)
    if site.rank(call) == 2:
        new = copy_layer(layer, {**changes, "use_bias": bias is not None}, call.name)
        return [Piece(new, _present(kernel, bias)), *after]
    shape = site.graph.tensors[call.inputs[0]].shape
    site.note(layer, "became a 1x1 convolution, because a product on 3 axes stays float")
    conv = _conv_2d_of(layer, {"kernel_size": 1, "name": call.name}, changes, bias)
    inner = shape[1:-1]
    return [
        Piece(_L.Reshape((1, -1, shape[-1]), name=site.name(call.name, "in"))),
        Piece(conv, _present(kernel[None, None], bias)),
        Piece(_L.Reshape(_target(inner, layer.units), name=site.name(call.name, "out"))),
        *after,
    ]


def _target(inner: tuple[int | None, ...], channels: int) -> tuple[int, ...]:
    """A Reshape target with at most one free axis."""
    return (*(-1 if d is None else d for d in inner), channels)


def _present(kernel: np.ndarray, bias: np.ndarray | None) -> list[np.ndarray]:
    return [kernel] if bias is None else [kernel, bias]


def _conv_2d_of(layer: Any, config: dict, changes: dict, bias: np.ndarray | None) -> Any:
    """A Conv2D with the activation, regularizers and constraints of a Dense or Conv1D layer."""
    old = layer.get_config()
    keep = ("activation", "kernel_regularizer", "bias_regularizer", "trainable")
    shared = {k: old[k] for k in keep if k in old} | changes
    filters = old.get("filters", old.get("units"))
    full = {**shared, "filters": filters, "use_bias": bias is not None, **config}
    return _L.Conv2D.from_config(full)


def _conv_1d(site: Site, call: Call) -> list[Piece]:
    """Conv1D: a 2-D convolution of height 1 (quantizers take no kernel of rank 3)."""
    layer, changes = call.layer, {}
    after = _split(site, call, changes)
    kernel, *rest = layer.get_weights()
    kernel, bias = _fold(site, call, kernel, rest[0] if rest else None, -1)
    config = {
        "kernel_size": (1, layer.kernel_size[0]),
        "strides": (1, layer.strides[0]),
        "dilation_rate": (1, layer.dilation_rate[0]),
        "groups": layer.groups,
        "name": call.name,
    }
    pieces, config["padding"] = _open_1d(site, call)
    conv = _conv_2d_of(layer, config, changes, bias)
    site.note(layer, "became a Conv2D of height 1, because quantizers take no kernel of rank 3")
    return [*pieces, Piece(conv, _present(kernel[None], bias)), _close_1d(site, call), *after]


def _open_1d(site: Site, call: Call) -> tuple[list[Piece], str]:
    """Reshape [B, L, C] -> [B, 1, L, C] (with causal padding written out), and the padding left."""
    length, channels = site.graph.tensors[call.inputs[0]].shape[1:]
    shape = (1, -1 if length is None else length, channels)
    pieces = [Piece(_L.Reshape(shape, name=site.name(call.name, "in")))]
    layer = call.layer
    if getattr(layer, "padding", "valid") != "causal":
        return pieces, getattr(layer, "padding", "valid")
    left = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    pad = _L.ZeroPadding2D(((0, 0), (left, 0)), name=site.name(call.name, "pad"))
    return [*pieces, Piece(pad)], "valid"


def _close_1d(site: Site, call: Call) -> Piece:
    """Reshape [B, 1, L, C] -> [B, L, C]."""
    length, channels = site.graph.tensors[call.outputs[0]].shape[1:]
    target = (-1 if length is None else length, channels)
    return Piece(_L.Reshape(target, name=site.name(call.name, "out")))


def _conv_2d(site: Site, call: Call) -> list[Piece]:
    """Conv2D and DepthwiseConv2D: an activation that no op fuses becomes a layer."""
    changes: dict[str, Any] = {}
    after = _split(site, call, changes)
    layer = copy_layer(call.layer, changes, call.name)
    return [Piece(layer, call.layer.get_weights()), *after]


def _conv_2d_transpose(site: Site, call: Call) -> list[Piece]:
    """Conv2DTranspose: batch norm folded in (its output channels are the kernel's axis 2)."""
    changes: dict[str, Any] = {}
    after = _split(site, call, changes)
    kernel, *rest = call.layer.get_weights()
    kernel, bias = _fold(site, call, kernel, rest[0] if rest else None, 2)
    new = copy_layer(call.layer, {**changes, "use_bias": bias is not None}, call.name)
    return [Piece(new, _present(kernel, bias)), *after]


def _separable(site: Site, call: Call) -> list[Piece]:
    """SeparableConv: its depthwise and its pointwise half as layers of their own."""
    layer, changes = call.layer, {}
    after = _split(site, call, changes)
    flat = isinstance(layer, _L.SeparableConv1D)
    depth, point, *rest = layer.get_weights()
    pieces, closing, padding = [], [], layer.padding
    if flat:
        depth, point = depth[None], point[None]
        pieces, padding = _open_1d(site, call)
        closing = [_close_1d(site, call)]
    point, bias = _fold(site, call, point, rest[0] if rest else None, -1)

    def two(pair: Any) -> tuple[int, int]:
        return (1, pair[0]) if flat else tuple(pair)

    # A depthwise convolution takes equal strides only; of height 1 the first does nothing.
    strides = tuple(layer.strides) * 2 if flat else tuple(layer.strides)
    halves = _L.DepthwiseConv2D(
        two(layer.kernel_size), strides=strides, padding=padding,
        depth_multiplier=layer.depth_multiplier, dilation_rate=two(layer.dilation_rate),
        use_bias=False, name=site.name(call.name, "depthwise"), trainable=layer.trainable,
    )  # fmt: skip
    conv = _conv_2d_of(layer, {"kernel_size": 1, "name": call.name}, changes, bias)
    return [*pieces, Piece(halves, [depth]), Piece(conv, _present(point, bias)), *closing, *after]


def _batch_norm(site: Site, call: Call) -> list[Piece]:
    """BatchNormalization: kept behind a convolution, folded, or given a 1x1 depthwise to fold into.

    A batch norm on its own would stay MUL and ADD in float. An identity depthwise convolution
    before it changes nothing, and the converter folds the batch norm into that.
    """
    if any(norm.name == call.name for norm in site.folded.values()):
        return []
    before = site.sole_maker(call)
    same = as_is(site, call)
    together = before is not None and site.bits(before.name) == site.bits(call.name)
    if together and type(before.layer) in _KEEP_BATCH_NORM:
        return same
    site.note(call.layer, "got an identity depthwise convolution before it to be folded into")
    return _behind_identity(site, call, same[0])


def _on_four_axes(site: Site, call: Call, pieces: list[Piece]) -> list[Piece]:
    """The pieces, which take 4 axes with the channels last, reshaped to and back where needed."""
    shape = site.graph.tensors[call.inputs[0]].shape
    if len(shape) == 4:
        return pieces
    return [
        Piece(_L.Reshape((1, -1, shape[-1]), name=site.name(call.name, "in"))),
        *pieces,
        Piece(_L.Reshape(_target(shape[1:-1], shape[-1]), name=site.name(call.name, "out"))),
    ]


def _behind_identity(site: Site, call: Call, norm: Piece) -> list[Piece]:
    """An identity 1x1 depthwise convolution and a batch norm, reshaped to 4 axes and back."""
    shape = site.graph.tensors[call.inputs[0]].shape
    identity = _L.DepthwiseConv2D(
        1, use_bias=False, trainable=False, name=site.name(call.name, "identity")
    )
    if len(shape) != 4:
        norm = Piece(copy_layer(norm.layer, {"axis": -1}), norm.weights)
    # Of two equal kernels the converter makes one, and folds both batch norms into that.
    site.identities += 1
    almost = 1.0 + site.identities * 2.0**-22
    pair = [Piece(identity, [np.full((1, 1, shape[-1], 1), almost, np.float32)]), norm]
    return _on_four_axes(site, call, pair)


def _frozen_affine(site: Site, call: Call, scale: Any, shift: Any) -> list[Piece]:
    """Applies scale*x + shift by channel, as a frozen 1x1 depthwise convolution.

    A channel's kernel is one weight, which 8 bits represent exactly.
    """
    channels = site.graph.tensors[call.inputs[0]].shape[-1]
    gain = np.broadcast_to(np.asarray(scale, np.float32).reshape(-1), (channels,))
    offset = np.broadcast_to(np.asarray(shift, np.float32).reshape(-1), (channels,))
    layer = _L.DepthwiseConv2D(1, trainable=False, name=call.name)
    weights = [gain.reshape(1, 1, -1, 1), offset]
    return _on_four_axes(site, call, [Piece(layer, weights)])


def _rescaling(site: Site, call: Call) -> list[Piece]:
    """Rescaling: a constant affine, which alone would stay MUL and ADD in float."""
    layer = call.layer
    site.note(layer, "became a frozen 1x1 depthwise convolution")
    return _frozen_affine(site, call, layer.scale, layer.offset)


def _normalization(site: Site, call: Call) -> list[Piece]:
    """Normalization: (x - mean) / max(std, epsilon), as a frozen affine."""
    layer = call.layer
    mean = np.asarray(layer.mean, np.float32)
    std = np.maximum(np.sqrt(np.asarray(layer.variance, np.float32)), keras.backend.epsilon())
    scale, shift = 1.0 / std, -mean / std
    if layer.invert:
        scale, shift = std, mean
    site.note(layer, "became a frozen 1x1 depthwise convolution")
    return _frozen_affine(site, call, scale, shift)


def _up_sampling_1d(site: Site, call: Call) -> list[Piece]:
    """UpSampling1D (a split and a long concatenation in TFLite): a 2-D one of height 1."""
    pieces, _ = _open_1d(site, call)
    up = _L.UpSampling2D((1, call.layer.size), name=call.name)
    site.note(call.layer, "became an UpSampling2D of height 1")
    return [*pieces, Piece(up), _close_1d(site, call)]


def _softmax(site: Site, call: Call) -> list[Piece]:
    """Softmax over the last axis: the same as an Activation layer."""
    return [Piece(_L.Activation("softmax", name=call.name))]


def _average(site: Site, call: Call) -> list[Piece]:
    """Average: the sum, then a frozen affine by 1/n (ADD and MUL with a constant stay float)."""
    site.note(call.layer, "became Add and a frozen scaling")
    total = Piece(_L.Add(name=site.name(call.name, "sum")))
    return [total, *_frozen_affine(site, call, 1.0 / len(call.inputs), 0.0)]


EXPANSIONS: dict[type, Callable[[Site, Call], list[Piece]]] = {
    _L.Average: _average,
    _L.BatchNormalization: _batch_norm,
    _L.Conv1D: _conv_1d,
    _L.Conv2D: _conv_2d,
    _L.Conv2DTranspose: _conv_2d_transpose,
    _L.Dense: _dense,
    _L.DepthwiseConv2D: _conv_2d,
    _L.Normalization: _normalization,
    _L.Rescaling: _rescaling,
    _L.SeparableConv1D: _separable,
    _L.SeparableConv2D: _separable,
    _L.Softmax: _softmax,
    _L.UpSampling1D: _up_sampling_1d,
}
"""How a layer is rewritten, by exact class; any other layer is copied."""

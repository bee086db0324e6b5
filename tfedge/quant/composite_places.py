"""Convolutions that TFLite has no integer kernel for, as the two-dimensional ones it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.graph.rewrite import Piece
from tfedge.quant.composite_shapes import channels_last, merged_batch, parted_batch
from tfedge.quant.sketch import NoForm, Sketch

_L = keras.layers
_MOST_PARTS = 64
"""Places of a locally connected kernel at most: each is a slice in the file."""


def conv_3d_transpose(s: Sketch) -> list[Piece]:
    """Conv3DTranspose: zeros between the depths, then a Conv2DTranspose on the depth's shifts."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    if layer.output_padding is not None or set(layer.dilation_rate) != {1}:
        raise NoForm("its output padding or dilation has no integer form")
    depth, height, width, channels = s.known(x)
    size, stride = int(layer.kernel_size[0]), int(layer.strides[0])
    beyond = max(size - stride, 0)
    same = layer.padding == "same"
    after = depth * stride + (0 if same else beyond)
    if stride > 1:
        x = s.reshape(x, (depth, 1, height * width * channels), "columns")
        x = s.add(_L.ZeroPadding2D(((0, 0), (0, stride - 1)), name=s.name("spread")), x)
    x = s.reshape(x, (depth * stride, height, width, channels), "depths")
    # y[o] sums over k what stands at o - k; "same" cuts off the first half of what lies beyond.
    first = size - 1 + (beyond // 2 if same else 0)
    last = max(first + after - (size - 1 + depth * stride), 0)
    if first or last:
        pads = ((size - 1, last), (0, 0), (0, 0))
        x = s.add(_L.ZeroPadding3D(pads, name=s.name("pad")), x)
    flat = []
    for k in range(size):
        part = s.cut(x, (slice(None), slice(first - k, first - k + after)), f"shift_{k}")
        flat.append(merged_batch(s, part, f"flat_{k}"))
    joined = s.add(_L.Concatenate(name=s.name("joined")), *flat) if size > 1 else flat[0]
    kernel, *bias = layer.get_weights()
    kernel = np.transpose(kernel, (1, 2, 3, 0, 4)).reshape(*kernel.shape[1:4], -1)
    conv = _L.Conv2DTranspose(
        layer.filters, layer.kernel_size[1:], strides=tuple(layer.strides[1:]),
        padding=layer.padding, activation=layer.activation, use_bias=layer.use_bias,
        kernel_regularizer=layer.kernel_regularizer, name=s.name("conv"),
    )  # fmt: skip
    y = s.add(conv, joined, weights=[kernel, *bias])
    return s.piece(parted_batch(s, y, after, "parted"))


def locally_connected(s: Sketch) -> list[Piece]:
    """LocallyConnected1D and 2D: what each place sees side by side, a group of channels each."""
    channels_last(s)
    layer, (x,) = s.layer, s.inputs
    if layer.implementation != 1:
        raise NoForm("only implementation=1 stores its weights place by place")
    flat = isinstance(layer, _L.LocallyConnected1D)
    if flat:
        x = s.reshape(x, (1, *x.shape[1:]), "in")
    kernel, *bias = layer.get_weights()
    places, seen, filters = kernel.shape
    joined = _seen(s, x, flat)
    grouped = s.reshape(joined, (1, 1, places * seen), "places")
    conv = _L.Conv2D(
        places * filters, 1, groups=places, use_bias=layer.use_bias, activation=layer.activation,
        kernel_regularizer=layer.kernel_regularizer, name=s.name("conv"),
    )  # fmt: skip
    weights = [np.transpose(kernel, (1, 0, 2)).reshape(1, 1, seen, -1)]
    y = s.add(conv, grouped, weights=[*weights, *(b.reshape(-1) for b in bias)])
    inner = joined.shape[2:-1] if flat else joined.shape[1:-1]
    return s.piece(s.reshape(y, (*inner, filters), "out"))


def _seen(s: Sketch, x: Any, flat: bool) -> Any:
    """[B, rows, columns, what the kernel's places read]."""
    size, stride = s.layer.kernel_size, s.layer.strides
    if flat:
        size, stride = (1, size[0]), (1, stride[0])
    if size[0] * size[1] > _MOST_PARTS:
        raise NoForm(f"its kernel has {size[0] * size[1]} places, more than {_MOST_PARTS}")
    rows, columns = ((n - k) // t for n, k, t in zip(s.known(x)[:2], size, stride, strict=True))
    parts = []
    for i in range(size[0]):
        for j in range(size[1]):
            down = slice(i, i + rows * stride[0] + 1, stride[0])
            across = slice(j, j + columns * stride[1] + 1, stride[1])
            parts.append(s.cut(x, (slice(None), down, across), f"place_{i}_{j}"))
    return s.add(_L.Concatenate(name=s.name("seen")), *parts) if len(parts) > 1 else parts[0]


PLACES: dict[type, Callable[[Sketch], list[Piece]]] = {
    _L.Conv3DTranspose: conv_3d_transpose,
    _L.LocallyConnected1D: locally_connected,
    _L.LocallyConnected2D: locally_connected,
}

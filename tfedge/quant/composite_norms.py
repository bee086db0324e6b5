"""Normalisations as means, products and a reciprocal square root, which have integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.graph.rewrite import Piece
from tfedge.quant.sketch import NoForm, Sketch

_L = keras.layers


def normalised(s: Sketch, x: Any, axes: Sequence[int], epsilon: float) -> Any:
    """(x - mean) / sqrt(variance + epsilon) over axes of `x`."""
    centred = s.minus(x, s.mean(x, axes), "centred")
    variance = s.mean(s.times(centred, centred, "square"), axes, "variance")
    return s.times(centred, s.rsqrt(s.affine(variance, 1.0, epsilon)), "normal")


def unit(s: Sketch, x: Any, axis: int, least: float = 1e-12) -> Any:
    """X / sqrt(max(sum of x^2, least)) along an axis."""
    if x.shape[axis] is None:
        raise NoForm("the axis that it normalises has a free size; declare it")
    mean = s.mean(s.times(x, x, "square"), [axis])
    total = s.affine(mean, float(x.shape[axis]), suffix="total")
    return s.times(x, s.rsqrt(s.at_least(total, least)), "unit")


def layer_norm(s: Sketch) -> list[Piece]:
    """LayerNormalization over any axes behind the batch."""
    layer, (x,) = s.layer, s.inputs
    rank = len(x.shape)
    axes = sorted(a % rank for a in np.ravel(layer.axis))
    if 0 in axes:
        raise NoForm("it normalises over the batch")
    last = axes == [rank - 1]
    shape = x.shape[1:]
    if rank > 4:
        if not last:
            raise NoForm(f"its axes {axes} of {rank} are not the last one alone")
        x = s.reshape(x, (1, prod(s.known(x)[:-1]), shape[-1]))
        axes = [3]
    y = normalised(s, x, axes, layer.epsilon)
    return s.piece(s.reshape(_scaled(s, y, axes), shape))


def _scaled(s: Sketch, y: Any, axes: list[int]) -> Any:
    """Times gamma, plus beta, where the layer has them."""
    layer = s.layer
    if not (layer.scale or layer.center):
        return y
    size = int(np.prod([y.shape[a] for a in axes]))
    gamma = np.asarray(layer.gamma).ravel() if layer.scale else np.ones(size, np.float32)
    beta = np.asarray(layer.beta).ravel() if layer.center else None
    rank = len(y.shape)
    if axes == [rank - 1]:
        return s.per_channel(y, gamma, beta)
    order = [a for a in range(rank) if a not in axes] + axes
    moved = s.permute(y, order)
    inner = [moved.shape[a] for a in range(1, rank - len(axes))]
    done = s.per_channel(s.reshape(moved, (*inner, size), "merged"), gamma, beta)
    back = s.reshape(done, moved.shape[1:], "parted")
    return s.permute(back, np.argsort(order).tolist(), "back")


def group_norm(s: Sketch) -> list[Piece]:
    """GroupNormalization over the channels' groups and all positions; channels last."""
    layer, (x,) = s.layer, s.inputs
    rank = len(x.shape)
    if int(np.ravel(layer.axis)[0]) % rank != rank - 1:
        raise NoForm(f"its axis {layer.axis} is not the last one")
    shape = s.known(x)
    channels = shape[-1]
    groups = channels if layer.groups == -1 else layer.groups
    # Group by group, then positions: the axes that are reduced stand together at the end.
    split = s.reshape(x, (prod(shape[:-1]), groups, channels // groups), "groups")
    y = normalised(s, split, [1, 3], layer.epsilon)
    y = s.reshape(y, shape, "merged")
    if layer.scale or layer.center:
        gamma = np.asarray(layer.gamma) if layer.scale else np.ones(channels, np.float32)
        y = s.per_channel(y, gamma, np.asarray(layer.beta) if layer.center else None)
    return s.piece(y)


def unit_norm(s: Sketch) -> list[Piece]:
    """UnitNormalization along one axis."""
    (x,) = s.inputs
    axes = [int(a) % len(x.shape) for a in np.ravel(s.layer.axis)]
    if len(axes) != 1 or axes == [0]:
        raise NoForm(f"it normalises over the axes {axes}")
    return s.piece(unit(s, x, axes[0]))


def layer_scale(s: Sketch) -> list[Piece]:
    """ConvNeXt's LayerScale: a factor for each channel."""
    return s.piece(s.per_channel(s.inputs[0], np.asarray(s.layer.gamma), None))


def batch_norm_elsewhere(s: Sketch) -> list[Piece]:
    """BatchNormalization of an axis that is not the last: moved there and back."""
    layer, (x,) = s.layer, s.inputs
    rank = len(x.shape)
    (axis,) = (int(a) % rank for a in np.ravel(layer.axis))
    if axis in (0, rank - 1) or getattr(layer, "renorm", False):
        return []
    order = [a for a in range(rank) if a != axis] + [axis]
    config = {**layer.get_config(), "axis": -1, "name": s.name("norm")}
    new = type(layer).from_config(config)
    y = s.add(new, s.permute(x, order), weights=layer.get_weights())
    return s.piece(s.permute(y, np.argsort(order).tolist(), "back"))


NORMS: dict[type, Any] = {
    _L.LayerNormalization: layer_norm,
    _L.GroupNormalization: group_norm,
    _L.UnitNormalization: unit_norm,
    _L.BatchNormalization: batch_norm_elsewhere,
}

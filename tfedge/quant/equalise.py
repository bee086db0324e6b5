"""Cross-layer equalisation: scales moved between layers so that channels use the codes alike.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", 4.1:
where everything between two layers is positively homogeneous, f(s x) = s f(x) for s > 0, channel c
of the first may be divided by s_c and the weights that read it multiplied. Which weights belong to
a channel is what `graph.analyse` knows, across residual sums, concatenations and depthwise layers.
tfedge's kernels have a scale per output channel already, so what is balanced here is the range of
a channel's activation, a_c, against that of the weights that read it, w_c (Xiao et al. 2023,
"SmoothQuant", equation 4, with alpha = 1/2): s_c = sqrt(a_c / w_c), normed to a geometric mean of
1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.graph import Analysis, ChannelGroup, Slice, analyse, rebuild, trace
from tfedge.graph.rewrite import activation_name

_L = keras.layers
_LIMIT = 32.0  # A scale is at most this and at least its inverse.

HOMOGENEOUS: tuple[type, ...] = (
    _L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D, _L.AveragePooling2D,
    _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalMaxPooling1D,
    _L.GlobalMaxPooling2D, _L.Add, _L.Subtract, _L.Average, _L.Concatenate, _L.Maximum, _L.Minimum,
    _L.Flatten, _L.Reshape, _L.Permute, _L.ZeroPadding1D, _L.ZeroPadding2D, _L.Cropping1D,
    _L.Cropping2D, _L.UpSampling1D, _L.UpSampling2D, _L.Dropout, _L.SpatialDropout1D,
    _L.SpatialDropout2D, _L.LeakyReLU,
)  # fmt: skip
"""Layers without a bias that a positive factor passes through."""

LINEAR: tuple[type, ...] = (
    _L.Dense, _L.Conv1D, _L.Conv2D, _L.Conv3D, _L.Conv1DTranspose, _L.Conv2DTranspose,
    _L.DepthwiseConv2D, _L.SeparableConv1D, _L.SeparableConv2D,
)  # fmt: skip
"""Layers with kernels and biases, which the factors go into."""


def equalised(model: Any, samples: list[Any]) -> tuple[Any, int]:
    """An equal float model whose channels are balanced.

    Args:
        model: A float tf_keras model, batch norms folded.
        samples: One tensor an input, [N, ...], which show how large activations are.

    Returns:
        A new model with the same outputs (up to float rounding), and the number of channel groups
        that were scaled.
    """
    copy = rebuild(trace(model))
    analysis = analyse(copy)
    groups = [g for g in analysis.groups if _can_scale(analysis, g)]
    if not groups:
        return copy, 0
    sizes = _activation_sizes(copy, analysis, groups, samples)
    layers = analysis.graph.layers()
    for group in groups:
        scale = _scale(group, layers, sizes[group.name])
        for piece in group.slices:
            _apply(layers[piece.layer], piece, scale)
    return copy, len(groups)


def _can_scale(analysis: Analysis, group: ChannelGroup) -> bool:
    """Whether a positive factor goes through everything that touches the group's channels."""
    if group.blocked or group.fixed.any() or group.counted_by:
        return False
    if any(len(_rows(analysis, s)) != 1 for s in group.slices):
        return False  # positions that belong to several channels at once
    roles = {s.role for s in group.slices}
    if not {"out", "in"} <= roles:
        return False
    number = analysis.groups.index(group)
    for call in analysis.graph.calls:
        touched = {n for n in (*call.inputs, *call.outputs) if _carries(analysis, n, number)}
        if touched and not _passes(call.layer, touched & set(call.outputs)):
            return False
    return True


def _rows(analysis: Analysis, piece: Slice) -> np.ndarray:
    return analysis.table.bindings[piece.layer, piece.weight, piece.axis].labels


def _carries(analysis: Analysis, tensor: int, group: int) -> bool:
    marks = analysis.marks.get(tensor)
    if marks is None:
        return False
    labels = np.concatenate([p.reshape(-1) for p in marks.planes] or [np.zeros(0, int)])
    labels = labels[labels >= 0]
    return bool((analysis.group_of[labels] == group).any())


def _passes(layer: Any, gives: set[int]) -> bool:
    """Whether a call commutes with factors of the channels it reads and of those it gives."""
    if type(layer) in HOMOGENEOUS:
        return True
    if type(layer) is _L.ReLU:
        return layer.max_value is None and not layer.threshold
    if type(layer) is _L.Activation:
        return activation_name(layer) in ("linear", "relu")
    if type(layer) in LINEAR:
        return not gives or activation_name(layer) in ("linear", "relu")
    return False


def _activation_sizes(
    model: Any, analysis: Analysis, groups: list[ChannelGroup], samples: list[Any]
) -> dict[str, np.ndarray]:
    """Largest magnitude of each channel of each group, float64 [channels]."""
    wanted: dict[int, None] = {}
    numbers = {g.name: analysis.groups.index(g) for g in groups}
    for tensor, marks in analysis.marks.items():
        if marks.axes and any(_carries(analysis, tensor, n) for n in numbers.values()):
            wanted[tensor] = None
    symbolic = _symbolic(model, analysis, wanted)
    probe = keras.Model(model.inputs, list(symbolic.values()))
    values = tf.nest.flatten(probe(samples, training=False))
    found = {g.name: np.zeros(g.channels) for g in groups}
    for tensor, value in zip(symbolic, values, strict=True):
        size = np.abs(value.numpy()).max(0, keepdims=True)
        for plane in analysis.marks[tensor].planes:
            labels = np.broadcast_to(plane, size.shape).reshape(-1)
            for group in groups:
                own = (labels >= 0) & (analysis.group_of[labels] == numbers[group.name])
                channel = analysis.channel_of[labels[own]]
                np.maximum.at(found[group.name], channel, size.reshape(-1)[own])
    return found


def _symbolic(model: Any, analysis: Analysis, wanted: dict[int, None]) -> dict[int, Any]:
    """Symbolic tensors of the model by number in the trace, for layers that are called once."""
    calls = {c.outputs[0]: c.name for c in analysis.graph.calls if len(c.outputs) == 1}
    names = list(calls.values())
    return {
        n: model.get_layer(calls[n]).output
        for n in wanted
        if n in calls and names.count(calls[n]) == 1
    }


def _scale(group: ChannelGroup, layers: dict[str, Any], activation: np.ndarray) -> np.ndarray:
    """The factor s_c of each channel, float64 [channels]."""
    weights = np.zeros(group.channels)
    for piece in group.slices:
        if piece.role == "in":
            values = np.abs(layers[piece.layer].weights[piece.weight].numpy())
            axes = tuple(a for a in range(values.ndim) if a != piece.axis)
            np.maximum.at(weights, piece.channel, values.max(axes)[piece.index])
    known = (weights > 0) & (activation > 0)
    scale = np.ones(group.channels)
    scale[known] = np.sqrt(activation[known] / weights[known])
    scale[known] /= np.exp(np.mean(np.log(scale[known]))) if known.any() else 1.0
    return np.clip(scale, 1.0 / _LIMIT, _LIMIT)


def _apply(layer: Any, piece: Slice, scale: np.ndarray) -> None:
    """Divides what makes the channels by their scale, multiplies what reads them."""
    variable = layer.weights[piece.weight]
    bias = piece.weight_name.rsplit(".", 1)[-1] == "bias"
    if piece.role == "through" and not bias:
        return
    factor = np.ones(variable.shape[piece.axis])
    factor[piece.index] = scale[piece.channel] if piece.role == "in" else 1 / scale[piece.channel]
    shape = [1] * len(variable.shape)
    shape[piece.axis] = -1
    variable.assign(variable * tf.cast(factor.reshape(shape), variable.dtype))

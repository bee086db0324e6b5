"""One rule a layer type: how labels flow through a call and which weights they index.

A rule takes a `Site` (one call) and returns the label array of its output (or a list of them). It
says three things with the site's methods: which weight axes the labels index (`bind`), which config
entries count them (`size`, `shape`) and which labels must be equal (`tie`). Rules of recurrent and
attention layers are in rules_sequence.py, of operations in rules_ops.py, the table in registry.py.
"""

from __future__ import annotations

import numpy as np

from tfedge.graph.labels import along, dependent_axes, unlabelled
from tfedge.graph.site import Site, channel_axis


def same(site: Site) -> np.ndarray:
    """Keeps shape and channels: activations, dropout, noise, rescaling, masking."""
    return site.inputs[0]


def spatial(site: Site) -> np.ndarray:
    """Changes the spatial axes only: pooling, padding, cropping, upsampling, resizing."""
    rank = len(site.in_shapes[0])
    axis = channel_axis(site.layer, rank)
    return along(site.vector(axis), axis, rank)


def conv(site: Site) -> np.ndarray:
    """Conv1D/2D/3D, also grouped: kernel [..., in / groups, filters]."""
    layer, rank = site.layer, len(site.in_shapes[0])
    axis = channel_axis(layer, rank)
    into, groups = site.vector(axis), layer.groups
    if groups > 1 and groups == len(into):
        return _conv_per_channel(site, into, axis)
    out = site.new(layer.filters)
    if groups > 1:
        # Every group must lose the same positions, so that the groups stay equally wide.
        into = _tie_groups(site, into, groups)
        _tie_groups(site, out, groups)
    site.bind("kernel", -2, into)
    site.bind("kernel", -1, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("filters", out)
    return along(out, axis, rank)


def _tie_groups(site: Site, labels: np.ndarray, groups: int) -> np.ndarray:
    """Ties the channels at the same position of each group; returns those of the first."""
    table = labels.reshape(groups, -1)
    site.tie(table, table[:1])
    return table[0]


def _conv_per_channel(site: Site, into: np.ndarray, axis: int) -> np.ndarray:
    """A grouped convolution of one input channel a group: a depthwise convolution."""
    out = np.repeat(into, site.layer.filters // len(into))
    site.bind("kernel", -1, out, "through")
    site.bind("bias", 0, out, "through")
    site.size("filters", out)
    site.size("groups", into)
    return along(out, axis, len(site.in_shapes[0]))


def conv_transpose(site: Site) -> np.ndarray:
    """Conv1D/2D/3DTranspose: kernel [..., filters, in]."""
    rank = len(site.in_shapes[0])
    axis = channel_axis(site.layer, rank)
    out = site.new(site.layer.filters)
    site.bind("kernel", -1, site.vector(axis))
    site.bind("kernel", -2, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("filters", out)
    return along(out, axis, rank)


def depthwise(site: Site) -> np.ndarray:
    """DepthwiseConv1D/2D of any multiplier m: output channel c*m + k comes from input c."""
    rank = len(site.in_shapes[0])
    axis = channel_axis(site.layer, rank)
    into = site.vector(axis)
    name = "depthwise_kernel" if hasattr(site.layer, "depthwise_kernel") else "kernel"
    site.bind(name, -2, into, "through")
    out = np.repeat(into, site.layer.depth_multiplier)
    site.bind("bias", 0, out, "through")
    return along(out, axis, rank)


def separable(site: Site) -> np.ndarray:
    """SeparableConv1D/2D: a depthwise kernel, then a pointwise one [1, in * m, filters]."""
    rank = len(site.in_shapes[0])
    axis = channel_axis(site.layer, rank)
    into, out = site.vector(axis), site.new(site.layer.filters)
    site.bind("depthwise_kernel", -2, into)
    site.bind("pointwise_kernel", -2, np.repeat(into, site.layer.depth_multiplier))
    site.bind("pointwise_kernel", -1, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("filters", out)
    return along(out, axis, rank)


def dense(site: Site) -> np.ndarray:
    """Dense: kernel [in, units] on the last axis."""
    rank = len(site.in_shapes[0])
    out = site.new(site.layer.units)
    site.bind("kernel", 0, site.vector(-1))
    site.bind("kernel", 1, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("units", out)
    return along(out, rank - 1, rank)


def batch_norm(site: Site) -> np.ndarray:
    """BatchNormalization: four vectors along its axis."""
    axis = site.layer.axis
    axes = list(axis) if isinstance(axis, (list, tuple)) or hasattr(axis, "__iter__") else [axis]
    if len(axes) != 1:
        site.block_inputs("normalizes over several axes")
        return site.inputs[0]
    rank = len(site.in_shapes[0])
    labels = site.vector(axes[0])
    for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
        site.bind(weight, 0, labels, "through")
    return along(labels, axes[0] % rank, rank)


def layer_norm(site: Site) -> np.ndarray:
    """LayerNormalization: gamma and beta over its axes; its mean counts the kept channels."""
    axis = site.layer.axis
    axes = [a % len(site.in_shapes[0]) for a in (axis if hasattr(axis, "__iter__") else [axis])]
    labels = site.inputs[0]
    for position, a in enumerate(sorted(axes)):
        if a in dependent_axes(labels):
            vector = site.vector(a)
            site.counts(vector)
            for weight in ("gamma", "beta"):
                site.bind(weight, position, vector, "through")
    return labels


def softmax(site: Site) -> np.ndarray:
    """Softmax: over the channels that are there."""
    axis = getattr(site.layer, "axis", -1)
    rank = len(site.in_shapes[0])
    axes = {a % rank for a in (axis if hasattr(axis, "__iter__") else [axis])}
    if axes & set(dependent_axes(site.inputs[0])):
        site.counts(site.inputs[0])
    return site.inputs[0]


def activation(site: Site) -> np.ndarray:
    """Activation: keeps the channels; softmax counts them."""
    name = getattr(site.layer.activation, "__name__", "")
    return softmax(site) if name in ("softmax", "log_softmax") else site.inputs[0]


def prelu(site: Site) -> np.ndarray:
    """PReLU: alpha has the input's shape without batch, 1 on shared axes."""
    labels = site.inputs[0]
    axes = dependent_axes(labels)
    if len(axes) == 1:
        vector = site.vector(axes[0])
        if site.layer.alpha.shape[axes[0] - 1] == len(vector):
            site.bind("alpha", axes[0] - 1, vector, "through")
    elif axes:
        site.block_inputs("has labels on several axes")
    return labels


def elementwise(site: Site) -> np.ndarray:
    """Add, Subtract, Multiply, Average, Maximum, Minimum, with broadcast (squeeze-and-excite)."""
    rank = len(site.out_shapes[0])
    if any(len(s) != rank for s in site.in_shapes):
        site.block_inputs("joins tensors of different ranks")
        return unlabelled(rank)
    labelled = sorted({a for labels in site.inputs for a in dependent_axes(labels)})
    full = [
        labels
        for labels, shape in zip(site.inputs, site.in_shapes, strict=True)
        # A tensor of size 1 on the labelled axes is the same number for every channel.
        if not labelled or any(shape[a] != 1 for a in labelled)
    ]
    for other in full[1:]:
        site.tie(full[0], other)
    widest = max(full, key=lambda labels: labels.size, default=unlabelled(rank))
    return widest


def concatenate(site: Site) -> np.ndarray:
    """Concatenate: labels side by side on its axis, tied on the others."""
    axis = site.layer.axis % len(site.out_shapes[0])
    return site.join(site.inputs, [s[axis] for s in site.in_shapes], axis)


def flatten(site: Site) -> np.ndarray:
    """Flatten: row-major, so a channel owns every C-th position (channels last)."""
    labels, shape = site.inputs[0], site.in_shapes[0]
    if channel_axis(site.layer, len(shape)) == 1 and len(shape) > 2:
        labels, shape = np.moveaxis(labels, 1, -1), (shape[0], *shape[2:], shape[1])
    return site.reshaped(labels, shape, site.out_shapes[0])


def reshape(site: Site) -> np.ndarray:
    """Reshape: labels are reshaped like the data; the target shape is counted anew."""
    out = site.reshaped(site.inputs[0], site.in_shapes[0], site.out_shapes[0])
    site.shape("target_shape", out[0], site.out_shapes[0][1:])
    return out


def permute(site: Site) -> np.ndarray:
    """Permute: the labels move with their axes."""
    return np.transpose(site.inputs[0], (0, *site.layer.dims))


def global_pool(site: Site) -> np.ndarray:
    """GlobalAverage/MaxPooling: the spatial axes go, or stay with length 1."""
    rank = len(site.in_shapes[0])
    axis = channel_axis(site.layer, rank)
    labels = site.vector(axis)
    out_rank = len(site.out_shapes[0])
    return along(labels, axis if out_rank == rank else 1, out_rank)


def repeat_vector(site: Site) -> np.ndarray:
    """RepeatVector: [batch, features] -> [batch, n, features]."""
    return site.inputs[0][:, None, :]

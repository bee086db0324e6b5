"""One rule a layer type: how labels flow through a call and which weights they index.

A rule takes a `Site` (one call) and returns the `Marks` of its output (or a list of them). It says
three things with the site's methods: which weight axes the labels index (`bind`), which config
entries count them (`size`, `dims`) and which labels must be equal (`tie`). What it cannot cut it
blocks, with the reason (`block`). Other rules are in the rules_*.py, the table in registry.py.
"""

from __future__ import annotations

import numpy as np

from tfedge.graph.activation import activated, kind_of
from tfedge.graph.labels import Marks, unlabelled
from tfedge.graph.rules_shape import (
    copies,
    counted_shape,
    insert_axis,
    join,
    merge,
    reduce,
)
from tfedge.graph.rules_shape import (
    reshape as reshape_marks,
)
from tfedge.graph.site import Site, channel_axis

SLIDES = "slides over the axis that is pruned"


def same(site: Site) -> Marks:
    """Keeps shape and channels: dropout, noise, identity, unit norm (a zero adds no length)."""
    return site.inputs[0]


def rescaling(site: Site) -> Marks:
    """Rescaling: one scale for all, or one a channel (then the channels stay)."""
    if np.size(site.layer.scale) > 1 or np.size(site.layer.offset) > 1:
        site.block_inputs("scales by a list of constants")
    return site.inputs[0]


def masking(site: Site) -> Marks:
    """Masking: a step is masked where all its channels equal the mask value."""
    vector, _ = site.split(-1)
    site.counts(vector)
    return site.inputs[0]


def spatial(site: Site) -> Marks:
    """Changes the spatial axes only: pooling, padding, cropping, upsampling, resizing."""
    rank = len(site.in_shapes[0])
    axis = channel_axis(site.layer, rank)
    return site.out(site.only(axis, SLIDES), axis)


def conv(site: Site) -> Marks:
    """Conv1D/2D/3D, also grouped: kernel [..., in / groups, filters]."""
    layer, rank = site.layer, len(site.in_shapes[0])
    axis = channel_axis(layer, rank)
    into, rest = _conv_input(site, axis)
    groups = layer.groups
    if groups > 1 and groups == into.shape[-1]:
        return rest + _conv_per_channel(site, into, axis)
    out = site.new(layer.filters)
    if groups > 1:
        # Every group must lose the same positions, so that the groups stay equally wide.
        into = _tie_groups(site, into, groups)
        _tie_groups(site, out, groups)
    site.bind("kernel", -2, into)
    site.bind("kernel", -1, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("filters", out)
    return rest + activated(site, out, axis)


def _conv_input(site: Site, axis: int) -> tuple[np.ndarray, Marks]:
    """Labels of the channels; a 1x1 kernel keeps what the other axes carry."""
    into, rest = site.split(axis)
    layer = site.layer
    pointwise = all(int(n) == 1 for n in [*np.ravel(layer.kernel_size), *np.ravel(layer.strides)])
    if rest.axes and not pointwise:
        site.block(rest, SLIDES)
        rest = unlabelled(rest.rank)
    return into, rest


def _tie_groups(site: Site, labels: np.ndarray, groups: int) -> np.ndarray:
    """Ties the channels at the same position of each group; returns those of the first."""
    table = labels.reshape(*labels.shape[:-1], groups, -1)
    site.tie(table, table[..., :1, :])
    return table[..., 0, :]


def _conv_per_channel(site: Site, into: np.ndarray, axis: int) -> Marks:
    """A grouped convolution of one input channel a group: a depthwise convolution."""
    out = np.repeat(into, site.layer.filters // into.shape[-1], axis=-1)
    site.bind("kernel", -1, out, "through")
    site.bind("bias", 0, out, "through")
    site.size("filters", out)
    site.size("groups", into)
    return activated(site, out, axis)


def conv_transpose(site: Site) -> Marks:
    """Conv1D/2D/3DTranspose: kernel [..., filters, in]."""
    axis = channel_axis(site.layer, len(site.in_shapes[0]))
    out = site.new(site.layer.filters)
    into, rest = _conv_input(site, axis)
    site.bind("kernel", -1, into)
    site.bind("kernel", -2, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("filters", out)
    return rest + activated(site, out, axis)


def depthwise(site: Site) -> Marks:
    """DepthwiseConv1D/2D of any multiplier m: output channel c*m + k comes from input c."""
    axis = channel_axis(site.layer, len(site.in_shapes[0]))
    into, rest = _conv_input(site, axis)
    name = "depthwise_kernel" if hasattr(site.layer, "depthwise_kernel") else "kernel"
    site.bind(name, -2, into, "through")
    out = np.repeat(into, site.layer.depth_multiplier, axis=-1)
    site.bind("bias", 0, out, "through")
    return rest + activated(site, out, axis)


def separable(site: Site) -> Marks:
    """SeparableConv1D/2D: a depthwise kernel, then a pointwise one [1, in * m, filters]."""
    axis = channel_axis(site.layer, len(site.in_shapes[0]))
    into, rest = _conv_input(site, axis)
    out = site.new(site.layer.filters)
    site.bind("depthwise_kernel", -2, into)
    site.bind("pointwise_kernel", -2, np.repeat(into, site.layer.depth_multiplier, axis=-1))
    site.bind("pointwise_kernel", -1, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("filters", out)
    return rest + activated(site, out, axis)


def locally_connected(site: Site) -> Marks:
    """LocallyConnected1D/2D: kernel [positions, window * in, filters], a window row-major."""
    layer, rank = site.layer, len(site.in_shapes[0])
    axis = channel_axis(layer, rank)
    if layer.implementation != 1 or axis != rank - 1:
        return site.block_inputs("has its weights in an order that is not known")[0]
    out = site.new(layer.filters)
    window = int(np.prod(layer.kernel_size))
    site.bind("kernel", -2, np.tile(site.only(axis, SLIDES), window))
    site.bind("kernel", -1, out, "out")
    site.bind("bias", -1, out, "out")
    site.size("filters", out)
    return activated(site, out, axis)


def dense(site: Site) -> Marks:
    """Dense: kernel [in, units] on the last axis; the other axes keep their labels."""
    rank = len(site.in_shapes[0])
    into, rest = site.split(-1)
    out = site.new(site.layer.units)
    site.bind("kernel", 0, into)
    site.bind("kernel", 1, out, "out")
    site.bind("bias", 0, out, "out")
    site.size("units", out)
    return rest + activated(site, out, rank - 1)


def prelu(site: Site) -> Marks:
    """PReLU: alpha has the input's shape without batch, 1 on shared axes."""
    for axis in site.inputs[0].axes:
        vector, _ = site.split(axis)
        if site.layer.alpha.shape[axis - 1] == vector.shape[-1]:
            site.bind("alpha", axis - 1, vector, "through")
    return site.inputs[0].resolved(site.table.labels)


def softmax(site: Site) -> Marks:
    """Softmax: over the channels that are there."""
    axis = getattr(site.layer, "axis", -1)
    rank = len(site.in_shapes[0])
    axes = [a % rank for a in (axis if hasattr(axis, "__iter__") else [axis])]
    others = [site.inputs[i] for i in range(1, len(site.inputs))]
    if any(m.axes for m in others):
        return site.block_inputs("has a mask with pruned channels")[0]
    return counted(site, site.inputs[0], axes)


def counted(site: Site, marks: Marks, axes: list[int]) -> Marks:
    """Marks of a softmax or norm over some axes, whose labels it counts."""
    for axis in axes:
        if axis in marks.axes:
            vector, _ = site.project(marks, axis, None)
            site.counts(vector)
    return marks.resolved(site.table.labels)


def activation(site: Site) -> Marks:
    """Activation: keeps the channels; softmax counts them."""
    if kind_of(site.layer.activation) == "elementwise":
        return site.inputs[0]
    rank = len(site.in_shapes[0])
    vector, rest = site.split(-1)
    return rest + activated(site, vector, rank - 1)


def elementwise(site: Site) -> Marks:
    """Add, Subtract, Multiply, Average, Maximum, Minimum, with broadcast (squeeze-and-excite)."""
    rank = len(site.out_shapes[0])
    marks, shapes = [], []
    for m, shape in zip(site.inputs, site.in_shapes, strict=True):
        shape = tuple(shape)
        while m.rank < rank:  # Keras adds missing axes after the batch
            m, shape = insert_axis(m, 1), (shape[0], 1, *shape[1:])
        marks.append(m)
        shapes.append(shape)
    return merge(site, marks, shapes)


def concatenate(site: Site) -> Marks:
    """Concatenate: labels side by side on its axis, tied on the others."""
    axis = site.layer.axis % len(site.out_shapes[0])
    return join(site, site.inputs, site.in_shapes, axis)


def flatten(site: Site) -> Marks:
    """Flatten: row-major, so a channel owns every C-th position (channels last)."""
    marks, shape = site.inputs[0], site.in_shapes[0]
    if channel_axis(site.layer, len(shape)) == 1 and len(shape) > 2:
        marks = marks.map(lambda p: np.moveaxis(p, 1, -1))
        shape = (shape[0], *shape[2:], shape[1])
    return reshape_marks(site, marks, shape, site.out_shapes[0])


def reshape(site: Site) -> Marks:
    """Reshape: labels are reshaped like the data; the target shape is counted anew."""
    target = site.out_shapes[0]
    out = reshape_marks(site, site.inputs[0], site.in_shapes[0], target)
    given = list(site.layer.target_shape)
    dims = counted_shape(out, target, [None, *given])[1:]
    site.dims("target_shape", dims)
    return out


def permute(site: Site) -> Marks:
    """Permute: the labels move with their axes."""
    return site.inputs[0].map(lambda p: np.transpose(p, (0, *site.layer.dims)))


def global_pool(site: Site) -> Marks:
    """GlobalAverage/MaxPooling: the spatial axes go, or stay with length 1."""
    rank = len(site.in_shapes[0])
    axis = channel_axis(site.layer, rank)
    gone = [a for a in range(1, rank) if a != axis]
    return reduce(site, site.inputs[0], gone, len(site.out_shapes[0]) == rank)


def repeat_vector(site: Site) -> Marks:
    """RepeatVector: [batch, features] -> [batch, n, features]."""
    marks, labels = copies(site, insert_axis(site.inputs[0], 1), 1, site.layer.n)
    site.size("n", labels)
    return marks


def embedding(site: Site) -> Marks:
    """Embedding: table [vocabulary, width]; every index axis keeps its labels."""
    rank = len(site.out_shapes[0])
    if site.inputs[0].axes:
        site.block_inputs("looks its values up in a table")
    out = site.new(site.layer.output_dim)
    site.bind("embeddings", 1, out, "out")
    site.size("output_dim", out)
    return site.out(out, rank - 1)


def reversible_embedding(site: Site) -> Marks:
    """ReversibleEmbedding: an Embedding, or the product with its table (transposed)."""
    if not site.argument("reverse").value:
        out = embedding(site)
        if not site.layer.tie_weights:
            site.bind("reverse_embeddings", 0, site.new(site.layer.output_dim, "reverse"))
        return out
    into, rest = site.split(-1)
    table = ("embeddings", 1) if site.layer.tie_weights else ("reverse_embeddings", 0)
    site.bind(*table, into)
    site.size("output_dim", into)
    return rest


def lambda_layer(site: Site) -> list[Marks]:
    """Lambda: a Python function that cannot be read."""
    return site.block_inputs(
        "runs a Python function that cannot be read; write it with operations on tensors, or add "
        "a rule with tfedge.graph.RULES[...] = rule"
    )


def unknown(site: Site) -> list[Marks]:
    """A layer without a rule: what enters it stays whole."""
    return site.block_inputs("has no pruning rule; add one with tfedge.graph.RULES[...] = rule")

"""Rules of operations on images: depth and space, patches, resizing, pooling, constant filters."""

from __future__ import annotations

import numpy as np

from tfedge.graph.labels import Marks
from tfedge.graph.rules_shape import operand
from tfedge.graph.site import Site

_MOVES = "moves along the axis that is pruned"


def depth_to_space(site: Site) -> Marks:
    """Channel (by * block + bx) * C_out + c goes to pixel (by, bx) of channel c (channels last)."""
    block = int(site.argument("block_size").value)
    if _first(site):
        return site.block_inputs("moves depth to space with channels first")[0]
    table = site.only(-1, _MOVES)
    table = table.reshape(*table.shape[:-1], block * block, -1)
    site.tie(table, table[..., :1, :])
    return site.out(table[..., 0, :], 3)


def space_to_depth(site: Site) -> Marks:
    """Pixel (by, bx) of channel c goes to channel (by * block + bx) * C + c (channels last)."""
    block = int(site.argument("block_size").value)
    if _first(site):
        return site.block_inputs("moves space to depth with channels first")[0]
    return site.out(np.tile(site.only(-1, _MOVES), block**2), 3)


def _first(site: Site) -> bool:
    layout = str(site.argument("data_format").value)
    return "NC" in layout or "first" in layout


def extract_patches(site: Site) -> Marks:
    """Patches of an image, each row-major with its channels last."""
    channels = site.in_shapes[0][-1] or 0
    if _first(site) or not channels:
        return site.block_inputs("takes patches with channels first")[0]
    vector = site.only(-1, _MOVES)
    count = (site.out_shapes[0][-1] or 0) // channels
    return site.out(np.tile(vector, count), len(site.out_shapes[0]) - 1)


def image_op(site: Site) -> Marks:
    """Resizes, crops, pads or flips images: every channel alike."""
    rank = len(site.in_shapes[0])
    axis = rank - 3 if _first(site) else rank - 1
    return site.out(site.only(axis, _MOVES), axis)


def pooling_op(site: Site) -> Marks:
    """Pooling written as an operation."""
    rank = len(site.in_shapes[0])
    axis = 1 if _first(site) else rank - 1
    vector = site.only(axis, "slides over the axis that is pruned")
    size = site.argument("ksize").value
    if size is not None and np.size(size) == rank and np.ravel(size)[axis] != 1:
        return site.block_inputs("pools channels")[0]
    return site.out(vector, axis)


def bias_add(site: Site) -> Marks:
    """Adds a constant along the channels."""
    rank = len(site.in_shapes[0])
    axis = 1 if _first(site) else rank - 1
    bias = operand(site, site.argument("bias"))
    if bias is None or bias.path is None:
        return site.block_inputs("adds a tensor as bias")[0]
    vector, rest = site.split(axis)
    if axis in site.inputs[0].axes:
        site.edit(bias.path, "compress", (0, vector))
    return rest + site.out(vector, axis)


def constant_depthwise(site: Site) -> Marks:
    """A depthwise convolution with a constant filter [h, w, in, multiplier] (a blur)."""
    filters = operand(site, site.argument("filter"))
    if filters is None or filters.path is None or _first(site):
        return site.block_inputs("convolves with a filter that is not a constant")[0]
    vector = site.only(-1, "slides over the axis that is pruned")
    if site.inputs[0].axes:
        site.edit(filters.path, "compress", (2, vector))
    return site.out(np.repeat(vector, filters.shape[3] or 1, axis=-1), 3)

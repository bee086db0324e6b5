"""The rule of `keras.ops.rearrange`: a reshape, a transpose and a reshape in one pattern."""

from __future__ import annotations

import re
from math import prod

import numpy as np

from tfedge.graph.labels import Marks
from tfedge.graph.rules_shape import reshape
from tfedge.graph.site import Dim, Site


def rearrange(site: Site) -> Marks:
    """Rearranges axes by an einops pattern; lengths of labelled axes are counted anew."""
    pattern = site.argument("pattern").value
    left, right = (_groups(side) for side in re.split(r"\s*->\s*", pattern))
    names, sizes = _expanded(site, left)
    wide = reshape(site, site.inputs[0], site.in_shapes[0], sizes)
    site.grid(wide)
    for axis in wide.axes:
        length = site.argument(names[axis])
        if length.path and length.path[0] == "kwargs":
            site.edit(length.path, "size", Dim(wide, axis, sizes[axis] or 0))
    order = [names.index(n) for group in right for n in group]
    moved = wide.map(lambda p: np.transpose(p, order))
    return reshape(site, moved, [sizes[a] for a in order], site.out_shapes[0])


def _groups(side: str) -> list[list[str]]:
    """Names of each axis: one, or several in brackets."""
    return [re.findall(r"\w+", axis) for axis in re.findall(r"\w+|\(.*?\)", side)]


def _expanded(site: Site, groups: list[list[str]]) -> tuple[list[str], list[int | None]]:
    """Names and lengths of all axes, one by one; a length not given is what is left."""
    names: list[str] = []
    sizes: list[int | None] = []
    for group, dim in zip(groups, site.in_shapes[0], strict=True):
        given = {n: site.argument(n).value for n in group if len(group) > 1}
        known = prod(int(v) for v in given.values() if v is not None)
        for name in group:
            left = None if dim is None else dim // known
            names.append(name)
            sizes.append(dim if len(group) == 1 else given[name] if given[name] else left)
    return names, sizes

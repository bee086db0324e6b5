"""Rules of operations written as functions: `keras.ops` calls, and TensorFlow calls in tf_keras."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.graph.arguments import Parameter, axes_of, is_dynamic
from tfedge.graph.labels import Marks, along, plane_axes, unlabelled
from tfedge.graph.rules import counted
from tfedge.graph.rules_shape import (
    Operand,
    aligned,
    counted_shape,
    cut_constants,
    drop_axis,
    insert_axis,
    join,
    leading,
    merge,
    operand,
    reduce,
    reshape,
)
from tfedge.graph.site import Dim, Site
from tfedge.graph.trace import Ref


def unary(site: Site) -> Marks:
    """Element by element: activations, arithmetic with one tensor, casts."""
    return site.inputs[0]


def broadcasting(site: Site) -> Marks:
    """Two or more operands, numpy broadcasting; array constants are cut along."""
    rank = len(site.out_shapes[0])
    operands = [o for o in (operand(site, p) for p in _values(site)) if o is not None]
    tensors = [o for o in operands if o.path is None]
    if len(tensors) != len(site.inputs):
        return site.block_inputs("joins tensors in a way that is not known")[0]
    marks = [leading(o.marks, rank) for o in tensors]
    out = merge(site, marks, [aligned(o.shape, rank) for o in tensors])
    cut_constants(site, operands, out)
    return out.resolved(site.table.labels)


def _values(site: Site) -> list[Parameter]:
    """All values of the call, lists of tensors taken apart, and where they stand."""
    places = [Parameter(v, ("args", i)) for i, v in enumerate(site.call.args)]
    places += [Parameter(v, ("kwargs", k)) for k, v in site.call.kwargs.items() if k != "name"]
    out = []
    for p in places:
        if isinstance(p.value, (list, tuple)) and any(isinstance(v, Ref) for v in p.value):
            out += [Parameter(v, (*p.path, i)) for i, v in enumerate(p.value)]
        else:
            out.append(p)
    return out


def clip(site: Site) -> Marks:
    """Clips element by element; array limits are cut along."""
    limits = [site.argument(*n) for n in (("x_min", "clip_value_min"), ("x_max", "clip_value_max"))]
    operands = [operand(site, p) for p in limits]
    if any(o is not None and o.path is None for o in operands):
        return broadcasting(site)
    cut_constants(site, [o for o in operands if o is not None], site.inputs[0])
    return site.inputs[0]


def reshape_op(site: Site) -> Marks:
    """A reshape whose shape names the batch axis too."""
    target = site.argument("newshape", "shape")
    shape = site.out_shapes[0]
    out = reshape(site, site.inputs[0], site.in_shapes[0], shape)
    given = target.value
    if not out.axes:
        return out
    listed = _listed(given)
    if listed is None or any(_is_tensor(listed[a]) for a in out.axes):
        site.block(out, "reshapes to a shape that is computed at run time")
        return unlabelled(len(shape))
    dims = counted_shape(out, shape, [-1 if _is_tensor(v) else v for v in listed])
    edited = [v if _is_tensor(v) else d for v, d in zip(listed, dims, strict=True)]
    site.edit(target.path, "shape", edited)
    return out


def ravel(site: Site) -> Marks:
    """Ravel: all axes become one, the batch too."""
    return reshape(site, site.inputs[0], site.in_shapes[0], site.out_shapes[0])


def _listed(shape: Any) -> list[Any] | None:
    """A shape parameter as a list, or None where it is one tensor."""
    if isinstance(shape, (list, tuple)):
        return list(shape)
    if shape is None or _is_tensor(shape):
        return None
    return [int(n) for n in np.ravel(shape)]


def _is_tensor(value: Any) -> bool:
    return is_dynamic(value)


def transpose_op(site: Site) -> Marks:
    """Transposes; without axes all axes are reversed."""
    order = site.argument("axes", "perm").value
    if is_dynamic(order):
        return site.block_inputs("transposes by axes computed at run time")[0]
    axes = None if order is None else [int(a) for a in np.ravel(order)]
    if site.argument("conjugate").value:
        return site.block_inputs("conjugates")[0]
    return site.inputs[0].map(lambda p: np.transpose(p, axes))


def swapaxes(site: Site) -> Marks:
    """Swaps two axes."""
    a, b = int(site.argument("axis1").value), int(site.argument("axis2").value)
    return site.inputs[0].map(lambda p: np.swapaxes(p, a, b))


def moveaxis(site: Site) -> Marks:
    """Moves axes from source to destination."""
    source, goal = site.argument("source").value, site.argument("destination").value
    return site.inputs[0].map(lambda p: np.moveaxis(p, source, goal))


def expand_dims(site: Site) -> Marks:
    """Adds axes of length 1."""
    axis = site.argument("axis").value
    axes = tuple(axis) if hasattr(axis, "__iter__") else int(axis)
    return site.inputs[0].map(lambda p: np.expand_dims(p, axes), len(site.out_shapes[0]))


def squeeze(site: Site) -> Marks:
    """Drops axes of length 1; a labelled axis has more channels and stays."""
    rank = len(site.in_shapes[0])
    given = site.argument("axis").value
    if given is None or (hasattr(given, "__len__") and not len(given)):
        axes = [a for a, d in enumerate(site.in_shapes[0]) if d == 1]
    else:
        axes = axes_of(given, rank)
    if set(axes) & set(site.inputs[0].axes):
        return site.block_inputs("drops a labelled axis")[0]
    return site.inputs[0].map(lambda p: np.squeeze(p, tuple(axes)), rank - len(axes))


def concat_op(site: Site) -> Marks:
    """Concatenates tensors, and array constants."""
    rank = len(site.out_shapes[0])
    place = site.argument("xs", "values", "tensors", "arrays")
    axis = int(site.argument("axis").value or 0) % rank
    return _joined(site, place, axis)


def _joined(site: Site, place: Parameter, axis: int) -> Marks:
    rank = len(site.out_shapes[0])
    values = place.value if isinstance(place.value, (list, tuple)) else ()
    parts = [operand(site, Parameter(v, (*place.path, i))) for i, v in enumerate(values)]
    if not parts or any(p is None or len(p.shape) != rank for p in parts):
        return site.block_inputs("concatenates in a way that is not known")[0]
    known: list[Operand] = parts  # type: ignore[assignment]
    off = _off_axis(site, [p for p in known if p.path is None], axis)
    marks = [off if p.path is not None else p.marks for p in known]
    out = join(site, marks, [p.shape for p in known], axis)
    kept = Marks(tuple(q for q in out.planes if axis not in plane_axes(q)), rank)
    cut_constants(site, [p for p in known if p.path is not None], kept)
    return out


def _off_axis(site: Site, tensors: list[Operand], axis: int) -> Marks:
    """What a constant carries on the other axes: the labels of the first tensor that has any."""
    rank = len(site.out_shapes[0])
    for t in tensors:
        planes = tuple(p for p in t.marks.planes if p.size > 1 and axis not in plane_axes(p))
        if planes:
            return Marks(planes, rank)
    return unlabelled(rank)


def append_op(site: Site) -> Marks:
    """Appends one tensor to another."""
    axis = site.argument("axis").value
    if axis is None or len(site.inputs) != 2:
        return site.block_inputs("concatenates in a way that is not known")[0]
    return join(site, site.inputs, site.in_shapes, int(axis) % len(site.out_shapes[0]))


def stacked_along(axis: int) -> Any:
    """The rule of hstack, vstack and dstack for tensors that have the axis."""

    def rule(site: Site) -> Marks:
        if any(len(s) <= axis or len(s) != len(site.out_shapes[0]) for s in site.in_shapes):
            return site.block_inputs("stacks tensors of few axes")[0]
        return join(site, site.inputs, site.in_shapes, axis)

    return rule


def stack_op(site: Site) -> Marks:
    """Stacks along a new axis, so the tensors are tied."""
    axis = int(site.argument("axis").value or 0) % len(site.out_shapes[0])
    place = site.argument("xs", "x", "values", "arrays")
    values = place.value if isinstance(place.value, (list, tuple)) else ()
    if sum(isinstance(v, Ref) for v in values) != len(values) or not values:
        return site.block_inputs("stacks constants")[0]
    return insert_axis(merge(site, site.inputs, site.in_shapes), axis)


def unstack_op(site: Site) -> list[Marks]:
    """Takes an axis apart."""
    axis = int(site.argument("axis").value or 0) % len(site.in_shapes[0])
    marks = site.spread(axis)
    if axis in marks.axes:
        return site.block_inputs("takes its channels apart")
    return [drop_axis(marks, axis) for _ in site.out_shapes]


def split_op(site: Site) -> list[Marks]:
    """Splits; the sizes of the parts are counted anew."""
    axis = int(site.argument("axis").value or 0) % len(site.in_shapes[0])
    alone = all(s[axis] == 1 for s in site.out_shapes)
    marks = site.spread(axis) if alone else site.inputs[0]
    if axis not in marks.axes:
        return [marks for _ in site.out_shapes]
    parts, start = [], 0
    for shape in site.out_shapes:
        stop = start + (shape[axis] or 0)
        parts.append(_piece(marks, axis, slice(start, stop)))
        start = stop
    dims = [Dim(p, axis, s[axis] or 0) for p, s in zip(parts, site.out_shapes, strict=True)]
    sizes = site.argument("num_or_size_splits")
    where = site.argument("indices_or_sections")
    if where.path:
        site.edit(where.path, "indices", dims[:-1])
    elif sizes.path and not is_dynamic(sizes.value):
        site.edit(sizes.path, "shape", dims)
    else:
        return site.block_inputs("splits in a way that is not known")
    return parts


def array_split(site: Site) -> list[Marks]:
    """Splits into parts by their number alone."""
    axis = int(site.argument("axis").value or 0) % len(site.in_shapes[0])
    if axis in site.inputs[0].axes:
        return site.block_inputs("splits into parts that are as equal as they can be")
    return [site.inputs[0] for _ in site.out_shapes]


def _piece(marks: Marks, axis: int, index: slice) -> Marks:
    """A slice of the marks along one axis."""
    place = (slice(None),) * axis + (index,)
    return marks.map(lambda p: p[place] if p.shape[axis] > 1 else p)


def reduce_op(site: Site) -> list[Marks]:
    """mean, sum, max, min, var, std over axes; over channels they count the kept ones."""
    rank = len(site.in_shapes[0])
    axes = axes_of(site.argument("axis", "axes").value, rank)
    out = reduce(site, site.inputs[0], axes, len(site.out_shapes[0]) == rank)
    return [out for _ in site.out_shapes]


def positions_op(site: Site) -> list[Marks]:
    """argmax, sort, top_k, roll and others whose result names positions on an axis."""
    rank = len(site.in_shapes[0])
    axis = site.argument("axis").value
    axes = axes_of(-1 if axis is None and type(site.layer).__name__ == "TopK" else axis, rank)
    marks = site.inputs[0]
    if set(axes) & set(marks.axes) or any(m.axes for m in site.inputs[1:]):
        return site.block_inputs("depends on the order of the channels")
    out_rank = len(site.out_shapes[0])
    if out_rank == rank:
        return [marks for _ in site.out_shapes]
    dropped = marks.map(lambda p: np.squeeze(p, tuple(axes)), out_rank)
    return [dropped for _ in site.out_shapes]


def last_axis_positions(site: Site) -> list[Marks]:
    """top_k and in-order operations over the last axis."""
    marks = site.inputs[0]
    if marks.rank - 1 in marks.axes:
        return site.block_inputs("depends on the order of the channels")
    return [marks for _ in site.out_shapes]


def cumulative(site: Site) -> Marks:
    """Cumsum, cumprod: a channel that is gone adds nothing."""
    axis = site.argument("axis").value
    rank = len(site.in_shapes[0])
    if axis is None or len(site.out_shapes[0]) != rank:
        return site.block_inputs("runs over the flat tensor")[0]
    return counted(site, site.inputs[0], [int(axis) % rank])


def softmax_op(site: Site) -> Marks:
    """softmax, log_softmax, l2_normalize over an axis: counts the channels that are there."""
    marks = site.inputs[0]
    axis = site.argument("axis").value
    return counted(site, marks, axes_of(-1 if axis is None else axis, marks.rank))


def glu_op(site: Site) -> Marks:
    """Glu: half of the channels gate the other half."""
    axis = axes_of(site.argument("axis").value, site.inputs[0].rank)[-1]
    vector, rest = site.split(axis)
    halves = vector.reshape(*vector.shape[:-1], 2, -1)
    site.tie(halves, halves[..., :1, :])
    return rest + site.out(halves[..., 0, :], axis)


def pad_op(site: Site) -> Marks:
    """Pads; padded channels can be cut as well, where they are constant."""
    place = site.argument("pad_width", "paddings")
    marks, rank = site.inputs[0], len(site.in_shapes[0])
    if is_dynamic(place.value) and marks.axes:
        return site.block_inputs("pads by widths computed at run time")[0]
    widths = np.broadcast_to(np.asarray(place.value), (rank, 2))
    mode = str(site.argument("mode").value or "constant").lower()
    value = site.argument("constant_values").value
    padded = [a for a in marks.axes if widths[a].any()]
    if not padded:
        return marks
    if mode != "constant" or np.size(0 if value is None else value) > 1:
        return site.block_inputs(f"pads channels in mode '{mode}'")[0]
    dims: list[list[Any]] = [[int(a), int(b)] for a, b in widths]
    for axis in padded:
        vector, rest = site.project(marks, axis, site.in_shapes[0][axis])
        before, after = (site.new(int(n), "padding", passive=True) for n in widths[axis])
        rows = [np.concatenate([before, row, after]) for row in np.atleast_2d(vector)]
        marks = rest + along(np.stack(rows), axis, rank)
        dims[axis] = [before, after]
    site.edit(place.path, "shape", dims)
    return marks


def norm_op(site: Site) -> Marks:
    """layer_normalization, rms_normalization written as operations, with constant factors."""
    marks = site.inputs[0]
    factors = [operand(site, site.argument(n)) for n in ("gamma", "beta", "scale")]
    if any(o is not None and o.path is None for o in factors):
        return site.block_inputs("scales by a tensor")[0]
    out = counted(site, marks, axes_of(site.argument("axis").value, marks.rank))
    cut_constants(site, [o for o in factors if o is not None], out)
    return out.resolved(site.table.labels)


def mean_op(site: Site) -> list[Marks]:
    """An average, as a mean where there are no weights."""
    if site.argument("weights").value is not None:
        return site.block_inputs("averages with weights")
    return reduce_op(site)


def matrix_transpose(site: Site) -> Marks:
    """Swaps the last two axes."""
    return site.inputs[0].map(lambda p: np.swapaxes(p, -1, -2))

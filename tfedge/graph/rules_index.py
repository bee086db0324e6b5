"""Rules of operations that pick, repeat or reorder positions: slices, gather, tile, flip."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.graph.arguments import Parameter, Path, axes_of, is_dynamic
from tfedge.graph.labels import Marks, along, plane_axes
from tfedge.graph.rules_shape import aligned, copies, counted_shape, leading, none_like
from tfedge.graph.site import Site
from tfedge.graph.trace import flatten


def getitem(site: Site) -> Marks:
    """x[key]: over labelled axes slices get new bounds, and single positions a new number."""
    place = _key_place(site)
    single = not isinstance(place.value, (tuple, list))
    key = [_as_slice(k) for k in ([place.value] if single else place.value)]
    rank = len(site.in_shapes[0])
    used = sum(k is not None and k is not Ellipsis for k in key)
    marks, axis, index = site.inputs[0], 0, []
    for at, k in _full(key, rank - used):
        if k is None:
            index.append(None)
            continue
        if isinstance(k, (int, np.integer)):
            site.inputs[0] = marks
            marks = site.spread(axis)
        if axis in marks.axes:
            path = () if at is None else place.path if single else (*place.path, at)
            picked = _picked(site, marks, axis, k, path)
            if picked is None:
                return site.block_inputs("picks channels in a way that cannot follow a cut")[0]
            marks = picked
        elif not isinstance(k, (slice, int, np.integer)) and not is_dynamic(k):
            return site.block_inputs("picks positions by an array")[0]
        index.append(slice(None) if isinstance(k, slice) else 0)
        axis += 1
    return marks.map(lambda p: p[tuple(index)], len(site.out_shapes[0]))


def _full(key: list[Any], missing: int) -> list[tuple[int | None, Any]]:
    """The key with its ellipsis written out: (place in the key, entry)."""
    out: list[tuple[int | None, Any]] = []
    seen = False
    for i, k in enumerate(key):
        if k is Ellipsis:
            seen = True
            out += [(None, slice(None))] * missing
        else:
            out.append((i, k))
    return out if seen else out + [(None, slice(None))] * missing


def _key_place(site: Site) -> Parameter:
    found = site.argument("key", "slice_spec")
    return found if found.path else Parameter(site.call.args[1], ("args", 1))


def _as_slice(key: Any) -> Any:
    """tf_keras keeps slices as dicts."""
    return slice(key["start"], key["stop"], key["step"]) if isinstance(key, dict) else key


def _picked(site: Site, marks: Marks, axis: int, k: Any, path: Path) -> Marks | None:
    """Marks after indexing a labelled axis (left with length 1 by a number); None: cannot."""
    if is_dynamic([k.start, k.stop, k.step] if isinstance(k, slice) else k):
        return None
    vector, rest = site.project(marks, axis, site.in_shapes[0][axis])
    n = vector.shape[-1]
    if isinstance(k, (int, np.integer)):
        at = int(k) % n
        site.edit(path, "size", vector[..., :at])
        return rest + along(vector[..., at : at + 1], axis, marks.rank)
    if not isinstance(k, slice):
        return None
    start, stop, step = k.indices(n)
    if step == 1:
        if path and (start, stop) != (0, n):
            site.edit(path, "slice", (vector[..., :start], vector[..., :stop]))
        return rest + along(vector[..., start:stop], axis, marks.rank)
    if step == -1 and (start, stop) == (n - 1, -1):
        return rest + along(vector[..., ::-1], axis, marks.rank)
    if step < 1 or n % step or start >= step or k.stop is not None:
        return None
    blocks = vector.reshape(*vector.shape[:-1], -1, step)
    site.tie(blocks, blocks[..., :1])  # whole strides go, so that the rest stay in step
    return rest + along(blocks[..., start], axis, marks.rank)


def slice_op(site: Site) -> Marks:
    """A slice by begin and size: both are counted anew."""
    begin = site.argument("start_indices", "begin", "begin_")
    size = site.argument("shape", "size", "size_")
    marks = site.inputs[0]
    if is_dynamic([_plain(begin.value), _plain(size.value)]) and marks.axes:
        return site.block_inputs("slices by positions computed at run time")[0]
    for axis in list(marks.axes):
        n = site.in_shapes[0][axis] or 0
        start, count = int(begin.value[axis]), int(size.value[axis])
        stop = n if count == -1 else start + count
        vector, rest = site.project(marks, axis, n)
        marks = rest + along(vector[..., start:stop], axis, marks.rank)
        site.edit((*begin.path, axis), "size", vector[..., :start])
        if count != -1:
            site.edit((*size.path, axis), "size", vector[..., start:stop])
    return marks


def _plain(value: Any) -> list[Any]:
    return flatten(value) if isinstance(value, (list, tuple)) else [value]


def take(site: Site) -> Marks:
    """Take and gather: constant positions are numbered anew."""
    source, where = site.argument("x", "params"), site.argument("indices")
    rank, axis = len(site.in_shapes[0]), site.argument("axis").value
    first = site.number(source.value)
    if first != 0 or site.argument("batch_dims").value or (axis is None and rank > 1):
        return _gather_default(site, axis, first)
    return _take(site, int(axis or 0) % rank, where)


def _gather_default(site: Site, axis: Any, first: int | None) -> Marks:
    """tf.gather without an axis takes rows; anything else is not known."""
    plain = axis is None and first == 0 and not site.argument("batch_dims").value
    if plain and site.argument("params").path:
        return _take(site, 0, site.argument("indices"))
    return site.block_inputs("gathers in a way that is not known")[0]


def _take(site: Site, axis: int, where: Parameter) -> Marks:
    marks = site.inputs[0]
    number = site.number(where.value)
    if number is not None and site.inputs[number].axes:
        return site.block_inputs("gathers by pruned positions")[0]
    depth = len(site.in_shapes[number]) if number is not None else np.ndim(where.value)
    if axis in marks.axes:
        if number is not None or depth > 1:
            return site.block_inputs("gathers channels in a way that cannot follow a cut")[0]
        vector, marks = site.project(marks, axis, site.in_shapes[0][axis])
        index = np.asarray(where.value, int) % vector.shape[-1]
        if depth:
            site.edit(where.path, "pick", (vector, tuple(index.tolist())))
        else:
            site.edit(where.path, "size", vector[..., : int(index)])
        chosen = along(vector[..., np.atleast_1d(index)], axis, marks.rank)
        marks = marks + chosen
    if depth == 0:
        return marks.map(lambda p: np.take(p, 0, axis=axis), marks.rank - 1)
    more = tuple(range(axis + 1, axis + depth))
    return marks.map(lambda p: np.expand_dims(p, more), marks.rank + depth - 1)


def repeat(site: Site) -> Marks:
    """Repeats every position n times."""
    count, axis = site.argument("repeats").value, site.argument("axis").value
    marks = site.inputs[0]
    if axis is None or is_dynamic(count) or np.size(count) != 1:
        return site.block_inputs("repeats channels in a way that is not known")[0]
    n, axis = int(np.ravel(count)[0]), int(axis) % marks.rank
    if site.in_shapes[0][axis] == 1 and axis and np.ndim(count) == 0:
        return _copies(site, marks, axis, n, site.argument("repeats").path)
    return marks.map(lambda p: np.repeat(p, n, axis) if p.shape[axis] > 1 else p)


def _copies(site: Site, marks: Marks, axis: int, n: int, path: Path) -> Marks:
    """Marks after one value was repeated n times."""
    marks, labels = copies(site, marks, axis, n)
    site.edit(path, "size", labels)
    return marks


def tile(site: Site) -> Marks:
    """Repeats the whole axis again and again."""
    place = site.argument("repeats", "multiples")
    rank = len(site.out_shapes[0])
    marks = leading(site.inputs[0], rank)
    times = _counts(place.value, rank)
    if any(times[a] is None for a in marks.axes):
        return site.block_inputs("repeats channels a number of times computed at run time")[0]

    def tiled(plane: np.ndarray) -> np.ndarray:
        own = plane_axes(plane)
        return np.tile(plane, [times[a] if a in own else 1 for a in range(rank)])

    out = marks.map(tiled)
    offset = rank - len(_counts(place.value, 0))
    shape = aligned(site.in_shapes[0], rank)
    for axis in range(max(1, offset), rank):
        if shape[axis] == 1 and (times[axis] or 1) > 1:
            out = _copies(site, out, axis, times[axis] or 1, (*place.path, axis - offset))
    return out


def _counts(value: Any, rank: int) -> list[int | None]:
    """Repeats of each axis; None where a tensor says it."""
    if is_dynamic(value) and not isinstance(value, (list, tuple)):
        return [None] * rank
    listed = list(value) if isinstance(value, (list, tuple)) else list(np.ravel(value))
    counts = [None if is_dynamic(v) else int(v) for v in listed]
    return [1] * (rank - len(counts)) + counts


def flip(site: Site) -> Marks:
    """Flip and reverse: channels in the other order."""
    axes = axes_of(site.argument("axis").value, site.inputs[0].rank)
    return site.inputs[0].map(lambda p: np.flip(p, axes))


def broadcast_to(site: Site) -> Marks:
    """Broadcasts to a shape, in which labelled axes are counted anew."""
    place, shape = site.argument("shape"), site.out_shapes[0]
    out = leading(site.inputs[0], len(shape))
    if not isinstance(place.value, (list, tuple)):
        return site.block_inputs("broadcasts to a shape computed at run time")[0]
    if any(is_dynamic(place.value[a]) for a in out.axes):
        return site.block_inputs("broadcasts to a shape computed at run time")[0]
    given = [None if is_dynamic(v) else v for v in place.value]
    source = aligned(site.in_shapes[0], len(shape))
    for axis in range(1, len(shape)):
        if source[axis] == 1 and isinstance(given[axis], int) and given[axis] > 1:
            out, _ = copies(site, out, axis, given[axis])
    dims = counted_shape(out, shape, given)
    edited = [o if is_dynamic(o) else d for o, d in zip(place.value, dims, strict=True)]
    site.edit(place.path, "shape", edited)
    return out


def shape_op(site: Site) -> list[Marks]:
    """The shape may be asked for axes that no cut changes."""
    marks = site.inputs[0]
    for axis in marks.axes:
        if _asked(site, axis):
            return site.block_inputs("asks for the number of channels at run time")
    return none_like(site)


def _asked(site: Site, axis: int) -> bool:
    """Whether the length of an axis is read from this call's result."""
    rank = len(site.in_shapes[0])
    number = site.call.outputs[0]
    if number in site.graph.output_refs():
        return True
    for call in site.graph.calls:
        if number not in call.inputs:
            continue
        if type(call.layer).__name__ != "SlicingOpLambda" or len(call.args) < 2:
            return True
        key = call.args[1]
        entry = _as_slice(key[0] if isinstance(key, (list, tuple)) else key)
        if is_dynamic([entry.start, entry.stop] if isinstance(entry, slice) else entry):
            return True
        hit = list(range(rank))[entry]
        if axis in (hit if isinstance(hit, list) else [hit]):
            return True
    return False


def matrix_op(site: Site) -> Marks:
    """Tril, triu: rows and columns by number."""
    rank = len(site.in_shapes[0])
    if set(site.inputs[0].axes) & {rank - 1, rank - 2}:
        return site.block_inputs("depends on the order of the channels")[0]
    return site.inputs[0]

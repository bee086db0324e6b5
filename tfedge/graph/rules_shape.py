"""How labels move when tensors are joined, reshaped and cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tfedge.graph.arguments import Parameter, Path, is_dynamic
from tfedge.graph.labels import NEVER, Marks, along, components, plane_axes, unlabelled
from tfedge.graph.site import Dim, Site

Shape = Sequence["int | None"]


@dataclass(frozen=True)
class Operand:
    """One operand of an operation: a tensor of the graph, or an array constant (with its path)."""

    marks: Marks
    shape: tuple[int | None, ...]
    path: Path | None = None


def operand(site: Site, parameter: Parameter) -> Operand | None:
    """The operand that a parameter is; None where it is neither a tensor nor numbers."""
    value = parameter.value
    i = site.number(value)
    if i is not None:
        return Operand(site.inputs[i], tuple(site.in_shapes[i]))
    if value is None or isinstance(value, (str, bytes)) or is_dynamic(value):
        return None
    shape = tuple(getattr(value, "shape", None) or np.shape(value))
    return Operand(unlabelled(len(shape)), shape, parameter.path)


def cut_constants(site: Site, operands: Sequence[Operand], marks: Marks) -> None:
    """Array constants that broadcast against labelled axes lose the same positions."""
    for o in operands:
        if o.path is None:
            continue
        for axis in marks.axes:
            own = axis - (marks.rank - len(o.shape))
            if own >= 0 and o.shape[own] not in (None, 1):
                vector, _ = site.project(marks, axis, o.shape[own])
                site.edit(o.path, "compress", (own, vector))
                marks = marks.resolved(site.table.labels)


def merge(site: Site, marks: list[Marks], shapes: list[Shape]) -> Marks:
    """Labels of an elementwise operation on tensors of one rank, with broadcasting.

    Sets of axes that labels connect are treated one by one: tensors that are longer than 1 there
    are tied; one that carries no labels there keeps the others whole.

    Args:
        site: The call.
        marks: Marks of the operands.
        shapes: Their shapes.
    """
    rank = marks[0].rank if marks else len(site.out_shapes[0])
    out: list[np.ndarray] = []
    for axes in components(marks):
        wide = [
            m for m, s in zip(marks, shapes, strict=True) if any(s[a] != 1 for a in axes)
        ]  # a tensor of length 1 there is the same number for every channel
        out += _tied(site, [_within(m, axes) for m in wide], rank)
    return Marks.of(out, rank)


def _within(marks: Marks, axes: list[int]) -> list[np.ndarray]:
    return [p for p in marks.planes if set(plane_axes(p)) & set(axes)]


def _tied(site: Site, planes: list[list[np.ndarray]], rank: int) -> list[np.ndarray]:
    """Ties the planes of several tensors; returns those of the widest."""
    if len({len(p) for p in planes} | {1}) > 1:
        planes = [_active(site, own) for own in planes]
    counts = {len(p) for p in planes}
    if counts <= {0, 1}:
        flat = [p[0] if p else np.full((1,) * rank, NEVER) for p in planes]
        first = max(flat, key=lambda p: (p.size, p.flat[0] != NEVER))
        for other in flat:
            site.tie(first, other)
        return [first]
    if len(counts) == 1 and _same_axes(planes):
        for others in planes[1:]:
            for a, b in zip(planes[0], others, strict=True):
                site.tie(a, b)
        return planes[0]
    # Cut together or not at all is always right, if coarse.
    every = [p for own in planes for p in (own or [np.full((1,) * rank, NEVER)])]
    first = max(every, key=lambda p: p.size)
    for other in every:
        site.tie(first, other)
    return [first]


def _active(site: Site, planes: list[np.ndarray]) -> list[np.ndarray]:
    """The planes, but copies of one value stay whole where there are other labels."""
    out = [p for p in planes if not site.table.labels.is_passive(p)]
    if not out:
        return planes[:1]
    for p in planes:
        if site.table.labels.is_passive(p):
            site.block(p, "is joined with labels of several axes")
    return out


def _same_axes(planes: list[list[np.ndarray]]) -> bool:
    return all(
        plane_axes(a) == plane_axes(b)
        for others in planes[1:]
        for a, b in zip(planes[0], others, strict=True)
    )


def join(site: Site, marks: list[Marks], shapes: list[Shape], axis: int) -> Marks:
    """Labels of tensors concatenated along an axis: side by side on it, tied on the others.

    Args:
        site: The call.
        marks: Marks of the tensors, all of one rank.
        shapes: Their shapes.
        axis: The axis, not negative.
    """
    rank = marks[0].rank
    out: list[np.ndarray] = []
    joined = [axis]
    for axes in components(marks):
        if axis in axes:
            joined = axes
        else:
            out += _tied(site, [_within(m, axes) for m in marks], rank)
    beside = [
        Marks(
            tuple(p for p in m.planes if _whole(p, s, axis) or set(plane_axes(p)) & set(joined)),
            rank,
        )
        for m, s in zip(marks, shapes, strict=True)
    ]
    if not any(b.planes for b in beside):
        return Marks.of(out, rank)
    if any(s[axis] is None for s in shapes):
        for b in beside:
            site.block(b, "concatenates along a free dimension")
        return Marks.of(out, rank)
    return Marks.of(out + _side_by_side(beside, shapes, axis), rank)


def _whole(plane: np.ndarray, shape: Shape, axis: int) -> bool:
    """True for the one label of a tensor of a single channel."""
    return plane.size == 1 and shape[axis] == 1


def _side_by_side(parts: list[Marks], shapes: list[Shape], axis: int) -> list[np.ndarray]:
    rank = parts[0].rank
    out = []
    for k in range(max(len(p.planes) for p in parts)):
        row = [p.planes[k] if k < len(p.planes) else np.full((1,) * rank, NEVER) for p in parts]
        dims = [max(r.shape[a] for r in row) for a in range(rank)]
        wide = []
        for plane, shape in zip(row, shapes, strict=True):
            target = [shape[axis] or 1 if a == axis else dims[a] for a in range(rank)]
            wide.append(np.broadcast_to(plane, target))
        out.append(np.concatenate(wide, axis))
    return out


def reshape(site: Site, marks: Marks, shape: Shape, target: Shape) -> Marks:
    """Labels after a row-major reshape.

    The two shapes are matched from both ends, so that a free dimension (or axes that move into the
    batch) matters only where the labels are. Labels that change along several axes of the result
    stay so for now: `analyse` ties them when it is known what reads them.
    """
    rank = len(target)
    out = []
    for plane in marks.planes:
        chunks = _chunks(shape, target)
        moved = _reshape_plane(plane, shape, target, chunks)
        if moved is None:
            site.block(plane, "reshapes it together with a free dimension or the batch")
        else:
            out.append(moved)
    return Marks.of(out, rank)


def _reshape_plane(
    plane: np.ndarray, shape: Shape, target: Shape, chunks: list[tuple[range, range]]
) -> np.ndarray | None:
    """One plane, chunk by chunk; None where it changes inside a chunk that does not match."""
    source: list[int] = []
    goal: list[int] = []
    for before, after in chunks:
        if all(plane.shape[a] == 1 for a in before):
            source += [1] * len(before)
            goal += [1] * len(after)
            continue
        old, new = [shape[a] for a in before], [target[a] for a in after]
        if None in old or None in new or prod(old) != prod(new):  # type: ignore[arg-type]
            return None
        source += old  # type: ignore[arg-type]
        goal += new  # type: ignore[arg-type]
    return np.broadcast_to(plane, source).reshape(goal)


def _chunks(shape: Shape, target: Shape) -> list[tuple[range, range]]:
    """Splits both shapes into runs of axes that hold the same elements, as short as possible."""
    head = _matching(shape, target)
    left, right = (head[-1][0].stop, head[-1][1].stop) if head else (0, 0)
    rest, goal = list(shape[left:]), list(target[right:])
    tail = []
    for a, b in reversed_runs(rest, goal):
        tail.append((range(left + a.start, left + a.stop), range(right + b.start, right + b.stop)))
    middle_stop = (tail[0][0].start, tail[0][1].start) if tail else (len(shape), len(target))
    middle = (range(left, middle_stop[0]), range(right, middle_stop[1]))
    return [*head, *([middle] if len(middle[0]) or len(middle[1]) else []), *tail]


def _matching(shape: Shape, target: Shape) -> list[tuple[range, range]]:
    """Runs of axes from the left with equal products; a free dimension matches itself."""
    out: list[tuple[range, range]] = []
    i = j = 0
    while i < len(shape) and j < len(target):
        if shape[i] is None or target[j] is None:
            if shape[i] is not None or target[j] is not None:
                break
            out.append((range(i, i + 1), range(j, j + 1)))
            i, j = i + 1, j + 1
            continue
        run = _run(shape[i:], target[j:])
        if run is None:
            break
        out.append((range(i, i + run[0]), range(j, j + run[1])))
        i, j = i + run[0], j + run[1]
    return out


def _run(shape: Shape, target: Shape) -> tuple[int, int] | None:
    """How many leading axes of each are the first to have equal products."""
    a, b, i, j = shape[0], target[0], 1, 1
    while a != b:
        if a < b:  # type: ignore[operator]
            if i == len(shape) or shape[i] is None:
                return None
            a, i = a * shape[i], i + 1  # type: ignore[operator]
        else:
            if j == len(target) or target[j] is None:
                return None
            b, j = b * target[j], j + 1  # type: ignore[operator]
    return i, j


def reversed_runs(shape: Shape, target: Shape) -> list[tuple[range, range]]:
    """As `_matching`, from the right; free dimensions end it."""
    out = []
    n, m = len(shape), len(target)
    for a, b in _matching(list(shape)[::-1], list(target)[::-1]):
        if any(shape[n - 1 - x] is None for x in a):
            break
        out.append((range(n - a.stop, n - a.start), range(m - b.stop, m - b.start)))
    return out[::-1]


def counted_shape(marks: Marks, shape: Shape, given: Sequence[object]) -> list[object]:
    """A target shape to be counted anew where labels change; -1 and free dimensions stay.

    Args:
        marks: Marks of the result.
        shape: The result's shape, as long as `given`.
        given: The shape as written.
    """
    dims: list[object] = []
    for axis, (dim, old) in enumerate(zip(shape, given, strict=True)):
        counted = axis in marks.axes and dim is not None and old is not None
        dims.append(Dim(marks, axis, dim) if counted and old != -1 else old)  # type: ignore[arg-type]
    return dims


def copies(site: Site, marks: Marks, axis: int, count: int) -> tuple[Marks, np.ndarray]:
    """Marks after one value was repeated along an axis of length 1, and the labels there.

    A copy can go like any channel that it meets.
    """
    labels = site.new(count, "copies", passive=True)
    return marks + along(labels, axis, marks.rank), labels


def insert_axis(marks: Marks, axis: int) -> Marks:
    """Marks after a new axis of length 1 (or of a length along which they do not change)."""
    return marks.map(lambda p: np.expand_dims(p, axis), marks.rank + 1)


def drop_axis(marks: Marks, axis: int) -> Marks:
    """Marks without an axis along which they do not change."""
    return marks.map(lambda p: np.take(p, 0, axis=axis), marks.rank - 1)


def leading(marks: Marks, rank: int) -> Marks:
    """Marks with leading axes added, as numpy broadcasting does."""
    more = (1,) * (rank - marks.rank)
    return marks.map(lambda p: p.reshape(more + p.shape), rank)


def aligned(shape: Shape, rank: int) -> tuple[int | None, ...]:
    """A shape with leading axes added, as numpy broadcasting does."""
    return (1,) * (rank - len(shape)) + tuple(shape)


def reduce(site: Site, marks: Marks, axes: Sequence[int], keep: bool) -> Marks:
    """Labels after a reduction; over labelled axes it counts the channels that are there."""
    gone = set(axes)
    out = []
    for plane in marks.planes:
        own = set(plane_axes(plane))
        if own and own <= gone:
            site.counts(plane)
            continue
        for axis in sorted(own & gone):
            first = np.take(plane, [0], axis=axis)
            site.tie(plane, first)  # the labels of the other axes stay
            plane = first
        out.append(plane)
    rank = marks.rank if keep else marks.rank - len(gone)
    if keep:
        return Marks.of(out, rank)
    return Marks.of([np.squeeze(p, tuple(sorted(gone))) for p in out], rank)


def none_like(site: Site) -> list[Marks]:
    """Marks of outputs that carry no labels."""
    return [unlabelled(len(s)) for s in site.out_shapes]

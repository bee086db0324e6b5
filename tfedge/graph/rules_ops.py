"""Rules of operations written as functions: `keras.ops` calls, and TensorFlow calls in tf_keras.

Both Kerases turn `a + b` or `reshape(x, ...)` on symbolic tensors into nodes: Keras 3 into
operation objects that hold their parameters as attributes, tf_keras into op layers that hold the
function and keep the parameters in the call. `Op` reads either.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.graph.labels import NEVER, along, dependent_axes, unlabelled
from tfedge.graph.site import Path, Site
from tfedge.graph.trace import Ref, flatten


@dataclass(frozen=True)
class Parameter:
    """One parameter of an op: its value and where surgery finds it."""

    value: Any
    path: Path


class Op:
    """Parameters of an op call by name, whichever Keras wrote it.

    Args:
        site: The call.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self._found: dict[str, Parameter] = {}
        function = getattr(site.layer, "function", None)
        if function is not None and not hasattr(site.layer, "symbolic_call"):
            self._bind(function)
            return
        for key, value in vars(site.layer).items():
            self._found[key] = Parameter(value, ("attr", key))
        self._bind(site.layer.call)

    def _bind(self, function: Any) -> None:
        call = self.site.call
        names = list(inspect.signature(function).parameters)
        for i, value in enumerate(call.args):
            if i < len(names):
                self._found[names[i]] = Parameter(value, ("args", i))
        for key, value in call.kwargs.items():
            self._found[key] = Parameter(value, ("kwargs", key))

    def get(self, *names: str) -> Parameter:
        """The first parameter of these names that the call has; value None where it has none."""
        for name in names:
            if name in self._found:
                return self._found[name]
        return Parameter(None, ())


def is_dynamic(value: Any) -> bool:
    """True where a parameter is itself a tensor (computed from shapes at run time)."""
    return any(isinstance(v, Ref) or hasattr(v, "node") for v in flatten(value))


def axes_of(value: Any, rank: int) -> list[int] | None:
    """Axes as non-negative numbers; None means all."""
    if value is None:
        return None
    listed = value if hasattr(value, "__iter__") else [value]
    return [int(a) % rank for a in listed]


def align(labels: np.ndarray, rank: int) -> np.ndarray:
    """Adds leading axes, as numpy broadcasting does."""
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def unary(site: Site) -> np.ndarray:
    """Element by element: activations, arithmetic with one tensor, casts."""
    return site.inputs[0]


def broadcasting(site: Site) -> np.ndarray:
    """Two or more operands, numpy broadcasting; array constants are cut along."""
    rank = len(site.out_shapes[0])
    shapes = [(1,) * (rank - len(s)) + tuple(s) for s in site.in_shapes]
    parts = [align(labels, rank) for labels in site.inputs]
    labelled = sorted({a for p in parts for a in dependent_axes(p)})
    if not labelled:
        return parts[0] if parts else unlabelled(rank)
    full = [p for p, s in zip(parts, shapes, strict=True) if any(s[a] != 1 for a in labelled)]
    for other in full[1:]:
        site.tie(full[0], other)
    widest = max(full, key=lambda p: p.size)
    _cut_constants(site, widest, rank)
    return widest


def _cut_constants(site: Site, labels: np.ndarray, rank: int) -> None:
    """Array constants that vary along a labelled axis lose the same positions."""
    places: list[tuple[Path, Any]] = [(("args", i), v) for i, v in enumerate(site.call.args)]
    places += [(("kwargs", k), v) for k, v in site.call.kwargs.items()]
    for path, value in places:
        if isinstance(value, (Ref, str, bool, int, float, type(None))) or not hasattr(
            value, "shape"
        ):
            continue
        for axis in dependent_axes(labels):
            own = axis - (rank - len(value.shape))
            if own >= 0 and value.shape[own] not in (None, 1):
                site.edit(path, "compress", (own, site.project(labels, axis, value.shape[own])))


def reshape_op(site: Site) -> np.ndarray:
    """reshape(x, shape): shape names the batch axis too."""
    op = Op(site)
    target = op.get("newshape", "shape")
    out = site.reshaped(site.inputs[0], site.in_shapes[0], site.out_shapes[0])
    if not dependent_axes(out):
        return out
    if target.value is None or is_dynamic(target.value):
        site.block(out, "reshapes to a shape that is computed at run time")
        return unlabelled(len(site.out_shapes[0]))
    dims: list[Any] = []
    for axis, given in enumerate(target.value):
        dim = site.out_shapes[0][axis]
        varies = out.shape[axis] > 1 and given not in (-1, None)
        dims.append(site.project(out, axis, dim) if varies else given)
    site.edit(target.path, "shape", dims)
    return out


def transpose_op(site: Site) -> np.ndarray:
    """transpose(x, axes); without axes all axes are reversed."""
    order = Op(site).get("axes", "perm").value
    if order is not None and is_dynamic(order):
        return blocked(site, "transposes by axes computed at run time")
    labels = site.inputs[0]
    return np.transpose(labels, None if order is None else [int(a) for a in order])


def swapaxes(site: Site) -> np.ndarray:
    """Swaps two axes."""
    op = Op(site)
    return np.swapaxes(site.inputs[0], int(op.get("axis1").value), int(op.get("axis2").value))


def moveaxis(site: Site) -> np.ndarray:
    """Moves axes from source to destination."""
    op = Op(site)
    return np.moveaxis(site.inputs[0], op.get("source").value, op.get("destination").value)


def expand_dims(site: Site) -> np.ndarray:
    """Adds an axis of length 1."""
    return np.expand_dims(site.inputs[0], Op(site).get("axis").value)


def squeeze(site: Site) -> np.ndarray:
    """Drops axes of length 1; a labelled axis has more channels and stays."""
    rank = len(site.in_shapes[0])
    axes = axes_of(Op(site).get("axis").value or None, rank)
    if axes is None:
        axes = [a for a, d in enumerate(site.in_shapes[0]) if d == 1]
    return np.squeeze(site.inputs[0], tuple(axes))


def concat_op(site: Site) -> np.ndarray:
    """concatenate(xs, axis)."""
    rank = len(site.out_shapes[0])
    axis = int(Op(site).get("axis").value or 0) % rank
    values = flatten([site.call.args, site.call.kwargs])
    if sum(isinstance(v, Ref) for v in values) != len(site.inputs) or any(
        hasattr(v, "shape") and not isinstance(v, Ref) for v in values
    ):
        return blocked(site, "concatenates a constant")
    return site.join(site.inputs, [s[axis] for s in site.in_shapes], axis)


def stack_op(site: Site) -> np.ndarray:
    """stack(xs, axis): a new axis, so the tensors are tied."""
    rank = len(site.out_shapes[0])
    axis = int(Op(site).get("axis").value or 0) % rank
    for other in site.inputs[1:]:
        site.tie(site.inputs[0], other)
    return np.expand_dims(site.inputs[0], axis)


def unstack_op(site: Site) -> list[np.ndarray]:
    """unstack(x, axis)."""
    axis = int(Op(site).get("axis").value or 0) % len(site.in_shapes[0])
    if axis in dependent_axes(site.inputs[0]):
        site.block_inputs("takes its channels apart")
    labels = np.take(site.inputs[0], 0, axis=axis)
    return [labels for _ in site.out_shapes]


def split_op(site: Site) -> list[np.ndarray]:
    """split(x, parts, axis): the sizes of the parts are counted anew."""
    op = Op(site)
    axis = int(op.get("axis").value or 0) % len(site.in_shapes[0])
    labels = site.inputs[0]
    if axis not in dependent_axes(labels):
        return [labels for _ in site.out_shapes]
    vector = site.vector(axis)
    parts, start = [], 0
    for shape in site.out_shapes:
        parts.append(vector[start : start + (shape[axis] or 0)])
        start += shape[axis] or 0
    sizes, where = op.get("num_or_size_splits"), op.get("indices_or_sections")
    if where.path:
        site.edit(where.path, "indices", parts[:-1])
    elif sizes.path and not is_dynamic(sizes.value):
        site.edit(sizes.path, "sizes", parts)
    else:
        return [blocked(site, "splits in a way that is not known")] * len(parts)
    rank = labels.ndim
    return [along(p, axis, rank) for p in parts]


def getitem(site: Site) -> np.ndarray:
    """x[key]: slices over channels get new bounds."""
    place = _key_place(site)
    key = place.value if isinstance(place.value, (tuple, list)) else (place.value,)
    key = tuple(_as_slice(k) for k in key)
    if is_dynamic([_parts(k) for k in key]):
        return blocked(site, "slices by positions computed at run time")
    rank = len(site.in_shapes[0])
    used = sum(k is not None and k is not Ellipsis for k in key)
    full: list[tuple[int | None, Any]] = []
    for i, k in enumerate(key):
        if k is Ellipsis:
            full += [(None, slice(None))] * (rank - used)
        else:
            full.append((i, k))
    full += [(None, slice(None))] * (rank - sum(k is not None for _, k in full))
    labels, axis, index = site.inputs[0], 0, []
    for i, k in full:
        if k is None:
            index.append(None)
            continue
        if axis in dependent_axes(labels):
            if not isinstance(k, slice) or k.step not in (None, 1):
                return blocked(site, "picks single channels")
            _new_bounds(site, place, i, k, site.vector(axis))
            index.append(k)
        else:
            index.append(0 if isinstance(k, (int, np.integer)) else slice(None))
        axis += 1
    return labels[tuple(index)]


def _key_place(site: Site) -> Parameter:
    op = Op(site)
    found = op.get("key", "slice_spec")
    return found if found.path else Parameter(site.call.args[1], ("args", 1))


def _as_slice(key: Any) -> Any:
    """tf_keras keeps slices as dicts."""
    return slice(key["start"], key["stop"], key["step"]) if isinstance(key, dict) else key


def _parts(key: Any) -> list[Any]:
    return [key.start, key.stop, key.step] if isinstance(key, slice) else [key]


def _new_bounds(site: Site, place: Parameter, i: int | None, k: slice, vector: np.ndarray) -> None:
    start, stop, _ = k.indices(len(vector))
    if i is None or (start == 0 and stop == len(vector)):
        return
    single = not isinstance(place.value, (tuple, list))
    path = place.path if single else (*place.path, i)
    site.edit(path, "slice", (vector[:start], vector[:stop]))


def reduce_op(site: Site) -> np.ndarray:
    """mean, sum, max, min, var, std over axes; over channels they count the kept ones."""
    op = Op(site)
    rank = len(site.in_shapes[0])
    axes = axes_of(op.get("axis").value, rank)
    axes = list(range(rank)) if axes is None else axes
    labels = site.inputs[0]
    if set(axes) & set(dependent_axes(labels)):
        site.counts(labels)
        labels = unlabelled(rank)
    keep = len(site.out_shapes[0]) == rank
    picked = tuple(
        slice(0, 1) if a in axes and keep else 0 if a in axes else slice(None) for a in range(rank)
    )
    return labels[picked]


def softmax_op(site: Site) -> np.ndarray:
    """softmax, log_softmax, l2_normalize over an axis: counts the channels that are there."""
    labels = site.inputs[0]
    axes = axes_of(Op(site).get("axis").value, labels.ndim) or [labels.ndim - 1]
    if set(axes) & set(dependent_axes(labels)):
        site.counts(labels)
    return labels


def pad_op(site: Site) -> np.ndarray:
    """pad(x, widths): padded channels stay."""
    widths = Op(site).get("pad_width", "paddings").value
    labels = site.inputs[0]
    if is_dynamic(widths):
        return blocked(site, "pads by widths computed at run time")
    table = np.broadcast_to(np.asarray(widths), (labels.ndim, 2))
    for axis in dependent_axes(labels):
        labels = np.pad(
            labels, [tuple(table[a]) if a == axis else (0, 0) for a in range(labels.ndim)],
            constant_values=NEVER,
        )  # fmt: skip
    return labels


def depth_to_space(site: Site) -> np.ndarray:
    """Channel (by * block + bx) * C_out + c goes to pixel (by, bx) of channel c (channels last)."""
    op = Op(site)
    block = int(op.get("block_size").value)
    if "NCHW" in str(op.get("data_format").value) or "first" in str(op.get("data_format").value):
        return blocked(site, "moves depth to space with channels first")
    table = site.vector(-1).reshape(block * block, -1)
    site.tie(table, table[:1])
    return along(table[0], 3, 4)


def matmul(site: Site) -> np.ndarray:
    """A @ b: the contracted axes are tied, rows come from a, columns from b."""
    if len(site.inputs) != 2 or any(len(s) < 2 for s in site.in_shapes):
        return blocked(site, "multiplies by a constant matrix")
    op = Op(site)
    parts = [(labels, tuple(s)) for labels, s in zip(site.inputs, site.in_shapes, strict=True)]
    for i, flags in enumerate((("transpose_a", "adjoint_a"), ("transpose_b", "adjoint_b"))):
        if op.get(flags[0]).value or op.get(flags[1]).value:
            labels, shape = parts[i]
            parts[i] = np.swapaxes(labels, -1, -2), (*shape[:-2], shape[-1], shape[-2])
    (a, a_shape), (b, b_shape) = parts
    if _varies(a, -1) or _varies(b, -2):
        site.tie(site.project(a, -1, a_shape[-1]), site.project(b, -2, b_shape[-2]))
    rank = len(site.out_shapes[0])
    if _varies(a, -2) and _varies(b, -1):
        site.block(b, "keeps the columns of a product whose rows are pruned")
    if _varies(a, -2):
        return along(site.project(a, -2, a_shape[-2]), rank - 2, rank)
    if _varies(b, -1):
        return along(site.project(b, -1, b_shape[-1]), rank - 1, rank)
    return unlabelled(rank)


def _varies(labels: np.ndarray, axis: int) -> bool:
    return labels.ndim + axis in dependent_axes(labels)


def blocked(site: Site, reason: str) -> np.ndarray:
    """Blocks all inputs; the label array of an uncut output."""
    site.block_inputs(reason)
    return unlabelled(len(site.out_shapes[0]))

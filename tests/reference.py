"""The network in which some channels do not exist, built from activations alone.

The original layers run one by one; after each call the activations of dead channels are set to
zero. What counts channels (norms, softmax, means over channels) is evaluated over the kept channels
only: its input is compressed, and the result is put back in its place. What a recurrent or
attention layer hears of its own dead units, heads and coordinates is silenced while it runs. No
weight is cut here, so that the reference shares nothing with the surgery.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from tfedge._keras import library, tf
from tfedge.graph import Ref
from tfedge.graph.labels import plane_axes
from tfedge.graph.rules_shape import drop_axis
from tfedge.graph.trace import flatten, map_structure

_REDUCTIONS = set(
    "Mean Sum Max Min Amax Amin Prod Var Std Logsumexp All Any Median Norm Moments Ptp Average "
    "Nanmean Nansum Nanmax Nanmin Nanvar Nanstd Nanprod CountNonzero Cumsum Cumprod Softmax "
    "LogSoftmax Sparsemax Normalize Masking LayerNorm RMSNorm UnitNormalization "
    "math.reduce_mean math.reduce_sum math.reduce_max math.reduce_min math.reduce_prod "
    "math.reduce_variance math.reduce_std math.reduce_logsumexp math.reduce_any math.reduce_all "
    "math.reduce_euclidean_norm compat.v1.norm math.count_nonzero math.cumsum math.cumprod "
    "nn.softmax nn.log_softmax math.l2_normalize GlobalAveragePooling1D GlobalAveragePooling2D "
    "GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D".split()
)


def kind(layer) -> str:
    """Class name of a layer or operation, function name of an op layer."""
    name = type(layer).__name__
    return layer.get_config()["function"] if name.endswith("OpLambda") else name


def random_cuts(analysis, seed, share=0.5):
    """About a share of every group's channels, never all of a part."""
    rng = np.random.default_rng(seed)
    cuts = {}
    for group, parts in zip(analysis.groups, analysis.parts, strict=True):
        free = {c for c in range(group.channels) if not group.fixed[c]}
        order = rng.permutation(sorted(free))
        stays = {next((c for c in order[::-1] if c in part), None) for part in parts}
        free -= stays
        if not group.blocked and group.channels > 1 and free:
            count = min(max(1, int(group.channels * share)), group.channels - 1, len(free))
            cuts[group.name] = np.sort([c for c in order if c in free][:count])
    return cuts


def alive_labels(analysis, cuts) -> np.ndarray:
    """Bool array by label (its last entry for -1)."""
    names = [g.name for g in analysis.groups]
    alive = np.ones(len(analysis.group_of) + 1, bool)
    for name, channels in cuts.items():
        mine = analysis.group_of == names.index(name)
        alive[:-1][mine & np.isin(analysis.channel_of, channels)] = False
    return alive


class Reference:
    """Runs an analysed model without some channels.

    Args:
        analysis: The analysed model.
        cuts: Channels to leave out, by group.
    """

    def __init__(self, analysis, cuts):
        self.analysis, self.cuts = analysis, cuts
        self.alive = alive_labels(analysis, cuts)
        self.lib = library(analysis.graph.flavour)

    def __call__(self, inputs) -> list[np.ndarray]:
        """Outputs, flat, for inputs in the order of the graph."""
        a = self.analysis
        return [np.asarray(t) for t in self.run(a.graph, a.table, a.marks, a.graph, inputs)]

    def run(self, graph, table, marks, outer, inputs) -> list:
        values = dict(zip(graph.inputs, map(tf.convert_to_tensor, inputs), strict=True))

        def leaf(v):
            return values[v.index] if isinstance(v, Ref) else v

        for call in graph.calls:
            args = map_structure(leaf, call.args)
            kwargs = map_structure(leaf, call.kwargs)
            resolved = {i: marks[i].resolved(self.analysis.table.labels) for i in
                        (*call.inputs, *call.outputs)}  # fmt: skip
            result = self.call(call, table, args, kwargs, resolved)
            for number, tensor in zip(call.outputs, flatten(result), strict=True):
                values[number] = self.silent(tensor, resolved[number])
        return [values[i] for i in graph.output_refs()]

    # What dies in a tensor.

    def keeps(self, marks, shape) -> list[np.ndarray]:
        """Bool array of each axis: which positions stay."""
        out = [np.ones(n, bool) for n in shape]
        for plane in marks.planes:
            for axis in plane_axes(plane):
                rows = self.alive[np.moveaxis(plane, axis, 0).reshape(plane.shape[axis], -1)]
                assert (rows == rows[:, :1]).all(), "a cut leaves a grid"
                out[axis] &= rows[:, 0]
        return out

    def silent(self, tensor, marks):
        """The tensor with zeros at dead positions."""
        keeps = self.keeps(marks, tensor.shape)
        if all(k.all() for k in keeps):
            return tensor
        mask = np.ones((1,) * len(keeps), bool)
        for axis, keep in enumerate(keeps):
            shape = [1] * len(keeps)
            shape[axis] = len(keep)
            mask = mask & keep.reshape(shape)
        return _with_mask(tf.where(mask, tensor, tf.zeros_like(tensor)), tensor)

    def compress(self, tensor, marks):
        """The tensor without its dead positions."""
        value = np.asarray(tensor)
        for axis, keep in enumerate(self.keeps(marks, value.shape)):
            value = np.compress(keep, value, axis)
        return _with_mask(tf.constant(value), tensor)

    def restore(self, small, marks, shape):
        """Puts a compressed result back, zeros elsewhere."""
        small = np.asarray(small)
        keeps = self.keeps(marks, shape)
        out = np.zeros(shape, small.dtype)
        out[np.ix_(*keeps)] = small
        return tf.constant(out)

    # One call.

    def call(self, call, table, args, kwargs, marks, path="layer"):
        layer, name = call.layer, kind(call.layer)
        sizes = {i: self.size(call, args, kwargs, i) for i in call.inputs}
        touched = any(not k.all() for i, s in sizes.items() for k in self.keeps(marks[i], s))
        if touched and name in _REDUCTIONS:
            return self.compressed(call, args, kwargs, marks)
        if touched and name in ("LayerNormalization", "RMSNormalization", "GroupNormalization"):
            norm = {"L": kept_layer_norm, "R": kept_rms_norm, "G": kept_group_norm}[name[0]]
            x, own = args[0], marks[call.inputs[0]]
            return self.restore(norm(layer, np.asarray(x), self.keeps(own, x.shape)), own, x.shape)
        if (call.name, path) in table.nested and name == "TimeDistributed":
            return self.steps(table.nested[call.name, path], args[0])
        if name == "TimeDistributed":
            return self.each_step(call, table, args[0], marks, f"{path}.config.layer")
        activation = getattr(layer, "activation", None)
        counts = getattr(activation, "__name__", "") in ("softmax", "log_softmax")
        if counts and not hasattr(layer, "cell"):
            return self.kept_softmax(call, args, kwargs, marks, activation)
        if getattr(layer, "_call_has_training_arg", False) or "training" in _accepted(layer):
            kwargs = {**kwargs, "training": False}
        with self.silenced(call):
            return layer(*args, **kwargs)

    def size(self, call, args, kwargs, number):
        pairs = zip(flatten([call.args, call.kwargs]), flatten([args, kwargs]), strict=True)
        return next(t.shape for r, t in pairs if isinstance(r, Ref) and r.index == number)

    def compressed(self, call, args, kwargs, marks):
        """The operation on what is left of its inputs."""

        def small(old, new):
            if isinstance(old, Ref):
                return self.compress(new, marks[old.index])
            return _align(new, keeps) if isinstance(old, np.ndarray) else new

        keeps = self.keeps(marks[call.inputs[0]], self.size(call, args, kwargs, call.inputs[0]))

        few = _map2(small, call.args, args), _map2(small, call.kwargs, kwargs)
        full = call.layer(*args, **kwargs)
        part = call.layer(*few[0], **few[1])
        flat = [
            self.restore(p, marks[n], f.shape)
            for p, f, n in zip(flatten(part), flatten(full), call.outputs, strict=True)
        ]
        return tf.nest.pack_sequence_as(full, flat) if tf.nest.is_nested(full) else flat[0]

    def kept_softmax(self, call, args, kwargs, marks, activation):
        layer, own = call.layer, marks[call.outputs[0]]
        if type(layer).__name__ == "Activation":
            full = args[0]
        else:
            layer.activation = self.lib.activations.linear
            try:
                full = layer(*args, **kwargs)
            finally:
                layer.activation = activation
        return self.restore(activation(self.compress(full, own)), own, full.shape)

    def steps(self, nested, x):
        """A model inside TimeDistributed, step by step."""
        results = []
        for t in range(x.shape[1]):
            out = self.run(nested.graph, nested.table, nested.marks, None, [x[:, t]])
            results.append(out[0])
        return tf.stack(results, axis=1)

    def each_step(self, call, table, x, marks, path):
        """A layer inside TimeDistributed, step by step."""
        inner = replace(call, layer=call.layer.layer, args=call.args[:1], kwargs={})
        stepped = {n: drop_axis(m, 1) for n, m in marks.items()}
        results = [
            self.call(inner, table, (x[:, t],), {}, stepped, path) for t in range(x.shape[1])
        ]
        return tf.stack(results, axis=1)

    @contextmanager
    def silenced(self, call):
        """While it runs, a layer hears nothing of its own dead units, heads and coordinates."""
        layer = call.layer
        changed = {}
        for group in self.analysis.groups:
            lost = self.cuts.get(group.name, ())
            for s in group.slices if len(lost) else ():
                if s.layer == call.name and _inner(s, group.name):
                    index = s.index[np.isin(s.channel, lost)]
                    value = changed.setdefault(s.weight, np.array(layer.weights[s.weight]))
                    value[(slice(None),) * s.axis + (index,)] = 0
        before = {n: np.array(layer.weights[n]) for n in changed}
        for number, value in changed.items():
            layer.weights[number].assign(value)
        try:
            yield
        finally:
            for number, value in before.items():
                layer.weights[number].assign(value)


def _with_mask(tensor, source):
    """The tensor with the time mask that Keras keeps on another."""
    if getattr(source, "_keras_mask", None) is not None:
        tensor._keras_mask = source._keras_mask
    return tensor


def _accepted(layer) -> list[str]:
    """Names that a layer's call takes; those of an operation say nothing about training."""
    return list(inspect.signature(layer.call).parameters) if hasattr(layer, "trainable") and not (
        type(layer).__name__.endswith("OpLambda")
    ) else []  # fmt: skip


def _inner(s, group: str) -> bool:
    """True for a slice through which a layer hears its own channels."""
    name = s.weight_name
    if name.endswith("recurrent_kernel"):
        return s.role == "in"
    if name == "_output_dense.kernel":
        return s.axis < 2
    if name.startswith("_query_dense"):
        return group.endswith((".key", ".width")) and s.role == "out"
    return name.startswith("cell.cells.") and name.endswith(".kernel") and s.role == "in" and (
        not name.startswith("cell.cells.0.")
    )  # fmt: skip


def _map2(fn, structure, values):
    """Applies `fn(leaf, value)` over two equal structures."""
    if isinstance(structure, dict):
        return {k: _map2(fn, v, values[k]) for k, v in structure.items()}
    if isinstance(structure, (list, tuple)):
        pairs = zip(structure, values, strict=True)
        return type(structure)(_map2(fn, a, b) for a, b in pairs)
    return fn(structure, values)


def _align(value, keeps):
    """A constant that broadcasts against a tensor, without the tensor's dead positions."""
    for axis, keep in enumerate(keeps[len(keeps) - value.ndim :]):
        if value.shape[axis] == len(keep):
            value = np.compress(keep, value, axis)
    return value


def _affine(layer, y, keeps, axes):
    """Multiplies and shifts by the parameters of the kept channels."""
    for name, join in (("scale", np.multiply), ("gamma", np.multiply), ("beta", np.add)):
        weight = getattr(layer, name, None)
        if weight is None or isinstance(weight, bool):
            continue
        value = np.asarray(weight)
        for position, axis in enumerate(axes):
            value = np.compress(keeps[axis], value, position)
        order = np.argsort(axes)
        shape = [1] * y.ndim
        for axis in axes:
            shape[axis] = y.shape[axis]
        y = join(y, value.transpose(order).reshape(shape))
    return y


def _axes(layer, rank):
    axis = layer.axis
    return [a % rank for a in (axis if hasattr(axis, "__iter__") else [axis])]


def kept_layer_norm(layer, x, keeps):
    y = x[np.ix_(*keeps)].astype("float64")
    axes = _axes(layer, x.ndim)
    mean, var = y.mean(tuple(axes), keepdims=True), y.var(tuple(axes), keepdims=True)
    y = (y - mean) / np.sqrt(var + layer.epsilon)
    return _affine(layer, y, keeps, axes).astype(x.dtype)


def kept_rms_norm(layer, x, keeps):
    y = x[np.ix_(*keeps)].astype("float64")
    axes = _axes(layer, x.ndim)
    y = y / np.sqrt((y**2).mean(tuple(axes), keepdims=True) + layer.epsilon)
    return _affine(layer, y, keeps, axes).astype(x.dtype)


def kept_group_norm(layer, x, keeps):
    axis = layer.axis % x.ndim
    groups = x.shape[axis] if layer.groups == -1 else layer.groups
    width = x.shape[axis] // groups
    parts = []
    for g in range(groups):
        mine = keeps[axis].copy()
        mine[: g * width] = mine[(g + 1) * width :] = False
        part = np.compress(mine, x, axis).astype("float64")
        over = tuple(range(1, x.ndim))
        if part.size:
            mean, var = part.mean(over, keepdims=True), part.var(over, keepdims=True)
            part = (part - mean) / np.sqrt(var + layer.epsilon)
        parts.append(part)
    y = np.concatenate(parts, axis)
    return _affine(layer, y, keeps, [axis]).astype(x.dtype)


def difference(got, want) -> float:
    """Largest difference relative to the largest value of each output."""
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
        assert a.shape == b.shape and np.isfinite(b).all()
        worst = max(
            worst, float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-6))
        )
    return worst


def settle(model, x) -> None:
    """Sets batch statistics from one batch, as a trained model has them."""
    layers = [w for w in _every_layer(model) if type(w).__name__ == "BatchNormalization"]
    saved = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    if layers:
        model(x, training=True)
    for layer, momentum in zip(layers, saved, strict=True):
        layer.momentum = momentum


def _every_layer(model):
    for layer in getattr(model, "layers", []):
        yield layer
        yield from _every_layer(layer)
        inner = getattr(layer, "layer", None)
        if inner is not None:
            yield inner
            yield from _every_layer(inner)

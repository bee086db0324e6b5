"""Rules of recurrent, attention, embedding and normalization layers, and of wrappers."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from tfedge.graph.labels import NEVER, along, dependent_axes, unlabelled
from tfedge.graph.site import Site


def embedding(site: Site) -> np.ndarray:
    """Embedding: table [vocabulary, width]."""
    out = site.new(site.layer.output_dim)
    site.bind("embeddings", 1, out, "out")
    site.size("output_dim", out)
    rank = len(site.out_shapes[0])
    return along(out, rank - 1, rank)


def recurrent(site: Site) -> list[np.ndarray]:
    """LSTM, GRU, SimpleRNN: kernel [in, gates * units], recurrent [units, gates * units].

    The gates stand side by side, so unit u owns position g * units + u of every gate g.
    """
    cell = site.layer.cell
    units = site.new(site.layer.units)
    gates = cell.kernel.shape[1] // len(units)
    every = np.tile(units, gates)
    site.bind("cell.kernel", 0, site.vector(-1))
    site.bind("cell.kernel", 1, every, "out")
    site.bind("cell.recurrent_kernel", 0, units)
    site.bind("cell.recurrent_kernel", 1, every, "out")
    site.bind("cell.bias", -1, every, "out")
    for state in site.inputs[1:]:  # an initial state has one value a unit
        site.tie(state, along(units, state.ndim - 1, state.ndim))
    site.size("units", units)
    return [along(units, len(s) - 1, len(s)) for s in site.out_shapes]


def bidirectional(site: Site) -> np.ndarray | list[np.ndarray]:
    """Bidirectional: both directions keep the same units."""
    forward, backward = site.layer.forward_layer, site.layer.backward_layer
    if len(site.out_shapes) > 1 or len(site.inputs) > 1:
        return unknown(site)
    shapes = [tuple(site.in_shapes[0][:1]) + tuple(site.out_shapes[0][1:-1]) + (None,)]
    halves = []
    for layer, key in ((forward, "layer"), (backward, "backward_layer")):
        inner = site.within(layer, key, site.inputs)
        inner.out_shapes = shapes
        halves.append(_inner_rule(layer)(inner))
    first, second = (h[0] if isinstance(h, list) else h for h in halves)
    site.tie(first, second)
    if site.layer.merge_mode == "concat":
        return np.concatenate([first, second], axis=-1)
    return first if site.layer.merge_mode else [first, second]


def time_distributed(site: Site) -> np.ndarray:
    """TimeDistributed: the inner layer's rule on every step."""
    labels = site.inputs[0]
    if 1 in dependent_axes(labels):
        site.block_inputs("runs over the labelled axis")
        return unlabelled(len(site.out_shapes[0]))
    inner = site.within(site.layer.layer, "layer", [np.take(labels, 0, axis=1)], drop=1)
    result = _inner_rule(site.layer.layer)(inner)
    result = result[0] if isinstance(result, list) else result
    return np.expand_dims(result, 1)


def _inner_rule(layer: Any) -> Any:
    from tfedge.graph.registry import rule_for  # the table names this module's rules

    return rule_for(layer)


def attention_heads(site: Site) -> np.ndarray | list[np.ndarray]:
    """MultiHeadAttention: cut by heads, by key width and by value width.

    Scores are q.k / sqrt(key width); where key width is cut, sqrt(new / old) goes into the query
    weights, so that the scores stay those of the kept coordinates.
    """
    layer = site.layer
    dims = _head_dims(layer)
    if dims is None or len(site.inputs) > 3:
        return unknown(site)
    (heads, key_dim, value_dim), names = dims, ("query", "key", "value")
    h, k, v = site.new(heads, "heads"), site.new(key_dim, "key"), site.new(value_dim, "value")
    widths = {"query": k, "key": k, "value": v}
    passed = _attention_inputs(site)
    for name in names:
        dense = f"_{name}_dense"
        site.bind(f"{dense}.kernel", 0, site.project(passed[name][0], -1, passed[name][1]))
        site.bind(f"{dense}.kernel", 1, h, "out")
        site.bind(f"{dense}.kernel", 2, widths[name], "out")
        site.bind(f"{dense}.bias", 0, h, "out")
        site.bind(f"{dense}.bias", 1, widths[name], "out")
    for weight in ("kernel", "bias"):
        site.scale_root(f"_query_dense.{weight}", k)
    out = site.new(site.out_shapes[0][-1] or 0, "output")
    site.bind("_output_dense.kernel", 0, h)
    site.bind("_output_dense.kernel", 1, v)
    site.bind("_output_dense.kernel", 2, out, "out")
    site.bind("_output_dense.bias", 0, out, "out")
    site.size("num_heads", h)
    site.size("key_dim", k)
    site.size("value_dim", v)
    site.size("output_shape", out)
    rank = len(site.out_shapes[0])
    result = along(out, rank - 1, rank)
    return [result, *(unlabelled(len(s)) for s in site.out_shapes[1:])]


def _head_dims(layer: Any) -> tuple[int, int, int] | None:
    """(heads, key width, value width) of an attention of the plain [batch, steps, width] form."""
    kernels = [
        getattr(getattr(layer, f"_{n}_dense", None), "kernel", None)
        for n in ("query", "key", "value", "output")
    ]
    if any(k is None or len(k.shape) != 3 for k in kernels):
        return None
    return int(kernels[0].shape[1]), int(kernels[0].shape[2]), int(kernels[2].shape[2])


def _attention_inputs(site: Site) -> dict[str, tuple[np.ndarray, int | None]]:
    """Labels and width of query, key and value; the key is the value where it is not given."""
    order = ["query", "value", "key"]
    out: dict[str, tuple[np.ndarray, int | None]] = {}
    named = {k: v for k, v in site.call.kwargs.items() if k in order}
    numbers = {n: r for n, r in zip(order, site.call.args, strict=False)}
    for name, ref in {**numbers, **named}.items():
        if hasattr(ref, "index"):
            i = site.call.inputs.index(ref.index)
            out[name] = (site.inputs[i], site.in_shapes[i][-1])
    out.setdefault("value", out["query"])
    out.setdefault("key", out["value"])
    return out


def dot_attention(site: Site) -> np.ndarray:
    """Attention and AdditiveAttention on [query, value, key]: queries and keys are tied."""
    query, value = site.vector(-1, 0), site.vector(-1, 1)
    key = site.vector(-1, 2) if len(site.inputs) > 2 else value
    site.tie(query, key)
    if len(getattr(getattr(site.layer, "scale", None), "shape", ())) == 1:
        site.bind("scale", 0, query, "through")
    rank = len(site.out_shapes[0])
    return along(value, rank - 1, rank)


def einsum_dense(site: Site) -> np.ndarray:
    """EinsumDense: kernel letters are shared with the input, the output, or both."""
    left, right = site.layer.equation.replace(" ", "").split("->")
    into, kernel = left.split(",")
    rank, out_rank = len(site.in_shapes[0]), len(site.out_shapes[0])
    free = [c for c in string.ascii_letters if c not in site.layer.equation]
    into, right = (_expand(x, n, free) for x, n in ((into, rank), (right, out_rank)))
    labels: dict[str, np.ndarray] = {}
    varying = dependent_axes(site.inputs[0])
    for axis, letter in enumerate(into):
        if axis in varying:
            labels[letter] = site.vector(axis)
    made = [c for c in kernel if c in right and c not in into]
    for letter in made[:-1]:  # one label array holds one free axis; the last one is the channel
        labels[letter] = np.full(site.layer.kernel.shape[kernel.index(letter)], NEVER)
    if made:
        if any(c in right for c in labels if c not in kernel):
            site.block_inputs("keeps pruned channels beside new ones")
            labels = {}
        letter = made[-1]
        labels[letter] = site.new(site.layer.kernel.shape[kernel.index(letter)])
    for axis, letter in enumerate(kernel):
        if letter in labels:
            role = "out" if letter in made else "in" if letter not in right else "through"
            site.bind("kernel", axis, labels[letter], role)
    return _einsum_output(site, right, labels)


def _expand(spec: str, rank: int, free: list[str]) -> str:
    """Writes an ellipsis out as letters, the same ones for input and output."""
    if "..." not in spec:
        return spec
    count = rank - len(spec.replace("...", ""))
    return spec.replace("...", "".join(free[:count]))


def _einsum_output(site: Site, right: str, labels: dict[str, np.ndarray]) -> np.ndarray:
    rank = len(right)
    out = unlabelled(rank)
    for axis, letter in enumerate(right):
        vector = labels.get(letter)
        if vector is not None and (vector != NEVER).any():
            out = along(vector, axis, rank)
    given = site.layer.get_config()["output_shape"]
    dims: list[Any] = [given] if isinstance(given, int) else list(given)
    # An ellipsis on the left leaves its axes out of output_shape, so that it is read from the end.
    first = rank - len(dims) if "..." in site.layer.equation.split(",")[0][:3] else 1
    for axis in dependent_axes(out):
        if 0 <= axis - first < len(dims):
            dims[axis - first] = site.project(out, axis, out.shape[axis])
    site.dims("output_shape", dims)
    bias = getattr(site.layer, "bias", None)
    if bias is not None:
        axes = [right.index(c) for c in site.layer.bias_axes if c in right]
        offset = len(bias.shape) - (rank - min(axes, default=0))
        for axis in dependent_axes(out):
            position = axis - min(axes, default=0) if offset == 0 else -1
            if 0 <= position < len(bias.shape) and bias.shape[position] == out.shape[axis]:
                site.bind("bias", position, out.reshape(-1), "out")
    return out


def group_norm(site: Site) -> np.ndarray:
    """GroupNormalization: every group loses the same positions, its mean counts the kept ones."""
    rank = len(site.in_shapes[0])
    axis = site.layer.axis % rank
    labels = site.vector(axis)
    groups = len(labels) if site.layer.groups == -1 else site.layer.groups
    if groups == len(labels):
        if site.layer.groups != -1:
            site.size("groups", labels)
    else:
        table = labels.reshape(groups, -1)
        site.tie(table, table[:1])
        site.counts(labels)
    for weight in ("gamma", "beta"):
        site.bind(weight, 0, labels, "through")
    return along(labels, axis, rank)


def unit_norm(site: Site) -> np.ndarray:
    """UnitNormalization: the length counts the kept channels (a zero channel adds nothing)."""
    return site.inputs[0]


def rms_norm(site: Site) -> np.ndarray:
    """RMSNormalization: one scale vector; the mean square counts the kept channels."""
    axis = site.layer.axis
    axes = [a % len(site.in_shapes[0]) for a in (axis if hasattr(axis, "__iter__") else [axis])]
    if len(axes) == 1 and axes[0] in dependent_axes(site.inputs[0]):
        vector = site.vector(axes[0])
        site.counts(vector)
        site.bind("scale", 0, vector, "through")
    elif dependent_axes(site.inputs[0]):
        site.block_inputs("normalizes over several axes")
    return site.inputs[0]


def layer_scale(site: Site) -> np.ndarray:
    """LayerScale (ConvNeXt): one factor a channel."""
    labels = site.vector(-1)
    site.bind("gamma", 0, labels, "through")
    site.size("projection_dim", labels)
    rank = len(site.in_shapes[0])
    return along(labels, rank - 1, rank)


def unknown(site: Site) -> list[np.ndarray]:
    """A layer without a rule: what enters it stays whole."""
    site.block_inputs("has no pruning rule; add one with tfedge.graph.RULES[...] = rule")
    return [unlabelled(len(s)) for s in site.out_shapes]

"""Rules of attention layers and of products: everything that contracts axes of two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfedge.graph.labels import NEVER, Marks, along, plane_axes, unlabelled
from tfedge.graph.rules_shape import Operand
from tfedge.graph.site import Site

_STEPS = "attends over the axis that is pruned"


def contract(site: Site, operands: Sequence[Operand], letters: Sequence[str], out: str) -> Marks:
    """Labels of an einsum: an axis is a letter; equal letters are tied, missing ones summed.

    Args:
        site: The call.
        operands: Tensors and array constants; a constant is cut along.
        letters: One letter an axis, by operand.
        out: Letters of the result.
    """
    found: dict[str, list[tuple[np.ndarray | None, int | None]]] = {}
    for i, (o, own) in enumerate(zip(operands, letters, strict=True)):
        if o.path is not None:
            continue
        others = set("".join(x for j, x in enumerate(letters) if j != i))
        flat = one_axis_each(site, o.marks, own, others, out)
        for axis, letter in enumerate(own):
            vector = site.project(flat, axis, o.shape[axis])[0] if axis in flat.axes else None
            found.setdefault(letter, []).append((vector, o.shape[axis]))
    vectors = {letter: _tie_letter(site, uses) for letter, uses in found.items()}
    for o, own in zip(operands, letters, strict=True):
        for axis, letter in enumerate(own if o.path is not None else ""):
            vector = vectors.get(letter)
            if vector is not None and o.shape[axis] != 1:
                site.edit(o.path, "compress", (axis, vector))  # type: ignore[arg-type]
    result = unlabelled(len(out))
    for letter, vector in vectors.items():
        if letter in out and vector is not None:
            result = result + along(vector, out.index(letter), len(out))
    return result


def one_axis_each(site: Site, marks: Marks, own: str, others: set[str], out: str) -> Marks:
    """Planes that change along several axes are tied over all but one of them.

    What is summed over comes first (the other operand has labels there as well), then what is
    this operand's alone, last the axes that both keep.
    """
    planes = []
    for plane in marks.planes:
        axes = plane_axes(plane)
        if len(axes) > 1:
            rank = {
                a: (own[a] in others and own[a] not in out, own[a] not in others, a) for a in axes
            }
            keep = max(axes, key=lambda a: rank[a])
            for axis in axes:
                if axis != keep:
                    first = np.take(plane, [0], axis=axis)
                    site.tie(plane, first)
                    plane = first
        planes.append(plane)
    return Marks(tuple(planes), marks.rank)


def _tie_letter(site: Site, uses: list[tuple[np.ndarray | None, int | None]]) -> np.ndarray | None:
    """Ties the labels that the operands carry on one letter."""
    vectors = [v for v, _ in uses if v is not None]
    if not vectors:
        return None
    widest = max(vectors, key=lambda v: v.ndim)
    for vector, dim in uses:
        if dim != 1:  # a length of 1 is broadcast
            site.tie(widest, np.full(1, NEVER) if vector is None else vector)
    return widest


def attention_heads(site: Site) -> list[Marks]:
    """MultiHeadAttention: cut by heads, by key width and by value width.

    Scores are q.k / sqrt(key width); where key width is cut, sqrt(new / old) goes into the query
    weights, so that the scores stay those of the kept coordinates.
    """
    layer = site.layer
    dims = _head_dims(layer)
    if dims is None:
        return site.block_inputs("has an output of several axes a position")
    heads, key_dim, value_dim = dims
    passed = _attention_inputs(site)
    _others_unlabelled(site, passed)
    h, k, v = site.new(heads, "heads"), site.new(key_dim, "key"), site.new(value_dim, "value")
    for name, width in (("query", k), ("key", k), ("value", v)):
        _bind_heads(site, f"_{name}_dense", site.only(-1, _STEPS, passed[name]), h, width)
    for weight in ("kernel", "bias"):
        site.scale_root(f"_query_dense.{weight}", k)
    out = site.new(layer._output_dense.kernel.shape[-1], "output")
    _bind_output(site, h, v, out)
    for key, labels in (("num_heads", h), ("key_dim", k), ("value_dim", v), ("output_shape", out)):
        site.size(key, labels)
    return _attention_outputs(site, out, h)


def _bind_heads(
    site: Site, dense: str, into: np.ndarray, heads: np.ndarray, width: np.ndarray
) -> None:
    """Binds a projection to heads: kernel [in, heads, width], bias [heads, width]."""
    site.bind(f"{dense}.kernel", 0, into)
    site.bind(f"{dense}.kernel", 1, heads, "out")
    site.bind(f"{dense}.kernel", 2, width, "out")
    site.bind(f"{dense}.bias", 0, heads, "out")
    site.bind(f"{dense}.bias", 1, width, "out")


def _bind_output(site: Site, heads: np.ndarray, width: np.ndarray, out: np.ndarray) -> None:
    site.bind("_output_dense.kernel", 0, heads)
    site.bind("_output_dense.kernel", 1, width)
    site.bind("_output_dense.kernel", 2, out, "out")
    site.bind("_output_dense.bias", 0, out, "out")


def _attention_outputs(site: Site, out: np.ndarray, heads: np.ndarray) -> list[Marks]:
    """The result, and the scores [batch, heads, ...] where they are returned."""
    result = [site.out(out, len(site.out_shapes[0]) - 1)]
    return result + [along(heads, 1, len(s)) for s in site.out_shapes[1:]]


def _head_dims(layer: Any) -> tuple[int, int, int] | None:
    """(heads, key width, value width), where the result has one axis of features."""
    kernels = [
        getattr(getattr(layer, f"_{n}_dense", None), "kernel", None)
        for n in ("query", "key", "value", "output")
    ]
    if any(k is None or len(k.shape) != 3 for k in kernels):
        return None
    return int(kernels[0].shape[1]), int(kernels[0].shape[2]), int(kernels[2].shape[2])


def _attention_inputs(site: Site) -> dict[str, int]:
    """Which inputs are query, key and value; the key is the value where it is not given."""
    found = {n: site.number(site.argument(n).value) for n in ("query", "value", "key")}
    query = found["query"] if found["query"] is not None else 0
    value = found["value"] if found["value"] is not None else query
    key = found["key"] if found["key"] is not None else value
    return {"query": query, "key": key, "value": value}


def _others_unlabelled(site: Site, passed: dict[str, int]) -> None:
    """Blocks labels of inputs that are masks."""
    known = {site.call.inputs[i] for i in passed.values()}
    for number, marks in zip(site.call.inputs, site.inputs, strict=True):
        if number not in known:
            site.block(marks, "takes it as a mask")


def grouped_query_attention(site: Site) -> list[Marks]:
    """GroupedQueryAttention: cut by key-value heads (with their query heads) and by head width.

    The result is as wide as the query, so that both are tied; the scale 1 / sqrt(width) goes into
    the query weights as in MultiHeadAttention.
    """
    layer = site.layer
    passed = _attention_inputs(site)
    _others_unlabelled(site, passed)
    kv = site.new(layer.num_key_value_heads, "heads")
    heads = np.repeat(kv, layer.num_query_heads // layer.num_key_value_heads)
    width = site.new(layer.head_dim, "width")
    query = site.only(-1, _STEPS, passed["query"])
    _bind_heads(site, "_query_dense", query, heads, width)
    _bind_heads(site, "_key_dense", site.only(-1, _STEPS, passed["key"]), kv, width)
    _bind_heads(site, "_value_dense", site.only(-1, _STEPS, passed["value"]), kv, width)
    if getattr(layer, "use_gate", False):
        _bind_heads(site, "_gate_dense", query, heads, width)
    for weight in ("kernel", "bias"):
        site.scale_root(f"_query_dense.{weight}", width)
    _bind_output(site, heads, width, query)
    site.size("num_query_heads", heads)
    site.size("num_key_value_heads", kv)
    site.size("head_dim", width)
    return _attention_outputs(site, query, heads)


def dot_attention(site: Site) -> list[Marks]:
    """Attention and AdditiveAttention on [query, value, key]: queries and keys are tied."""
    masks = [site.number(m) for m in _listed(site.argument("mask").value)]
    given = [i for i in range(len(site.inputs)) if i not in masks][:3]
    for i in masks:
        if i is not None:
            site.block(site.inputs[i], "takes it as a mask")
    query, value = (site.only(-1, _STEPS, given[i]) for i in (0, 1))
    key = site.only(-1, _STEPS, given[2]) if len(given) > 2 else value
    site.tie(query, key)
    if len(getattr(getattr(site.layer, "scale", None), "shape", ())) == 1:
        site.bind("scale", 0, query, "through")
    result = [site.out(value, len(site.out_shapes[0]) - 1)]
    return result + [unlabelled(len(s)) for s in site.out_shapes[1:]]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def dot_layer(site: Site) -> Marks:
    """Dot: contracts one axis of each; what remains stands side by side."""
    given = site.layer.axes
    ranks = [len(s) for s in site.in_shapes]
    pair = [given, given] if isinstance(given, int) else list(given)
    axes = [a % r for a, r in zip(pair, ranks, strict=True)]
    names = ["b" + "ijklm"[: ranks[0] - 1], "b" + "pqrst"[: ranks[1] - 1]]
    letters = [n[:a] + "z" + n[a + 1 :] for n, a in zip(names, axes, strict=True)]
    out = "b" + "".join(x.replace("z", "")[1:] for x in letters)
    out += "1" * (len(site.out_shapes[0]) - len(out))  # two vectors give [batch, 1]
    return contract(site, tensors(site), letters, out)


def tensors(site: Site) -> list[Operand]:
    """All inputs as operands."""
    return [Operand(m, tuple(s)) for m, s in zip(site.inputs, site.in_shapes, strict=True)]


def dot_product_attention(site: Site) -> Marks:
    """ops.dot_product_attention: [batch, steps, heads, width], scaled by 1 / sqrt(width)."""
    for name in ("bias", "mask"):
        i = site.number(site.argument(name).value)
        if i is not None:
            site.block(site.inputs[i], "takes it as a mask")
    shapes, letters = site.in_shapes[:3], ("bqhd", "bkhd", "bkhe")
    for marks in site.inputs[:3]:
        steps = Marks(tuple(p for p in marks.planes if p.shape[1] > 1), marks.rank)
        site.block(steps, _STEPS)
    grown = _mask_heads(site)
    result = contract(site, tensors(site)[:3], letters, "bqhe")
    if grown:
        site.block(site.inputs[0], "has a mask for each head")
    if site.argument("scale").value is None:
        path = site.argument("scale").path or ("attr", "scale")
        site.edit(path, "value", float(1.0 / np.sqrt(shapes[0][-1])))
    return result


def _mask_heads(site: Site) -> bool:
    """True where a bias or mask differs between heads and heads are labelled."""
    for name in ("bias", "mask"):
        value = site.argument(name).value
        i = site.number(value)
        shape = site.in_shapes[i] if i is not None else getattr(value, "shape", ())
        if len(shape) == 4 and shape[1] != 1 and any(2 in m.axes for m in site.inputs[:3]):
            return True
    return False

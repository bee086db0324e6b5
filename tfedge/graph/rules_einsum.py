"""Rules of einsum in its forms: EinsumDense, einsum, matmul, tensordot."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from tfedge.graph.activation import kind_of
from tfedge.graph.arguments import Parameter, is_dynamic
from tfedge.graph.labels import NEVER, Marks, along, unlabelled
from tfedge.graph.rules_attention import contract, one_axis_each
from tfedge.graph.rules_shape import Operand, operand
from tfedge.graph.site import Dim, Site
from tfedge.graph.trace import Ref


def einsum_dense(site: Site) -> Marks:
    """EinsumDense: kernel letters are shared with the input, the output, or both."""
    left, right = site.layer.equation.replace(" ", "").split("->")
    into, kernel = left.split(",")
    free = "".join(c for c in string.ascii_letters if c not in site.layer.equation)
    spec = right.replace("...", "")
    into = expand(into, len(site.in_shapes[0]), free)
    right = expand(right, len(site.out_shapes[0]), free)
    flat = one_axis_each(site, site.inputs[0], into, set(kernel), right)
    labels = {
        c: site.project(flat, axis, site.in_shapes[0][axis])[0]
        for axis, c in enumerate(into)
        if axis in flat.axes
    }
    made = [c for c in kernel if c in right and c not in into]
    for axis, c in enumerate(kernel):
        count = site.layer.kernel.shape[axis]
        if c in made:
            labels[c] = site.new(count, c if len(made) > 1 else "")
        role = "out" if c in made else "in" if c not in right else "through"
        site.bind("kernel", axis, labels.get(c, np.full(count, NEVER)), role)
    out = unlabelled(len(right))
    for axis, c in enumerate(right):
        if c in labels:
            out = out + along(labels[c], axis, len(right))
    _config(site, out)
    _bias(site, spec, labels)
    return _activation(site, out)


def expand(spec: str, rank: int, free: str) -> str:
    """Writes an ellipsis out as letters, the same ones for every operand, aligned right."""
    count = rank - len(spec.replace("...", ""))
    return spec.replace("...", free[:26][26 - count :] if count else "")


def _config(site: Site, out: Marks) -> None:
    """Counts output_shape, which leaves the batch out (and what a left ellipsis stands for)."""
    given = site.layer.get_config()["output_shape"]
    dims: list[Any] = [given] if isinstance(given, int) else list(given)
    first = out.rank - len(dims) if site.layer.equation.strip().startswith("...") else 1
    for axis in out.axes:
        if 0 <= axis - first < len(dims):
            dims[axis - first] = Dim(out, axis, site.out_shapes[0][axis] or 0)
    site.dims("output_shape", dims)


def _bias(site: Site, spec: str, labels: dict[str, np.ndarray]) -> None:
    axes = [c for c in site.layer.bias_axes or "" if c in spec]
    first = min((spec.index(c) for c in axes), default=0)
    for c in axes:
        if c in labels:
            site.bind("bias", spec.index(c) - first, labels[c], "out")


def _activation(site: Site, out: Marks) -> Marks:
    kind = kind_of(site.layer.activation)
    if kind == "softmax" and out.rank - 1 in out.axes:
        site.counts(site.project(out, -1, None)[0])
    elif kind in ("mixing", "glu"):
        site.block(out, "has an activation that does not act element by element")
        return unlabelled(out.rank)
    return out


def einsum_op(site: Site) -> Marks:
    """An einsum; a constant operand is cut along."""
    equation, places = _equation(site)
    operands = [operand(site, p) for p in places]
    left, arrow, right = equation.replace(" ", "").partition("->")
    specs = left.split(",")
    if not arrow or len(specs) != len(operands) or None in operands:
        return site.block_inputs("sums products in a form that is not known")[0]
    free = "".join(c for c in string.ascii_letters if c not in equation)
    letters = [expand(s, len(o.shape), free) for s, o in zip(specs, operands, strict=True)]  # type: ignore[union-attr]
    if any(len(set(x)) != len(x) for x in letters):
        return site.block_inputs("takes a diagonal")[0]
    out = expand(right, len(site.out_shapes[0]), free)
    return contract(site, operands, letters, out)  # type: ignore[arg-type]


def _equation(site: Site) -> tuple[str, list[Parameter]]:
    """The equation, and where the operands stand."""
    places = []
    for i, value in enumerate(site.call.args):
        if isinstance(value, (list, tuple)) and any(isinstance(v, Ref) for v in value):
            places += [Parameter(v, ("args", i, j)) for j, v in enumerate(value)]
        elif not isinstance(value, str):
            places.append(Parameter(value, ("args", i)))
    texts = [v for v in site.call.args if isinstance(v, str)]
    attribute = site.argument("subscripts", "equation").value
    return str(texts[0] if texts else attribute), places


def matmul(site: Site) -> Marks:
    """A @ b: the contracted axes are tied, rows come from a, columns from b."""
    names = [n for n in (("x1", "x2"), ("a", "b"), ("x", "y")) if site.argument(n[1]).path]
    pair = [operand(site, site.argument(n)) for n in (names[0] if names else ())]
    flags = [
        bool(site.argument(f"transpose_{c}").value or site.argument(f"adjoint_{c}").value)
        for c in "ab"
    ]
    if len(pair) != 2 or any(o is None or len(o.shape) < 2 for o in pair):
        return site.block_inputs("multiplies by a vector, or in a way that is not known")[0]
    operands: list[Operand] = pair  # type: ignore[assignment]
    ranks = [len(o.shape) for o in operands]
    batch = string.ascii_lowercase[: max(ranks) - 2]
    letters = [
        batch[len(batch) - r + 2 :] + end for r, end in zip(ranks, ("XY", "YZ"), strict=True)
    ]
    letters = [x[:-2] + x[:-3:-1] if f else x for x, f in zip(letters, flags, strict=True)]
    return contract(site, operands, letters, batch + "XZ")


def tensordot(site: Site) -> Marks:
    """Sums over the axes named; the others stand side by side."""
    pair = [operand(site, site.argument(a, b)) for a, b in (("x1", "a"), ("x2", "b"))]
    axes = site.argument("axes").value
    if None in pair or is_dynamic(axes):
        return site.block_inputs("multiplies in a way that is not known")[0]
    a, b = pair
    ranks = len(a.shape), len(b.shape)  # type: ignore[union-attr]
    if isinstance(axes, (int, np.integer)):
        axes = [list(range(ranks[0] - axes, ranks[0])), list(range(axes))]
    ours, theirs = ([int(x) % r for x in np.ravel(n)] for n, r in zip(axes, ranks, strict=True))
    first = list(string.ascii_lowercase[: ranks[0]])
    second = list(string.ascii_uppercase[: ranks[1]])
    for x, y in zip(ours, theirs, strict=True):
        second[y] = first[x]
    out = [c for i, c in enumerate(first) if i not in ours]
    out += [c for i, c in enumerate(second) if i not in theirs]
    return contract(site, pair, ["".join(first), "".join(second)], "".join(out))  # type: ignore[arg-type]

"""Layers that multiply along several axes (EinsumDense, Dot, einsum) as dense and matmul."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.graph.rewrite import Piece
from tfedge.quant.composite_norms import unit
from tfedge.quant.sketch import NoForm, Sketch

_L = keras.layers


def einsum_dense(s: Sketch) -> list[Piece]:
    """EinsumDense as a Dense layer on permuted, merged axes, where its equation allows."""
    layer = s.layer
    bias = None if layer.bias is None else np.asarray(layer.bias)
    y = projected(s, s.inputs[0], layer, bias)
    return s.piece(s.function(layer.activation, y, "act"))


def projected(
    s: Sketch, x: Any, layer: Any, bias: np.ndarray | None, scale: float = 1.0, suffix: str = ""
) -> Any:
    """What an EinsumDense layer computes of `x` before its activation.

    Args:
        s: The sketch.
        x: What it reads.
        layer: The EinsumDense layer.
        bias: Its bias, or None.
        scale: Factor for kernel and bias.
        suffix: Of the new layers' names.

    Raises:
        NoForm: The equation has letters that the input, the kernel and the output share.
    """
    given, kernel, result = _letters(layer.equation, len(x.shape), len(layer.kernel.shape))
    shared = [c for c in kernel if c in given]
    fresh = [c for c in kernel if c not in given]
    kept = [c for c in given if c not in shared]
    if any(c in result for c in shared) or sorted(result) != sorted(kept + fresh):
        raise NoForm(f"its equation {layer.equation} is no product of a matrix with each position")
    if given[0] in shared or result[0] != given[0]:
        raise NoForm(f"its equation {layer.equation} does not keep the batch first")
    matrix = np.asarray(layer.kernel)
    sizes = dict(zip(kernel, matrix.shape, strict=True))
    order = [kernel.index(c) for c in shared + fresh]
    inner, units = prod(sizes[c] for c in shared), prod(sizes[c] for c in fresh)
    matrix = matrix.transpose(order).reshape(inner, units)
    row = None if bias is None else _bias_row(layer, bias, result, fresh, sizes)
    moved = s.permute(x, [given.index(c) for c in kept + shared], f"{suffix}turned")
    positions = tuple(moved.shape[1 : len(kept)])
    flat = s.reshape(moved, (*positions, inner), f"{suffix}flat")
    y = s.dense(flat, scale * matrix, row if row is None else scale * row, f"{suffix}dense")
    y = s.reshape(y, (*positions, *(sizes[c] for c in fresh)), f"{suffix}parted")
    return s.permute(y, [(kept + fresh).index(c) for c in result], f"{suffix}back")


def _letters(equation: str, given: int, kernel: int) -> tuple[list[str], list[str], list[str]]:
    """Letters of input, kernel and output; an ellipsis in input and output filled in."""
    left, result = equation.replace(" ", "").split("->")
    first, second = left.split(",")
    missing = given - len(first.replace("...", ""))
    spare = [c for c in "ABCDEFGHIJ" if c not in equation][:missing]
    first, result = (part.replace("...", "".join(spare)) for part in (first, result))
    if "." in second or len(second) != kernel:
        raise NoForm(f"its equation {equation} leaves axes of the kernel open")
    return list(first), list(second), list(result)


def _bias_row(
    layer: Any, bias: np.ndarray, result: list[str], fresh: list[str], sizes: dict[str, int]
) -> np.ndarray:
    """The bias as one number a unit.

    Raises:
        NoForm: It differs from position to position.
    """
    shape = (1,) * (len(result) - bias.ndim) + bias.shape
    axes = dict(zip(result, shape, strict=True))
    if any(size != 1 for c, size in axes.items() if c not in fresh):
        raise NoForm("its bias differs from position to position")
    full = bias.reshape(shape)
    order = [result.index(c) for c in result if c not in fresh] + [result.index(c) for c in fresh]
    row = full.transpose(order).reshape([axes[c] for c in fresh])
    return np.broadcast_to(row, [sizes[c] for c in fresh]).reshape(-1)


def dot(s: Sketch) -> list[Piece]:
    """Dot of one axis of each, tensors of rank 2 or 3."""
    layer, (a, b) = s.layer, s.inputs
    ranks = (len(a.shape), len(b.shape))
    pair = (layer.axes, layer.axes) if isinstance(layer.axes, int) else tuple(layer.axes)
    i, j = (axis % rank for axis, rank in zip(pair, ranks, strict=True))
    if max(ranks) > 3 or 0 in (i, j):
        raise NoForm(f"its axes {layer.axes} of ranks {ranks} are no product of matrices")
    if layer.normalize:
        a, b = unit(s, a, i), unit(s, b, j)
    target = [d for n, d in enumerate(a.shape) if n not in (0, i)]
    target += [d for n, d in enumerate(b.shape) if n not in (0, j)]
    left, right = (_rows(s, t, axis, n) for t, axis, n in ((a, i, "left"), (b, j, "right")))
    y = s.matmul(left, right, "product", transpose_b=True)
    return s.piece(s.reshape(y, target or (1,), "result"))


def _rows(s: Sketch, x: Any, axis: int, suffix: str) -> Any:
    """`x` as [batch, rows, n], the axis that is summed last."""
    if len(x.shape) == 2:
        return s.reshape(x, (1, x.shape[1]), suffix)
    order = [0, 3 - axis, axis]
    return s.permute(x, order, suffix)


def einsum(s: Sketch) -> list[Piece]:
    """tf.einsum of two tensors as a product of matrices on permuted, merged axes."""
    equation = next((a for a in s.call.args if isinstance(a, str)), s.call.kwargs.get("equation"))
    if equation is None or len(s.inputs) != 2 or "." in equation or "->" not in equation:
        return []
    left, result = equation.replace(" ", "").split("->")
    first, second = left.split(",")
    for part in (first, second, result):
        if len(set(part)) != len(part):
            raise NoForm(f"its equation {equation} repeats a letter")
    batch = [c for c in first if c in second and c in result]
    shared = [c for c in first if c in second and c not in result]
    rows, columns = ([c for c in p if c not in q] for p, q in ((first, second), (second, first)))
    if not batch or first[0] != batch[0] or sorted(result) != sorted(batch + rows + columns):
        raise NoForm(f"its equation {equation} is no product of matrices")
    if second[0] != batch[0] or result[0] != batch[0]:
        raise NoForm(f"its equation {equation} does not keep the batch first")
    sizes = dict(zip(first, s.inputs[0].shape, strict=True))
    sizes |= dict(zip(second, s.inputs[1].shape, strict=True))

    def merged(x: Any, letters: str, groups: list[list[str]], suffix: str) -> Any:
        order = [letters.index(c) for g in groups for c in g]
        shape = [sizes[c] for c in groups[0][1:]] + [_whole(sizes, g) for g in groups[1:]]
        return s.reshape(s.permute(x, order, f"{suffix}_turned"), shape, suffix)

    a = merged(s.inputs[0], first, [batch, rows, shared], "left")
    b = merged(s.inputs[1], second, [batch, columns, shared], "right")
    y = s.matmul(a, b, "product", transpose_b=True)
    letters = batch + rows + columns
    y = s.reshape(y, [sizes[c] for c in letters[1:]], "parted")
    return s.piece(s.permute(y, [letters.index(c) for c in result], "back"))


def _whole(sizes: dict[str, int | None], letters: list[str]) -> int | None:
    found = [sizes[c] for c in letters]
    return None if None in found else prod(int(d or 1) for d in found)


def matmul(s: Sketch) -> list[Piece]:
    """tf.matmul of a tensor and a constant matrix: a Dense layer that does not train."""
    args = s.call.args
    flags = [s.call.kwargs.get(k) for k in ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")]
    if len(s.inputs) != 1 or len(args) < 2 or any(flags):
        return []
    kernel = np.asarray(args[1], np.float32) if not hasattr(args[1], "index") else None
    if kernel is None or kernel.ndim != 2:
        raise NoForm("a product with this constant has no integer form")
    return s.piece(s.dense(s.inputs[0], kernel, None, "dense", trainable=False))


PRODUCTS: dict[type, Callable[[Sketch], list[Piece]]] = {
    _L.EinsumDense: einsum_dense,
    _L.Dot: dot,
}

PRODUCT_OPS: dict[str, Callable[[Sketch], list[Piece]]] = {
    "einsum": einsum,
    "linalg.einsum": einsum,
    "linalg.matmul": matmul,
    "__operators__.matmul": matmul,
}

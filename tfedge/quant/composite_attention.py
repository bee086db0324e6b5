"""Attention as products of matrices and a softmax, with masks that are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.graph.rewrite import Piece
from tfedge.quant.composite_products import projected
from tfedge.quant.masks import mask_of, masked_scores
from tfedge.quant.sketch import NoForm, Sketch

_L = keras.layers


def multi_head(s: Sketch) -> list[Piece]:
    """MultiHeadAttention over one axis: projections, two products, a softmax."""
    layer, call, mask = s.layer, s.call, mask_of(s, "attention_mask")
    named = dict(zip(("query", "value", "key"), call.args, strict=False)) | {
        k: v for k, v in call.kwargs.items() if k in ("query", "value", "key") and v is not None
    }
    tensors = dict(zip(named, s.inputs, strict=True))
    query, value = tensors["query"], tensors["value"]
    key = tensors.get("key", value)
    if len(query.shape) != 3:
        raise NoForm(f"it attends over the axes of inputs of rank {len(query.shape)}")
    parts = {}
    for name, x, inner in (
        ("query", query, layer._query_dense),
        ("key", key, layer._key_dense),
        ("value", value, layer._value_dense),
    ):
        scale = 1.0 / float(layer._key_dim) ** 0.5 if name == "query" else 1.0
        bias = None if inner.bias is None else np.asarray(inner.bias)
        y = projected(s, x, inner, bias, scale, f"{name}_")
        parts[name] = s.permute(y, (0, 2, 1, 3), f"{name}_heads")
    scores = s.matmul(parts["query"], parts["key"], "scores", transpose_b=True)
    weights = _weights(s, scores, float(layer._dropout or 0.0), mask)
    mixed = s.permute(s.matmul(weights, parts["value"], "mixed"), (0, 2, 1, 3), "heads_back")
    out = layer._output_dense
    bias = None if out.bias is None else np.asarray(out.bias)
    y = projected(s, mixed, out, bias, 1.0, "output_")
    if call.kwargs.get("return_attention_scores"):
        return s.piece([y, weights])
    return s.piece(y)


def _weights(s: Sketch, scores: Any, dropout: float, mask: np.ndarray | None) -> Any:
    weights = s.function("softmax", masked_scores(s, scores, mask), "softmax")
    return s.add(_L.Dropout(dropout, name=s.name("dropout")), weights) if dropout else weights


def attention(s: Sketch) -> list[Piece]:
    """Attention and AdditiveAttention."""
    layer, mask = s.layer, mask_of(s, "mask")
    query, value, *rest = s.inputs
    key = rest[0] if rest else value
    additive = isinstance(layer, _L.AdditiveAttention)
    scores = _additive_scores(s, query, key) if additive else _dot_scores(s, query, key)
    weights = _weights(s, scores, float(layer.dropout or 0.0), mask)
    y = s.matmul(weights, value, "mixed")
    return s.piece([y, weights] if s.call.kwargs.get("return_attention_scores") else y)


def _dot_scores(s: Sketch, query: Any, key: Any) -> Any:
    layer = s.layer
    if getattr(layer, "score_mode", "dot") != "dot":
        query = s.reshape(query, (query.shape[1], 1, query.shape[2]), "query_on")
        key = s.reshape(key, (1, *key.shape[1:]), "key_on")
        gain = np.asarray(layer.concat_score_weight).reshape(1, 1) if layer.use_scale else [[1.0]]
        total = s.plus(query, key, "joined")
        if layer.use_scale:
            total = s.affine(total, float(np.asarray(layer.scale)), suffix="scaled")
        return _summed(s, s.function("tanh", total, "tanh"), np.asarray(gain))
    scores = s.matmul(query, key, "scores", transpose_b=True)
    if layer.use_scale:
        scores = s.reshape(scores, (*scores.shape[1:], 1), "open")
        scores = s.per_channel(scores, [float(np.asarray(layer.scale))], None, "scale")
        scores = s.reshape(scores, scores.shape[1:-1], "closed")
    return scores


def _additive_scores(s: Sketch, query: Any, key: Any) -> Any:
    layer = s.layer
    query = s.reshape(query, (query.shape[1], 1, query.shape[2]), "query_on")
    key = s.reshape(key, (1, *key.shape[1:]), "key_on")
    shape = s.function("tanh", s.plus(query, key, "joined"), "tanh")
    size = int(shape.shape[-1])
    gain = np.asarray(layer.scale) if layer.use_scale else np.ones(size)
    return _summed(s, shape, gain.reshape(-1, 1))


def _summed(s: Sketch, x: Any, gain: np.ndarray) -> Any:
    """The sum of the last axis with weights [n, 1] (one weight: for all)."""
    kernel = np.broadcast_to(gain, (int(x.shape[-1]), 1))
    y = s.dense(x, np.array(kernel), None, "summed")
    return s.reshape(y, y.shape[1:-1], "scores")


ATTENTIONS: dict[type, Callable[[Sketch], list[Piece]]] = {
    _L.MultiHeadAttention: multi_head,
    _L.Attention: attention,
    _L.AdditiveAttention: attention,
}

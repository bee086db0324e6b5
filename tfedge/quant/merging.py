"""Constant factors and offsets merged into the layers beside them, which saves ops in the file.

scale * relu_m(x) = relu_(scale*m)(scale * x) for scale > 0, so a factor behind a relu goes in front
of it; and an affine behind a linear layer goes into that. So `relu6(x + 3) / 6`, the hard sigmoid
as Keras's MobileNetV3 spells it, is one layer or none instead of two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.graph.canonical import unwrap
from tfedge.graph.folding import FOLDABLE, fold_affine
from tfedge.graph.rewrite import Piece, Rewriter
from tfedge.graph.trace import Call

_L = keras.layers


def merged(site: Rewriter, schemes: dict[str, str]) -> dict[str, list[Piece] | None]:
    """The chains of calls that are merged, by name; None for a call that is gone.

    Args:
        site: A rewriter of a float model.
        schemes: Scheme by name of a layer that has one of its own; layers are merged with those of
            the same scheme only.
    """
    layers = {c.name: _seen(site, c) for c in site.graph.calls}
    chains: dict[str, list[Piece] | None] = {}
    for call in site.graph.calls:
        found = _row(site, call, layers)
        if found is None or any(c.name in chains for c in found):
            continue
        if len({schemes.get(c.name, "") for c in found}) == 1:
            chains |= _merge(site, found, layers)
    return chains


def _seen(site: Rewriter, call: Call) -> Any:
    """The layer that a call is, or that its operation becomes."""
    pieces = unwrap(site, call)
    return pieces[0].layer if len(pieces) == 1 and len(call.inputs) == 1 else call.layer


def _row(site: Rewriter, call: Call, layers: dict[str, Any]) -> list[Call] | None:
    """Calls in a row that become fewer: [linear, affine] or [linear or affine, relu, factor]."""
    layer = layers[call.name]
    if not isinstance(layer, _L.Rescaling):
        return None
    before = site.sole_maker(call)
    if before is None or _masked(site, call):
        return None
    if _is_linear(before.layer):
        return [before, call]
    relu = layers[before.name]
    plain = isinstance(relu, _L.ReLU) and not (relu.negative_slope or relu.threshold)
    factor = not np.any(layer.offset) and np.ndim(layer.scale) == 0 and float(layer.scale) > 0
    first = site.sole_maker(before) if plain and factor else None
    if first is None or not (_is_linear(first.layer) or _is_affine(layers[first.name])):
        return None
    return [first, before, call]


def _is_linear(layer: Any) -> bool:
    return type(layer).__name__ in FOLDABLE and type(layer).__module__.startswith("tf_keras")


def _is_affine(layer: Any) -> bool:
    return isinstance(layer, _L.Rescaling)


def _masked(site: Rewriter, call: Call) -> bool:
    return any(site.graph.tensors[i].masked for i in (*call.inputs, *call.outputs))


def _merge(
    site: Rewriter, row: list[Call], layers: dict[str, Any]
) -> dict[str, list[Piece] | None]:
    first, *relu, last = row
    affine = layers[last.name]
    chains: dict[str, list[Piece] | None] = {last.name: None}
    if relu:
        old = layers[relu[0].name]
        limit = None if old.max_value is None else float(old.max_value) * float(affine.scale)
        chains[relu[0].name] = [Piece(_L.ReLU(limit, name=relu[0].name), takes="tensor")]
    scale, offset = np.asarray(affine.scale, np.float32), np.asarray(affine.offset, np.float32)
    inner = layers[first.name]
    if _is_linear(inner):
        channels = site.graph.tensors[first.outputs[0]].shape[-1]
        pair = (np.broadcast_to(a.ravel(), (channels,)) for a in (scale, offset))
        chains[first.name] = fold_affine(first, *pair)
    else:
        new = _L.Rescaling(
            (scale * np.asarray(inner.scale)).tolist(),
            (scale * np.asarray(inner.offset) + offset).tolist(),
            name=first.name,
        )
        chains[first.name] = [Piece(new, takes="tensor")]
    site.notes.setdefault(
        last.name, f"{type(affine).__name__} '{last.name}': merged into '{first.name}'"
    )
    return chains

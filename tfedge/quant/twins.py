"""Layers that compute the same from the same tensor: one of them stands for all.

The TFLite converter makes one op of them. Quantizers that are placed for several would then have
other readers in the file than in the model: five relus behind one batch norm need a quantizer
before them, the one relu that the file has is part of the convolution.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfedge._keras import keras
from tfedge.graph.trace import Call, Graph, Ref, map_structure

_L = keras.layers
_PLAIN = (
    _L.ReLU, _L.LeakyReLU, _L.Activation, _L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D,
    _L.AveragePooling2D, _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D,
    _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.ZeroPadding1D, _L.ZeroPadding2D,
    _L.Cropping1D, _L.Cropping2D, _L.UpSampling2D, _L.Flatten, _L.Reshape, _L.Permute,
)  # fmt: skip
"""Layers without weights and chance: equal where class and configuration are."""


def without_twins(graph: Graph, schemes: Mapping[str, str]) -> tuple[Graph, dict[str, str]]:
    """The graph with one layer in the place of equal ones that read one tensor.

    Args:
        graph: A traced float model.
        schemes: Scheme by layer name; layers of unlike schemes stay apart.

    Returns:
        The graph, and a note by name of each layer that is gone.
    """
    counts = Counter(c.name for c in graph.calls)
    outputs = set(graph.output_refs())
    first: dict[tuple[Any, ...], Call] = {}
    moved: dict[int, int] = {}
    calls, notes = [], {}

    def now(leaf: Any) -> Any:
        return Ref(moved.get(leaf.index, leaf.index)) if isinstance(leaf, Ref) else leaf

    for old in graph.calls:
        call = replace(
            old,
            args=map_structure(now, old.args),
            kwargs=map_structure(now, old.kwargs),
            inputs=tuple(moved.get(i, i) for i in old.inputs),
        )
        if counts[call.name] > 1 or not _may_stand_for_another(graph, call):
            calls.append(call)
            continue
        key = (call.inputs[0], schemes.get(call.name), *_identity(call.layer))
        twin = first.setdefault(key, call)
        if twin is call:
            calls.append(call)
            continue
        if outputs.intersection(call.outputs):  # Its name is the output's.
            calls.append(_handing_on(call, twin.outputs[0]))
        else:
            moved[call.outputs[0]] = twin.outputs[0]
        notes[call.name] = f"'{call.name}' computes the same as '{twin.name}', which stands for it"
    return replace(graph, calls=calls), notes


def _handing_on(call: Call, number: int) -> Call:
    """A call that gives a tensor under the name of another call."""
    layer = _L.Activation("linear", name=call.layer.name)
    return replace(call, layer=layer, args=(Ref(number),), kwargs={}, inputs=(number,))


def _may_stand_for_another(graph: Graph, call: Call) -> bool:
    ends = (*call.inputs, *call.outputs)
    if type(call.layer) not in _PLAIN or len(ends) != 2:
        return False
    regular = getattr(call.layer, "activity_regularizer", None) is None
    return regular and not any(graph.tensors[i].masked for i in ends)


def _identity(layer: Any) -> tuple[str, str]:
    config = {k: v for k, v in layer.get_config().items() if k != "name"}
    return type(layer).__name__, json.dumps(config, sort_keys=True, default=repr)

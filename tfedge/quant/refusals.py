"""Why a layer has no integer form: what stays float, found before training."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras
from tfedge.graph.canonical import symbol_of
from tfedge.graph.rewrite import activation_name
from tfedge.graph.trace import Call, Graph
from tfedge.quant.expansions import EXPANSIONS, SPLIT
from tfedge.quant.placement import (
    FIXED_RANGE_ACTIVATIONS,
    FUSED_ACTIVATIONS,
    OTHER_ACTIVATIONS,
    is_fusable_relu,
    rule_of,
)

_L = keras.layers
REASONS: dict[type, str] = {
    _L.Lambda: "what its function computes cannot be seen; use a Keras layer",
}
"""Why a known layer type has no integer form; other types have no rule yet."""


def no_integer_form(graph: Graph, call: Call, layer: Any) -> str:
    """Why a call has no integer form, or "".

    Args:
        graph: The traced float model.
        call: The call.
        layer: Its layer, or the layer that its operation becomes (`canonical.unwrap`).
    """
    kind = type(layer)
    if kind in REASONS:
        return REASONS[kind]
    if rule_of(layer) is None and kind not in EXPANSIONS:
        return _unknown(layer)
    if getattr(layer, "data_format", None) == "channels_first":
        return "channels_first is not what TFLite's kernels take; use channels_last"
    bad = _bad_input(graph, call, layer) or _bad_detail(graph, call, layer)
    if bad or kind in SPLIT:
        return bad
    return float_activation(layer)


def _unknown(layer: Any) -> str:
    kind = type(layer)
    if kind.__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return f"there is no rule how to quantize the operation {symbol_of(layer)}"
    if kind.__module__.split(".")[0] != "tf_keras":
        return "a custom layer class; there is no rule how to quantize it"
    return "there is no rule how to quantize this layer type"


def _bad_input(graph: Graph, call: Call, layer: Any) -> str:
    kinds = {graph.tensors[i].dtype for i in (*call.inputs, *call.outputs)}
    if type(layer) is _L.Embedding:
        return ""
    other = sorted(k for k in kinds if not k.startswith("float"))
    return f"it computes with {other[0]} values" if other else ""


def float_activation(layer: Any) -> str:
    """Why a layer's activation function has no integer form, or ""."""
    name = activation_name(layer)
    if name in (*FUSED_ACTIVATIONS, *FIXED_RANGE_ACTIVATIONS, *OTHER_ACTIVATIONS):
        return ""
    return f"no integer op computes its activation '{name}'"


def _bad_detail(graph: Graph, call: Call, layer: Any) -> str:
    """Restrictions of single layer types."""
    rank = len(graph.tensors[call.inputs[0]].shape)
    if isinstance(layer, _L.BatchNormalization):
        if list(_axes(layer)) not in ([rank - 1], [-1]):
            return f"its axis {list(_axes(layer))} is not the last one"
        if getattr(layer, "renorm", False):
            return "batch renormalisation does not fold into a convolution"
    if isinstance(layer, _L.Normalization) and list(layer.axis or ()) not in ([rank - 1], [-1]):
        return f"its axis {layer.axis} is not the last one"
    if isinstance(layer, _L.Softmax) and layer.axis not in (-1, rank - 1):
        return f"its axis {layer.axis} is not the last one"
    if isinstance(layer, _L.ReLU) and not is_fusable_relu(layer):
        return "a relu with a slope or a threshold has no integer kernel"
    free = sum(d is None for d in graph.tensors[call.inputs[0]].shape[1:])
    reshaped = isinstance(layer, (_L.Conv1D, _L.SeparableConv1D)) or (
        isinstance(layer, (_L.Dense, _L.BatchNormalization, _L.Normalization)) and rank != 4
    )
    if reshaped and free > 1:
        return f"its input has {free} free axes; declare all but one"
    return ""


def _axes(layer: Any) -> Any:
    return layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]


def no_int16_kernel(layer: Any) -> str:
    """The op of a layer that the runtime has no kernel for with 16-bit activations, or ""."""
    rule = rule_of(layer)
    if rule is not None and rule.int16:
        return rule.int16
    return "GELU" if activation_name(layer) in ("gelu", "gelu_tanh") else ""

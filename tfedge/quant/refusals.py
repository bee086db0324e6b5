"""Which layers cannot be trained quantize-aware: found before training, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfedge._keras import keras
from tfedge.errors import ModelError
from tfedge.graph.rewrite import activation_name
from tfedge.graph.trace import Call, Graph
from tfedge.quant.expansions import EXPANSIONS
from tfedge.quant.placement import (
    FIXED_RANGE_ACTIVATIONS,
    FUSED_ACTIVATIONS,
    OTHER_ACTIVATIONS,
    RULES,
    is_fusable_relu,
)

_L = keras.layers
_NO_KERNEL = "TFLite has no integer kernel for it: MUL, ADD and the like would stay float"
_RECURRENT = "recurrent cells are not simulated; convert it by calibration instead"
REASONS: dict[type, str] = {
    _L.LayerNormalization: _NO_KERNEL,
    _L.GroupNormalization: _NO_KERNEL,
    _L.UnitNormalization: _NO_KERNEL,
    _L.ELU: "TFLite's ELU stays float in an integer file",
    _L.Conv3D: "TFLite's CONV_3D stays float in an integer file",
    _L.LSTM: _RECURRENT,
    _L.GRU: _RECURRENT,
    _L.SimpleRNN: _RECURRENT,
    _L.Bidirectional: _RECURRENT,
    _L.MultiHeadAttention: "its inner products have no quantizers",
    _L.Lambda: "what its function computes cannot be seen; use a Keras layer",
}
"""Why a known layer type is refused; other types have no rule yet."""

NO_INT16: dict[type, str] = {
    _L.PReLU: "PRELU",
    _L.RepeatVector: "TILE",
}
"""Layers whose op has no int16 kernel; GELU is found by the activation's name."""

_NATIVE_EXPANSIONS = (
    _L.Conv2D, _L.Conv2DTranspose, _L.Dense, _L.DepthwiseConv2D, _L.SeparableConv1D,
    _L.SeparableConv2D, _L.BatchNormalization, _L.Softmax,
)  # fmt: skip
_NATIVE_ACTIVATIONS = (*FUSED_ACTIVATIONS, *FIXED_RANGE_ACTIVATIONS, "swish", "silu", "gelu")


def check_int16(graph: Graph) -> None:
    """Raises one error that names every layer without a kernel for int16 activations.

    Args:
        graph: Traced from a float or quantize-aware model.

    Raises:
        ModelError: With layer name and op of each.
    """
    found = []
    for call in graph.calls:
        layer = getattr(call.layer, "layer", call.layer)
        op = NO_INT16.get(type(layer), "GELU" if activation_name(layer) == "gelu" else "")
        if op:
            found.append(f"'{layer.name}' ({type(layer).__name__}): TFLite has no int16 {op}")
    if found:
        raise ModelError(
            "the model has layers without a kernel for 16-bit activations",
            "; ".join(dict.fromkeys(found)),
            "Use scheme w8a8, or replace these layers",
        )


def check_layers(graph: Graph, strict: bool) -> None:
    """Raises one error that names every layer without an integer form.

    Args:
        graph: The traced float model.
        strict: Refuse also what tfmot's default 8-bit scheme refuses.

    Raises:
        ModelError: With layer name, type and reason of each refused layer.
    """
    found = list(dict.fromkeys(_refusals(graph, strict)))
    if found:
        more = f" (and {len(found) - 8} more)" if len(found) > 8 else ""
        raise ModelError(
            f"{len(found)} of the model's layers cannot be trained quantize-aware",
            "; ".join(found[:8]) + more,
            "Replace these layers, or convert the float model by calibration",
        )


def _refusals(graph: Graph, strict: bool) -> Iterator[str]:
    for number, name in zip(graph.inputs, graph.input_names, strict=True):
        readers = [c for c in graph.calls if number in c.inputs]
        dtype = graph.tensors[number].dtype
        if not dtype.startswith("float") and any(
            type(c.layer) is not _L.Embedding for c in readers
        ):
            yield f"input '{name}': {dtype} values can enter an Embedding only; cast them outside"
    for call in graph.calls:
        reason = _reason(graph, call) or (_strict(call) if strict else "")
        if reason:
            yield f"'{call.name}' ({type(call.layer).__name__}): {reason}"


def _reason(graph: Graph, call: Call) -> str:
    """Why a call has no integer form, or ""."""
    layer, kind = call.layer, type(call.layer)
    if kind in REASONS:
        return REASONS[kind]
    if kind not in RULES and kind not in EXPANSIONS:
        if kind.__module__.split(".")[0] != "tf_keras":
            return "a custom layer class; there is no rule how to quantize it"
        if kind.__name__ in ("TFOpLambda", "SlicingOpLambda"):
            return f"a TensorFlow operation ({layer.name}) outside a layer; use a Keras layer"
        return "there is no rule how to quantize this layer type"
    if getattr(layer, "data_format", None) == "channels_first":
        return "channels_first is not what TFLite's kernels take; use channels_last"
    if len(call.outputs) != 1:
        return "it has several outputs"
    return _bad_activation(layer) or _bad_detail(graph, call)


def _bad_activation(layer: Any) -> str:
    name = activation_name(layer)
    if name in (*FUSED_ACTIVATIONS, *FIXED_RANGE_ACTIVATIONS, *OTHER_ACTIVATIONS):
        return ""
    return f"its activation '{name}' would stay float; use relu, relu6, sigmoid, tanh or swish"


def _bad_detail(graph: Graph, call: Call) -> str:
    """Restrictions of single layer types."""
    layer, rank = call.layer, len(graph.tensors[call.inputs[0]].shape)
    if isinstance(layer, _L.BatchNormalization):
        if list(_axes(layer)) not in ([rank - 1], [-1]):
            return f"its axis {list(_axes(layer))} is not the last one"
        if getattr(layer, "renorm", False):
            return "batch renormalisation does not fold into a convolution"
    if isinstance(layer, _L.Normalization) and list(layer.axis or ()) not in ([rank - 1], [-1]):
        return f"its axis {layer.axis} is not the last one"
    if isinstance(layer, _L.Softmax) and layer.axis not in (-1, rank - 1):
        return f"its axis {layer.axis} is not the last one"
    if isinstance(layer, (_L.ReLU,)) and not is_fusable_relu(layer):
        return "a relu with a slope, a threshold or a limit other than 6 has no integer kernel"
    free = sum(d is None for d in graph.tensors[call.inputs[0]].shape[1:])
    reshaped = isinstance(layer, (_L.Conv1D, _L.SeparableConv1D)) or (
        isinstance(layer, (_L.Dense, _L.BatchNormalization, _L.Normalization)) and rank != 4
    )
    if reshaped and free > 1:
        return f"its input has {free} free axes; declare all but one"
    return ""


def _axes(layer: Any) -> Any:
    return layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]


def _strict(call: Call) -> str:
    """Why tfmot's default 8-bit scheme would refuse a call that tfedge takes, or ""."""
    kind = type(call.layer)
    if kind in RULES and RULES[kind].native:
        return ""
    if kind in _NATIVE_EXPANSIONS:
        return ""
    return "tfmot's default scheme does not take it (strict=True)"

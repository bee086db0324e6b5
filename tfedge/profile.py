"""Parameters, multiply-accumulates and bytes of a model, layer by layer, without running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from tfedge.graph.trace import Call, Graph, trace


@dataclass(frozen=True)
class WeightUse:
    """One use of a weight by a call: it costs `positions` multiply-accumulates per element.

    Attributes:
        layer: Unique layer name in the graph.
        weight: Index into `layer.weights`.
        positions: How often each element of the weight is multiplied in one inference.
    """

    layer: str
    weight: int
    positions: int


@dataclass(frozen=True)
class LayerProfile:
    """Costs of one layer: weights, multiply-accumulates of one inference (batch 1)."""

    name: str
    kind: str
    params: int
    macs: int
    output_shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Profile:
    """Costs of a model.

    Attributes:
        params: Number of weights (non-trainable ones included, quantizers' ranges not).
        macs: Multiply-accumulates of convolutions, dense and recurrent layers, batch 1. Free
            dimensions other than the batch count as 1.
        layers: The layers in execution order.
        uncounted: Layers with weights for which no formula is known; their MACs count as 0.
    """

    params: int
    macs: int
    layers: tuple[LayerProfile, ...]
    uncounted: tuple[str, ...]


def unwrap(layer: Any) -> Any:
    """The layer inside a quantize wrapper, or the layer itself."""
    return layer.layer if hasattr(layer, "quantize_config") else layer


def _spatial(layer: Any, shape: tuple) -> int:
    """Number of spatial positions of a feature map, free dimensions counted as 1."""
    inner = shape[2:] if getattr(layer, "data_format", "") == "channels_first" else shape[1:-1]
    return prod(d or 1 for d in inner)


def _conv(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    return {"kernel": _spatial(layer, outs[0])}


def _transpose(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    return {"kernel": _spatial(layer, ins[0])}


def _depthwise(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    name = "depthwise_kernel" if hasattr(layer, "depthwise_kernel") else "kernel"
    return {name: _spatial(layer, outs[0])}


def _separable(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    n = _spatial(layer, outs[0])
    return {"depthwise_kernel": n, "pointwise_kernel": n}


def _dense(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    return {"kernel": prod(d or 1 for d in outs[0][1:-1])}


def _none(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    return {}


# How often each element of a weight is used in one call, by weight attribute.
MACS: dict[str, Callable[[Any, list[tuple], list[tuple]], dict[str, int]]] = {
    "Conv1D": _conv,
    "Conv2D": _conv,
    "Conv3D": _conv,
    "Conv1DTranspose": _transpose,
    "Conv2DTranspose": _transpose,
    "Conv3DTranspose": _transpose,
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "Dense": _dense,
    "BatchNormalization": _none,
    "SyncBatchNormalization": _none,
    "LayerNormalization": _none,
    "PReLU": _none,
    "Embedding": _none,
}


def _kind(layer: Any) -> str:
    """Class name of the layer, or of the Keras class it derives from that has a formula."""
    for base in type(layer).__mro__:
        if base.__name__ in MACS:
            return base.__name__
    return type(layer).__name__


def weight_uses(graph: Graph) -> tuple[list[WeightUse], list[str]]:
    """Every use of a weight that costs multiply-accumulates.

    Args:
        graph: A traced model.

    Returns:
        The uses, and the names of layers with weights for which no formula is known.
    """
    uses: list[WeightUse] = []
    uncounted: list[str] = []
    for call in graph.calls:
        layer = unwrap(call.layer)
        if not getattr(layer, "weights", None):
            continue
        rule = MACS.get(_kind(layer))
        if rule is None:
            uncounted.append(call.name)
            continue
        shapes = _shapes(graph, call)
        for attribute, positions in rule(layer, *shapes).items():
            variable = getattr(layer, attribute)
            number = next((i for i, w in enumerate(call.layer.weights) if w is variable), None)
            if number is not None:
                uses.append(WeightUse(call.name, number, positions))
    return uses, uncounted


def _shapes(graph: Graph, call: Call) -> tuple[list[tuple], list[tuple]]:
    ins = [graph.tensors[i].shape for i in call.inputs]
    return ins, [graph.tensors[i].shape for i in call.outputs]


def profile(model: Any) -> Profile:
    """Counts parameters and multiply-accumulates.

    One multiply-accumulate is one weight applied at one output position: a convolution costs
    H_out * W_out * k_h * k_w * C_in / groups * C_out, a dense layer C_in * C_out.

    Args:
        model: A built functional or sequential Keras model, also a quantize-aware one.

    Raises:
        ModelError: The model cannot be traced.
    """
    graph = model if isinstance(model, Graph) else trace(model)
    uses, uncounted = weight_uses(graph)
    layers = graph.layers()
    macs: dict[str, int] = {}
    for use in uses:
        weight = layers[use.layer].weights[use.weight]
        macs[use.layer] = macs.get(use.layer, 0) + use.positions * prod(weight.shape)
    rows: dict[str, LayerProfile] = {}
    for call in graph.calls:
        if call.name in rows:
            continue
        layer = unwrap(call.layer)
        params = sum(prod(w.shape) for w in getattr(layer, "weights", []) if not _is_range(w))
        shape = graph.tensors[call.outputs[0]].shape if call.outputs else ()
        rows[call.name] = LayerProfile(
            call.name, type(layer).__name__, params, macs.get(call.name, 0), shape
        )
    done = tuple(rows.values())
    return Profile(sum(r.params for r in done), sum(r.macs for r in done), done, tuple(uncounted))


def _is_range(weight: Any) -> bool:
    """True for the range and step variables that tfmot keeps beside a layer's own weights."""
    last = weight.name.rsplit("/", 1)[-1].split(":")[0]
    return last.endswith(("_min", "_max", "optimizer_step"))

"""Parameters, multiply-accumulates and bytes of a model, layer by layer, without running it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        axes: The axes of the weight whose elements count, None for all. Products of activations
            (attention scores) are as wide as some axes of the weights that made them.
    """

    layer: str
    weight: int
    positions: int
    axes: tuple[int, ...] | None = None

    def macs(self, shape: Sequence[int]) -> int:
        """Multiply-accumulates where the weight has this shape."""
        return self.positions * prod(shape if self.axes is None else (shape[a] for a in self.axes))


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
        macs: Multiply-accumulates of convolutions, dense, recurrent and attention layers, batch 1.
            Free dimensions other than the batch count as 1.
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


def _einsum(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    """One product for each combination of all letters but the batch's."""
    left, right = layer.equation.replace(" ", "").replace("...", "").split("->")
    kernel = left.split(",")[1]
    known = prod(d for c, d in zip(kernel, layer.kernel.shape, strict=True) if c in right)
    return {"kernel": prod(d or 1 for d in outs[0][1:]) // max(known, 1)}


def _steps(shape: tuple) -> int:
    return prod(d or 1 for d in shape[1:-1])


def _recurrent(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    """The cell's two kernels, once a step; those of a ConvLSTM at every position too."""
    steps = ins[0][1] or 1
    if len(ins[0]) == 3:
        return {"cell.kernel": steps, "cell.recurrent_kernel": steps}
    inner = outs[0] if not layer.return_sequences else (outs[0][0], *outs[0][2:])
    places = steps * _spatial(layer, inner)
    return {"cell.kernel": places, "cell.recurrent_kernel": places}


def _bidirectional(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    forward = _recurrent(layer.forward_layer, ins, outs)
    sides = ("forward_layer", "backward_layer")
    return {f"{side}.{key}": n for side in sides for key, n in forward.items()}


def _time_distributed(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    rule = MACS.get(_kind(layer.layer), _none)
    inner = [[(s[0], *s[2:]) for s in shapes] for shapes in (ins, outs)]
    steps = ins[0][1] or 1
    return {f"layer.{key}": steps * n for key, n in rule(layer.layer, *inner).items()}


def _wrapped(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    rule = MACS.get(_kind(layer.layer), _none)
    return {f"layer.{key}": n for key, n in rule(layer.layer, ins, outs).items()}


def _attention(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, Any]:
    """Four projections, the scores (as wide as a query) and their sums (as wide as a value)."""
    source = ins[min(1, len(ins) - 1)]
    queries, keys = _steps(ins[0]), _steps(source)
    seen = prod(source[a] or 1 for a in getattr(layer, "_attention_axes", (1,)))
    return {
        "_query_dense.kernel": queries,
        "_key_dense.kernel": keys,
        "_value_dense.kernel": keys,
        "_output_dense.kernel": queries,
        "_query_dense.kernel ": (queries * seen, (1, 2)),
        "_value_dense.kernel ": (queries * seen, (1, 2)),
    }


def _none(layer: Any, ins: list[tuple], outs: list[tuple]) -> dict[str, int]:
    return {}


# How often each element of a weight is used in one call, by weight attribute (a trailing space
# tells a second use apart), with the axes that count where not all do.
MACS: dict[str, Callable[[Any, list[tuple], list[tuple]], dict[str, Any]]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transpose),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _dense,
    "EinsumDense": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), _recurrent),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _recurrent),
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "SpectralNormalization": _wrapped,
    "MultiHeadAttention": _attention,
    **dict.fromkeys(
        "BatchNormalization SyncBatchNormalization LayerNormalization GroupNormalization "
        "RMSNormalization Normalization LayerScale PReLU Embedding".split(),
        _none,
    ),
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
        for path, use in rule(layer, *shapes).items():
            variable: Any = layer
            for attribute in path.strip().split("."):
                variable = getattr(variable, attribute, None)
            number = next((i for i, w in enumerate(call.layer.weights) if w is variable), None)
            if number is not None:
                positions, axes = use if isinstance(use, tuple) else (use, None)
                uses.append(WeightUse(call.name, number, positions, axes))
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
        macs[use.layer] = macs.get(use.layer, 0) + use.macs(weight.shape)
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
    """True for what quantizers keep beside a layer's own weights."""
    last = weight.name.rsplit("/", 1)[-1].split(":")[0]
    return last.endswith(("_min", "_max", "_clusters", "optimizer_step"))

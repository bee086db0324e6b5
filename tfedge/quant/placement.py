"""Where a network is quantized: one table of layer types, and which pairs the file will fuse.

A TFLite kernel quantizes its output once, after everything that is fused into it. So the output
quantizer of a layer is left out where the converter fuses the next layer into the same op (conv +
batch norm, conv + relu, add + relu), and where a concatenation follows (its inputs must have its
own scale, which the converter hands back to them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tfedge._keras import keras
from tfedge.graph.rewrite import activation_name
from tfedge.graph.trace import Call, Graph
from tfedge.quant.configs import LayerConfig

FUSED_ACTIVATIONS = ("linear", "relu", "relu6")
"""Activations that TFLite computes inside the op before them."""

FIXED_RANGE_ACTIVATIONS = ("softmax", "sigmoid", "tanh")
"""Activations whose input is quantized and whose output range TFLite fixes."""

OTHER_ACTIVATIONS = ("swish", "silu", "gelu")
"""Activations with a quantized input and a quantized output."""


@dataclass(frozen=True)
class Rule:
    """How a layer type is quantized.

    Attributes:
        kind: "kernel" (weights and output), "output" (output only), "same" (moves values about:
            output has the input's scale), "rounding" (likewise, but it computes and rounds),
            "activation" (by the name of its function) or "relu".
        kernels: Kernel attributes with their `WeightQuantizer` axis.
        native: True where tfmot's default 8-bit scheme takes the layer too (`strict=True` allows
            only these).
    """

    kind: str
    kernels: dict[str, str] = field(default_factory=dict)
    native: bool = True


def _rule(kind: str, *, native: bool = True, **kernels: str) -> Rule:
    return Rule(kind, kernels, native)


_L = keras.layers
RULES: dict[type, Rule] = {
    _L.Conv2D: _rule("kernel", kernel="channel"),
    _L.DepthwiseConv2D: _rule("kernel", depthwise_kernel="depthwise"),
    _L.Conv2DTranspose: _rule("kernel", kernel="tensor"),
    _L.Dense: _rule("kernel", kernel="tensor"),
    _L.Embedding: _rule("output", native=False, embeddings="tensor"),
    _L.BatchNormalization: _rule("output"),
    _L.Add: _rule("output"),
    _L.Concatenate: _rule("output"),
    _L.GlobalAveragePooling1D: _rule("output"),
    _L.GlobalAveragePooling2D: _rule("output"),
    _L.LeakyReLU: _rule("output"),
    _L.ReLU: _rule("relu"),
    _L.Activation: _rule("activation"),
    _L.Multiply: _rule("output", native=False),
    _L.Subtract: _rule("output", native=False),
    _L.Rescaling: _rule("output", native=False),
    _L.Maximum: _rule("output", native=False),
    _L.Minimum: _rule("output", native=False),
    _L.PReLU: _rule("output", native=False),
    _L.AveragePooling2D: _rule("rounding"),
    _L.MaxPooling2D: _rule("same"),
    _L.GlobalMaxPooling1D: _rule("same"),
    _L.GlobalMaxPooling2D: _rule("same"),
    _L.MaxPooling1D: _rule("same", native=False),
    _L.AveragePooling1D: _rule("rounding"),
    _L.UpSampling2D: _rule("rounding"),
    _L.Flatten: _rule("same"),
    _L.Reshape: _rule("same"),
    _L.Permute: _rule("same"),
    _L.RepeatVector: _rule("same", native=False),
    _L.ZeroPadding1D: _rule("same"),
    _L.ZeroPadding2D: _rule("same"),
    _L.Cropping1D: _rule("same"),
    _L.Cropping2D: _rule("same"),
    _L.Dropout: _rule("same"),
    _L.SpatialDropout1D: _rule("same"),
    _L.SpatialDropout2D: _rule("same"),
    _L.GaussianNoise: _rule("same", native=False),
    _L.GaussianDropout: _rule("same", native=False),
    _L.ActivityRegularization: _rule("same"),
}
"""Rules by exact layer class, for networks that `normalise` has rewritten."""


def is_fusable_relu(layer: Any) -> bool:
    """True for a relu or relu6 layer that TFLite computes inside the op before it."""
    if isinstance(layer, keras.layers.ReLU):
        plain = not float(layer.negative_slope or 0) and not float(layer.threshold or 0)
        return plain and (layer.max_value is None or float(layer.max_value) == 6.0)
    return isinstance(layer, keras.layers.Activation) and activation_name(layer) in (
        "relu", "relu6",
    )  # fmt: skip


def consumers(graph: Graph) -> dict[int, list[Call]]:
    """The calls that read each tensor."""
    found: dict[int, list[Call]] = {}
    for call in graph.calls:
        for number in call.inputs:
            found.setdefault(number, []).append(call)
    return found


def call_counts(graph: Graph) -> dict[str, int]:
    """How often each layer is called."""
    found: dict[str, int] = {}
    for call in graph.calls:
        found[call.name] = found.get(call.name, 0) + 1
    return found


class Placement:
    """Decides the quantizers of a normalised graph.

    Args:
        graph: Traced from what `normalise` returned: every layer has a rule.
    """

    def __init__(self, graph: Graph) -> None:
        self._readers = consumers(graph)
        self._counts = call_counts(graph)
        self._outputs = set(graph.output_refs())
        self._makers = {c.outputs[0]: c for c in graph.calls if len(c.outputs) == 1}
        self._calls = {c.name: c for c in graph.calls}
        self._all: dict[str, list[Call]] = {}
        for call in graph.calls:
            self._all.setdefault(call.name, []).append(call)

    def config(self, name: str, layer: Any, bits: int) -> LayerConfig | None:
        """The layer's QuantizeConfig, or None for a layer that stays as it is.

        Args:
            name: Unique layer name in the graph.
            layer: The layer.
            bits: Activation bits, 8 or 16.
        """
        rule = RULES[type(layer)]
        function = activation_name(layer)
        before = rule.kind == "kernel" and function in FIXED_RANGE_ACTIVATIONS
        output = self._output(rule, function)
        if output == "range" and self._is_fused(name):
            output = ""
        always = isinstance(layer, keras.layers.Concatenate)  # Its wrapper helps the export.
        if not (rule.kernels or before or output or always):
            return None
        final = any(i in self._outputs for c in self._all[name] for i in c.outputs)
        return LayerConfig(rule.kernels, before, output, bits, final)

    @staticmethod
    def _output(rule: Rule, function: str) -> str:
        """The `output` of a LayerConfig, fusing aside."""
        if rule.kind in ("kernel", "activation") and function in FIXED_RANGE_ACTIVATIONS:
            return function
        if rule.kind == "activation":
            if function in ("swish", "silu"):
                return "swish"
            return "" if function == "linear" else "range"
        if rule.kind == "rounding":
            return "source"
        return "range" if rule.kind in ("kernel", "output", "relu") else ""

    def _is_fused(self, name: str) -> bool:
        """True where the next layer is computed in the same op (or dictates the scale)."""
        call = self._calls[name]
        if self._counts[name] > 1 or len(call.outputs) != 1 or call.outputs[0] in self._outputs:
            return False
        readers = self._readers.get(call.outputs[0], [])
        if len(readers) != 1 or self._counts[readers[0].name] > 1:
            return False
        after = readers[0].layer
        if isinstance(after, keras.layers.Concatenate):
            return len(set(readers[0].inputs)) == len(readers[0].inputs)
        if activation_name(call.layer) != "linear":
            return False
        if isinstance(after, keras.layers.BatchNormalization):
            return type(call.layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        fusing = (
            _L.Conv2D, _L.DepthwiseConv2D, _L.Dense, _L.Add, _L.BatchNormalization,
        )  # fmt: skip
        return is_fusable_relu(after) and type(call.layer) in fusing

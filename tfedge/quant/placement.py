"""Where a network is quantized: one table of layer types, and which pairs the file will fuse.

A TFLite kernel quantizes its output once, after everything that is fused into it. So the output
quantizer of a layer is left out where the converter fuses the next layer into the same op (conv +
batch norm, conv + relu, add + relu), and where a concatenation follows (its inputs must have its
own scale, which the converter hands back to them).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tfedge._keras import keras
from tfedge.graph.canonical import symbol_of
from tfedge.graph.rewrite import activation_name
from tfedge.graph.trace import Call, Graph
from tfedge.quant.configs import LayerConfig
from tfedge.quant.tables import AboveZero, Tabled
from tfedge.schemes import get_scheme

FLOAT = "float"
"""The scheme of a layer that stays as it is."""

FUSED_ACTIVATIONS = ("linear", "relu", "relu6")
"""Activations that TFLite computes inside the op before them."""

FIXED_RANGE_ACTIVATIONS = ("softmax", "sigmoid", "tanh")
"""Activations whose input is quantized and whose output range TFLite fixes."""

OTHER_ACTIVATIONS = ("swish", "silu", "gelu", "gelu_tanh")
"""Activations with a quantized input and a quantized output."""


@dataclass(frozen=True)
class Rule:
    """How a layer type is quantized.

    Attributes:
        kind: "kernel" (weights and output), "output" (output only), "same" (moves values about:
            output has the input's scale), "rounding" (likewise, but it computes and rounds),
            "activation" (by the name of its function) or "relu".
        kernels: Kernel attributes with their `WeightQuantizer` axis.
        four_bits: Whether the runtime has a kernel for 4-bit weights.
        int16: "" or the op that has no kernel for 16-bit activations.
    """

    kind: str
    kernels: dict[str, str] = field(default_factory=dict)
    four_bits: bool = False
    int16: str = ""


def _rule(kind: str, *, four_bits: bool = False, int16: str = "", **kernels: str) -> Rule:
    return Rule(kind, kernels, four_bits, int16)


_L = keras.layers
_OUTPUT, _SAME = _rule("output"), _rule("same")
RULES: dict[type, Rule] = {
    _L.Conv2D: _rule("kernel", four_bits=True, kernel="channel"),
    _L.DepthwiseConv2D: _rule("kernel", depthwise_kernel="depthwise"),
    _L.Conv2DTranspose: _rule("kernel", kernel="filter"),
    _L.Dense: _rule("kernel", four_bits=True, kernel="unit"),
    _L.Embedding: _rule("output", embeddings="tensor"),
    _L.BatchNormalization: _OUTPUT,
    _L.Add: _OUTPUT,
    _L.Concatenate: _OUTPUT,
    _L.GlobalAveragePooling1D: _OUTPUT,
    _L.GlobalAveragePooling2D: _OUTPUT,
    _L.LeakyReLU: _OUTPUT,
    Tabled: _OUTPUT,
    _L.ReLU: _rule("relu"),
    _L.Activation: _rule("activation"),
    _L.Multiply: _OUTPUT,
    _L.Subtract: _OUTPUT,
    _L.Maximum: _OUTPUT,
    _L.Minimum: _OUTPUT,
    _L.PReLU: _rule("output", int16="PRELU"),
    _L.AveragePooling1D: _rule("rounding"),
    _L.AveragePooling2D: _rule("rounding"),
    _L.UpSampling2D: _rule("rounding"),
    _L.Resizing: _rule("rounding"),
    **dict.fromkeys(
        (
            _L.MaxPooling1D, _L.MaxPooling2D, _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D,
            _L.Flatten, _L.Reshape, _L.Permute, _L.ZeroPadding1D, _L.ZeroPadding2D, _L.Cropping1D,
            _L.Cropping2D, _L.Cropping3D, _L.ZeroPadding3D, _L.AlphaDropout, _L.SpatialDropout3D,
            _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.GaussianNoise,
            _L.GaussianDropout, _L.ActivityRegularization, AboveZero,
        ),
        _SAME,
    ),
}  # fmt: skip
"""Rules by exact layer class, for networks that `normalise` has rewritten."""

OP_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "reshape", "transpose", "expand_dims", "squeeze", "identity", "stop_gradient",
            "__operators__.getitem", "strided_slice", "slice", "split", "stack",
            "math.reduce_max", "gather", "pad",
        ),
        _SAME,
    ),
    "tile": _rule("same", int16="TILE"),
    **dict.fromkeys(("nn.depth_to_space", "depth_to_space"), _rule("same", int16="DEPTH_TO_SPACE")),
    **dict.fromkeys(("nn.space_to_depth", "space_to_depth"), _rule("same", int16="SPACE_TO_DEPTH")),
    **dict.fromkeys(
        (
            "math.add", "math.subtract", "math.multiply", "math.maximum", "math.minimum",
            "__operators__.add", "__operators__.sub", "__operators__.mul", "math.reduce_mean",
            "linalg.matmul", "__operators__.matmul",
        ),
        _OUTPUT,
    ),
}  # fmt: skip
"""Rules by the function of an operation outside a layer (see `canonical.symbol_of`)."""


_ONE_SCALE = (_L.Concatenate, _L.Maximum, _L.Minimum)
_ONE_SCALE_OPS = ("math.maximum", "math.minimum")


def rule_of(layer: Any) -> Rule | None:
    """The rule of a layer or operation; None where there is none."""
    return RULES.get(type(layer)) or OP_RULES.get(symbol_of(layer))


def is_operation(layer: Any) -> bool:
    """True for what is not wrapped but has a quantizer behind it."""
    return type(layer) is Tabled or (type(layer) not in RULES and symbol_of(layer) in OP_RULES)


def is_fusable_relu(layer: Any) -> bool:
    """True for a relu that TFLite computes inside the op before it, any limit by its range."""
    if isinstance(layer, keras.layers.ReLU):
        return not float(layer.negative_slope or 0) and not float(layer.threshold or 0)
    return isinstance(layer, keras.layers.Activation) and activation_name(layer) in (
        "relu", "relu6",
    )  # fmt: skip


class Placement:
    """Decides the quantizers of a normalised graph.

    Args:
        graph: Traced from what `normalise` returned: every layer that is not float has a rule.
        schemes: Scheme of each layer by its name in this graph.
    """

    def __init__(self, graph: Graph, schemes: dict[str, str]) -> None:
        self.schemes = schemes
        self._readers: dict[int, list[Call]] = {}
        for call in graph.calls:
            for number in call.inputs:
                self._readers.setdefault(number, []).append(call)
        self._counts = Counter(c.name for c in graph.calls)
        self._outputs = set(graph.output_refs())
        self._calls = {c.name: c for c in graph.calls}
        self._makers = {i: c for c in graph.calls for i in c.outputs}
        self._all: dict[str, list[Call]] = {}
        for call in graph.calls:
            self._all.setdefault(call.name, []).append(call)

    def is_float(self, name: str) -> bool:
        """True for a layer that stays as it is."""
        return self.schemes[name] == FLOAT

    def bits(self, name: str) -> int:
        """Activation bits of a layer that is quantized."""
        return get_scheme(self.schemes[name]).activation_bits

    def weight_bits(self, name: str, layer: Any) -> int:
        """Bits of a layer's kernels: 8 where the runtime has no kernel for fewer."""
        rule = rule_of(layer)
        return get_scheme(self.schemes[name]).weight_bits if rule and rule.four_bits else 8

    def config(self, name: str, layer: Any) -> LayerConfig | None:
        """The layer's QuantizeConfig, or None for a layer that stays as it is.

        Args:
            name: Unique layer name in the graph.
            layer: The layer.
        """
        rule = rule_of(layer)
        if rule is None or self.is_float(name) or is_operation(layer):
            return None
        function = activation_name(layer)
        before = rule.kind == "kernel" and function in FIXED_RANGE_ACTIVATIONS
        output = self._output(rule, function)
        if output == "range" and self._is_fused(name):
            output = ""
        # Their wrappers help the export, or compute in the file's integers.
        always = isinstance(layer, (keras.layers.Concatenate, keras.layers.Add))
        if not (rule.kernels or before or output or always):
            return None
        final = any(i in self._outputs for c in self._all[name] for i in c.outputs)
        return LayerConfig(rule.kernels, before, output, self.bits(name), final)

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

    def keeps_range(self, call: Call) -> bool:
        """True where a call hands its input's codes on."""
        rule = rule_of(call.layer)
        if rule is None or self.is_float(call.name):
            return False
        linear = rule.kind == "activation" and activation_name(call.layer) == "linear"
        return linear or rule.kind in ("same", "rounding")

    def has_one_scale(self, call: Call) -> bool:
        """True for an op whose inputs and output have one scale in the file."""
        return isinstance(call.layer, _ONE_SCALE) or symbol_of(call.layer) in _ONE_SCALE_OPS

    def takes_scale(self, number: int, call: Call) -> bool:
        """True where a tensor has no quantizer of its own, but that of a call that reads it."""
        maker = self._makers.get(number)
        if maker is None or self.is_float(maker.name):
            return False
        rule = rule_of(maker.layer)
        if rule is None or is_operation(maker.layer):
            return False
        if self._output(rule, activation_name(maker.layer)) != "range":
            return False
        return self._is_fused(maker.name) and call in self._readers[number]

    def _is_fused(self, name: str) -> bool:
        """True where the next layer is computed in the same op (or dictates the scale)."""
        call = self._calls[name]
        if self._counts[name] > 1 or len(call.outputs) != 1 or call.outputs[0] in self._outputs:
            return False
        readers = self._readers.get(call.outputs[0], [])
        if len(readers) != 1 or self._counts[readers[0].name] > 1:
            return False
        after = readers[0].layer
        if self.is_float(readers[0].name) or self.bits(readers[0].name) != self.bits(name):
            return False
        if isinstance(after, keras.layers.Concatenate):
            if len(set(readers[0].inputs)) < len(readers[0].inputs):
                return False
            # The converter makes one op of two equal relus: each then needs its quantizer.
            return not is_fusable_relu(call.layer) or self._is_last_part(call)
        if activation_name(call.layer) != "linear":
            return False
        if isinstance(after, keras.layers.BatchNormalization):
            return type(call.layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        fusing = (
            _L.Conv2D, _L.DepthwiseConv2D, _L.Dense, _L.Add, _L.BatchNormalization,
        )  # fmt: skip
        return is_fusable_relu(after) and type(call.layer) in fusing

    def _is_last_part(self, call: Call) -> bool:
        """True for a layer that is computed in the op of the one before it."""
        before = self._makers.get(call.inputs[0])
        return before is not None and not self.is_float(before.name) and self._is_fused(before.name)

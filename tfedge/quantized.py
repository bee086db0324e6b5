"""What a quantize-aware model says about itself: scheme, ranges, layer names (needs no tfmot).

`quant` makes such models and `lower` converts them; neither imports the other, so what both must
know stands here. Models made by tfmot itself are recognised too.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge.errors import ModelError
from tfedge.graph.trace import Call, Graph, trace

UNSET = (-6.0, 6.0)
"""tfmot's initial range: neither calibration nor training has set it."""

STAND_INS = {
    "sigmoid": 0.12345671, "softmax": 0.12345672, "tanh": 0.12345673,
    "exp": 0.12345674, "log": 0.12345675, "rsqrt": 0.12345676,
}  # fmt: skip
"""Slope of the LEAKY_RELU that stands for a function while a 16-bit model is converted.

The TFLite converter gives the first three int8 outputs whatever the quantizer behind them says, and
knows no int16 LOG, though the runtime has one. `tflite.standins` puts the right op back.
"""

CONCAT_SCOPE = "tfedge_concat"
"""Name scope of the PADs and MAXIMUMs that stand for a concatenation, for the same reason.

Each input is padded to the output's shape, and the maximum is taken: ops that keep their input's
scale, as CONCATENATION does.
"""

BOUNDARY = "Boundary"
"""Class of the layers between unlike schemes, or what is quantized and what is not."""

BOUNDARY_SCOPE = "tfedge_boundary"
"""Name scope of the ELUs that stand between unlike schemes while a model is converted.

The TFLite converter quantizes whatever lies between two quantizers, and of two quantizers in a row
loses one. It has no integer ELU, so an op behind one stays float, and a quantizer behind one stays.
`tflite.standins` takes the ELUs out again.
"""


@dataclass(frozen=True)
class CodedKernel:
    """A kernel with one scale a channel that is exported with one scale for all.

    The TFLite converter has no form, or a wrong one, for such kernels of FULLY_CONNECTED and
    TRANSPOSE_CONV. So its codes are exported as they are, and `tflite.channel_scales` gives them
    the scales.

    Attributes:
        codes: int8, channels first as in the file: [units, inputs] or [filters, h, w, inputs].
        scales: float32 [channels].
        scale: The one that stands for them in the meantime.
        bias: float32 [channels], or None: so that it is not rounded twice.
    """

    codes: np.ndarray
    scales: np.ndarray
    scale: float
    bias: np.ndarray | None = None


@dataclass
class Export:
    """An export going on.

    Attributes:
        activation_bits: 8 or 16.
        kernels: What was exported with a scale that must be replaced.
        uniform_biases: Numbers that are a layer's bias in all channels.
    """

    activation_bits: int
    kernels: list[CodedKernel] = field(default_factory=list)
    uniform_biases: list[float] = field(default_factory=list)


_EXPORT: contextvars.ContextVar[Export | None] = contextvars.ContextVar("export", default=None)


@contextlib.contextmanager
def exporting(activation_bits: int) -> Iterator[Export]:
    """Lets quantize-aware layers emit what the converter needs, within the block (this thread).

    Roundings that a kernel does by itself are left out; with 16-bit activations the functions of
    `STAND_INS` are replaced; kernels are noted down whose scales the converter cannot write.

    Args:
        activation_bits: 8 or 16.
    """
    export = Export(activation_bits)
    token = _EXPORT.set(export)
    try:
        yield export
    finally:
        _EXPORT.reset(token)


def export() -> Export | None:
    """The present export; None outside of `exporting`."""
    return _EXPORT.get()


def export_bits() -> int:
    """Activation bits of the present export; 0 outside of `exporting`."""
    found = _EXPORT.get()
    return 0 if found is None else found.activation_bits


@dataclass(frozen=True)
class Range:
    """One quantizer of a quantize-aware model.

    Attributes:
        layer: Name of the layer in the float model (inputs: of the quantizing layer).
        role: "weight", "before activation" or "output".
        bits: 8 or 16.
        low: The variable of the smallest value; scalar, or [C] per channel.
        high: Likewise of the largest.
    """

    layer: str
    role: str
    bits: int
    low: Any
    high: Any

    @property
    def is_set(self) -> bool:
        """False where an activation's range is still tfmot's [-6, 6]."""
        if self.role == "weight":
            return True
        return (float(self.low.numpy()), float(self.high.numpy())) != UNSET


def all_layers(model: Any) -> Iterator[Any]:
    """The model's layers in order, those of nested models in place of them."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from all_layers(layer)
        else:
            yield layer


def _is_wrapper(layer: Any) -> bool:
    return hasattr(layer, "quantize_config") and hasattr(layer, "layer")


def _is_quantizer(layer: Any) -> bool:
    return any(base.__name__ == "QuantizeLayer" for base in type(layer).__mro__)


def is_quantized(model: Any) -> bool:
    """True for a model that simulates quantization (made by tfedge or by tfmot)."""
    if not hasattr(model, "layers"):
        return False
    return any(_is_wrapper(x) or _is_quantizer(x) for x in all_layers(model))


def foreign_quantizers(model: Any) -> list[str]:
    """Names of the quantizing layers that are not tfedge's."""
    if not hasattr(model, "layers"):
        return []
    own = [x for x in all_layers(model) if _is_wrapper(x) or _is_quantizer(x)]
    return [x.name for x in own if not type(x).__module__.startswith("tfedge.")]


def layer_name(layer: Any) -> str:
    """The name that a layer has in the float model: without the wrapper's "quant_"."""
    return layer.layer.name if _is_wrapper(layer) else layer.name


def output_names(model: Any) -> list[str]:
    """Names of a model's outputs, in the order of the flattened outputs.

    The keys where the model returns a dict; else the names of the layers that make them, as Keras
    does, without the "quant_" of quantize-aware models.

    Args:
        model: A tf_keras Functional or Sequential model.
    """
    nested = model._nested_outputs
    if isinstance(nested, dict) and all(hasattr(v, "shape") for v in nested.values()):
        return sorted(nested)
    names: list[str] = []
    used: dict[str, int] = {}
    for tensor in _flat(nested):
        layer = tensor._keras_history.layer
        base = name = layer_name(layer)
        while name in names:
            used[base] = used.get(base, 0) + 1
            name = f"{base}_{used[base]}"
        names.append(name)
    return names


def name_outputs(model: Any) -> Any:
    """Gives a quantize-aware model the output names of its float model; returns the model.

    Losses, metrics and labels by output name then fit both. Keras itself would name the outputs
    after the wrappers ("quant_<layer>"), also when it loads the model.

    Args:
        model: A quantize-aware tf_keras model.
    """
    model.output_names = output_names(model)
    return model


def _flat(nested: Any) -> list[Any]:
    """Leaves of nested lists, tuples and dicts, dicts in key order."""
    if isinstance(nested, dict):
        return [x for key in sorted(nested) for x in _flat(nested[key])]
    if isinstance(nested, (list, tuple)):
        return [x for part in nested for x in _flat(part)]
    return [nested]


def ranges(model: Any) -> list[Range]:
    """All quantizers of a built quantize-aware model, in the order of its layers."""
    found: list[Range] = []
    for layer in all_layers(model):
        name = layer_name(layer)
        for role, quantizer, variables in _variables(layer):
            if variables:
                bits = int(getattr(quantizer, "num_bits", 8))
                found.append(Range(name, role, bits, variables["min_var"], variables["max_var"]))
    return found


def _variables(layer: Any) -> Iterator[tuple[str, Any, dict]]:
    """(role, quantizer, its variables) of one layer."""
    if _is_quantizer(layer):
        if layer.quantizer is not None:
            yield "output", layer.quantizer, layer.quantizer_vars
        return
    if not _is_wrapper(layer):
        return
    for _, quantizer, variables in getattr(layer, "_weight_vars", []):
        yield "weight", quantizer, variables
    for activation in getattr(layer, "_quantize_activations", []):
        before = getattr(activation, "_pre_activation_vars", None)
        after = getattr(activation, "_post_activation_vars", None)
        if before:
            yield "before activation", activation.quantizer, before
        if after:
            yield "output", activation.quantizer, after
    outputs = getattr(layer, "_output_quantizers", None)
    if outputs:
        yield "output", outputs[0], layer._output_quantizer_vars


def qat_schemes(model: Any) -> tuple[str, ...]:
    """The schemes that the layers of a quantize-aware model simulate.

    Returns:
        "w8a8", "w8a16" or "w4a8", several where layers differ; first the one of most kernels (of
        most activations, where there is no kernel).

    Raises:
        ModelError: The model does not simulate quantization, or with other bit widths.
    """
    if not is_quantized(model):
        raise ModelError(
            "the model is not quantize-aware", type(model).__name__,
            "Make it so with tfedge.quant.quantize_aware(model, calibration=...)",
        )  # fmt: skip
    rows = ranges(model)
    found: Counter[str] = Counter()
    kernels = {r.layer: r.bits for r in rows if r.role == "weight"}
    activations = {r.layer: r.bits for r in rows if r.role != "weight"}
    declared = _declared_bits(model)
    for name, bits in kernels.items():
        found[f"w{bits}a{declared.get(name, activations.get(name, 8))}"] += len(rows)
    for bits in activations.values():
        found["w8a16" if bits == 16 else "w8a8" if not kernels else ""] += 1
    del found[""]
    if found and found.keys() <= {"w8a8", "w8a16", "w4a8"}:
        return tuple(s for s, _ in found.most_common())
    raise ModelError("the quantize-aware model has no scheme of tfedge's", ", ".join(found))


def _declared_bits(model: Any) -> dict[str, int]:
    """Activation bits by layer, as the configs of tfedge's wrappers say."""
    wrapped = [x for x in all_layers(model) if _is_wrapper(x)]
    bits = {layer_name(x): getattr(x.quantize_config, "activation_bits", None) for x in wrapped}
    return {name: b for name, b in bits.items() if b}


def qat_scheme(model: Any) -> str:
    """The scheme that most layers of a quantize-aware model simulate; see `qat_schemes`."""
    return qat_schemes(model)[0]


def float_layers(model: Any) -> frozenset[str]:
    """Names of the layers of a quantize-aware model that compute in float.

    Args:
        model: A quantize-aware model.
    """
    graph = trace(model)
    floats = {n for n in graph.inputs if graph.tensors[n].dtype.startswith("float")}
    found = set()
    for call in graph.calls:
        own = _is_wrapper(call.layer) or _is_quantizer(call.layer)
        boundary = type(call.layer).__name__ == BOUNDARY
        if own or not (boundary or floats.intersection(call.inputs) or _makes_float(graph, call)):
            continue
        floats.update(call.outputs)
        if not boundary:
            found.add(call.name)
    return frozenset(found)


def _makes_float(graph: Graph, call: Call) -> bool:
    """True where a call makes floats of other values: an embedding that is not quantized."""
    before, after = ([graph.tensors[i].dtype for i in n] for n in (call.inputs, call.outputs))
    return any(d.startswith("float") for d in after) and not any(
        d.startswith("float") for d in before
    )


def unset_ranges(model: Any) -> list[str]:
    """Names of layers whose activation range neither calibration nor training has set."""
    return list(dict.fromkeys(r.layer for r in ranges(model) if not r.is_set))

"""A trained w8a8 model with 16-bit activations."""

from __future__ import annotations

from typing import Any

from tfedge._keras import keras
from tfedge.bridge.precision import float32_policy
from tfedge.errors import ModelError
from tfedge.graph.copying import copy_layer
from tfedge.graph.trace import Graph, replay, trace
from tfedge.quant import _tfmot
from tfedge.quant.configs import InputQuantizer, TfedgeQuantizeWrapper
from tfedge.quant.objects import custom_objects
from tfedge.quant.qat import copy_notes
from tfedge.quant.quantizers import ActivationQuantizer
from tfedge.quant.ranges import copy_ranges
from tfedge.quant.refusals import no_int16_kernel
from tfedge.quantized import qat_scheme, unset_ranges


@float32_policy()
def to_16x8(model: Any) -> Any:
    """Rebuilds a trained w8a8 model with 16-bit activations: same weights, symmetric ranges.

    Each range becomes max = m, min = -m*32768/32767 with m = max(|min|, |max|).

    Args:
        model: What `quantize_aware(model, "w8a8")` returned, trained or calibrated.

    Returns:
        A new model that simulates w8a16; `model` itself where it does so already.

    Raises:
        ModelError: The model is not quantize-aware, was made by tfmot itself, or has no ranges.
    """
    if qat_scheme(model) == "w8a16":
        return model
    foreign = [
        x.name for x in model.layers
        if isinstance(x, _tfmot.QuantizeWrapper) and not isinstance(x, TfedgeQuantizeWrapper)
    ]  # fmt: skip
    if foreign:
        raise ModelError(
            "only models made by tfedge.quant.quantize_aware can be rebuilt with 16-bit "
            "activations", "tfmot's own wrapper around " + ", ".join(foreign[:5]),
            "Make the model quantize-aware with tfedge",
        )  # fmt: skip
    if unset_ranges(model):
        raise ModelError(
            "the model's ranges were never set", ", ".join(unset_ranges(model)[:5]),
            "Train it, or give calibration data to quantize_aware",
        )  # fmt: skip
    graph = trace(model)
    _check_kernels(graph)
    result = replay(graph, lambda name, layer: _with_16_bits(layer))
    copy_ranges(model, result)
    copy_notes(model, result)
    return result


def _check_kernels(graph: Graph) -> None:
    """Raises one error that names every layer without a kernel for int16 activations."""
    found = []
    for call in graph.calls:
        layer = getattr(call.layer, "layer", call.layer)
        if op := no_int16_kernel(layer):
            found.append(f"'{layer.name}' ({type(layer).__name__}): TFLite has no int16 {op}")
    if found:
        raise ModelError(
            "the model has layers without a kernel for 16-bit activations",
            "; ".join(dict.fromkeys(found)),
            "Train with 16 bits from the start: tfedge.quant.quantize_aware(float_model, 'w8a16', "
            "calibration) writes gelu in ops that have kernels, and keeps 8 bits in the other "
            "layers",
        )


def _with_16_bits(layer: Any) -> Any:
    """A new layer like this one whose activation quantizers have 16 bits."""
    config = layer.get_config()
    with keras.utils.custom_object_scope(custom_objects()):
        if isinstance(layer, InputQuantizer):
            return InputQuantizer(ActivationQuantizer(16, layer.quantizer.ranges), name=layer.name)
        if not isinstance(layer, TfedgeQuantizeWrapper):
            return type(layer).from_config(config)
        inner = copy_layer(layer.layer)
        config = layer.quantize_config.changed(activation_bits=16)
        return TfedgeQuantizeWrapper(inner, config, name=layer.name)

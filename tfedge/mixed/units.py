"""The parts of a network that have one scheme each, and the tensors between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.graph.rewrite import Rewriter, as_is
from tfedge.graph.trace import Call, Graph, trace
from tfedge.quant.configs import InputQuantizer, TfedgeQuantizeWrapper, layer_quantizers
from tfedge.quant.placement import is_fusable_relu, rule_of
from tfedge.quant.qat import origins
from tfedge.quant.quantizers import WeightQuantizer
from tfedge.quant.treatment import becomes
from tfedge.quantized import layer_name

_HALF = 2.0**-26  # Mean squared relative error of rounding to float16's 11 bits, about.


@dataclass(frozen=True)
class Tensor:
    """A tensor that units hand on.

    Attributes:
        maker: The unit that makes it, or the name of a model input.
        readers: Units that read it.
        elements: Number of its elements for one sample, free dimensions counted as 1.
    """

    maker: str
    readers: tuple[str, ...]
    elements: int


@dataclass(frozen=True)
class Network:
    """A float model as units.

    Attributes:
        layers: Names of the layers of each unit, by the unit's name (its first layer's).
        tensors: What units hand on.
        inputs: Names of the model's inputs.
        weights: Numbers of elements of the weights of each unit.
    """

    layers: dict[str, tuple[str, ...]]
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    weights: dict[str, frozenset[int]]

    def unit_of(self) -> dict[str, str]:
        """Unit by layer name; inputs stand for themselves."""
        found = {layer: unit for unit, layers in self.layers.items() for layer in layers}
        return found | {name: name for name in self.inputs}


@dataclass(frozen=True)
class Quantizers:
    """The quantizers of one unit in one quantize-aware model.

    Attributes:
        kernels: (number of the call, quantizer) of its kernels.
        activations: Likewise of its activations.
    """

    kernels: list[tuple[int, Any]]
    activations: list[tuple[int, Any]]


def network_of(model: Any) -> Network:
    """The units of a float model.

    A batch norm and a relu go with the layer before them, as they do in the file; so do layers that
    only move values about.

    Args:
        model: A float tf_keras model.
    """
    graph = trace(model)
    site = Rewriter(graph, as_is)
    inputs = dict(zip(graph.inputs, graph.input_names, strict=True))
    units: dict[str, str] = {}
    for call in graph.calls:
        if call.name not in units:
            units[call.name] = _joined(site, call, units)
    members: dict[str, list[str]] = {}
    for layer, unit in units.items():
        members.setdefault(unit, []).append(layer)
    tensors = []
    for number in dict.fromkeys([*graph.inputs, *(t for c in graph.calls for t in c.outputs)]):
        maker = inputs.get(number) or units[site.makers[number].name]
        readers = [units[c.name] for c in site.readers.get(number, ())]
        others = tuple(dict.fromkeys(u for u in readers if u != maker))
        if others and graph.tensors[number].dtype.startswith("float"):
            tensors.append(Tensor(maker, others, _elements(graph, number)))
    return Network(
        {unit: tuple(layers) for unit, layers in members.items()},
        tuple(tensors),
        tuple(graph.input_names),
        {
            unit: frozenset(int(np.prod(w.shape)) for n in names for w in _weights(graph, n))
            for unit, names in members.items()
        },
    )


def _weights(graph: Graph, name: str) -> list[Any]:
    return list(getattr(graph.layers()[name], "weights", ()))


def _joined(site: Rewriter, call: Call, units: Mapping[str, str]) -> str:
    """The unit that a call belongs to: an earlier one, or one of its own."""
    fuses = isinstance(call.layer, keras.layers.BatchNormalization) or is_fusable_relu(call.layer)
    before = site.sole_maker(call) if fuses else None
    rule = rule_of(becomes(site, call))
    if before is None and call.inputs and rule is not None and rule.kind in ("same", "rounding"):
        before = site.makers.get(call.inputs[0])
    return call.name if before is None else units[before.name]


def _elements(graph: Graph, number: int) -> int:
    size = 1
    for dim in graph.tensors[number].shape[1:]:
        size *= dim or 1
    return size


def quantized_layers(aware: Any) -> dict[str, Quantizers]:
    """The quantizers of a quantize-aware model by the float model's layer, or input, they serve.

    Args:
        aware: What `quantize_aware` returned.
    """
    graph, came_from = trace(aware), origins(aware)
    makers = {t: c for c in graph.calls for t in c.outputs}
    inputs = dict(zip(graph.inputs, graph.input_names, strict=True))
    found: dict[str, Quantizers] = {}
    for number, call in enumerate(graph.calls):
        if isinstance(call.layer, InputQuantizer):
            source = call.inputs[0]
            maker = makers.get(source)
            name = inputs.get(source, "") if maker is None else layer_name(maker.layer)
        elif isinstance(call.layer, TfedgeQuantizeWrapper):
            name = layer_name(call.layer)
        else:
            continue
        entry = found.setdefault(came_from.get(name, name), Quantizers([], []))
        for quantizer in layer_quantizers(call.layer):
            kernel = isinstance(quantizer, WeightQuantizer)
            (entry.kernels if kernel else entry.activations).append((number, quantizer))
    return found


def half_ratios(aware: Any, network: Network) -> dict[str, float]:
    """How much less float16 changes the kernels of each unit than the integers do.

    By the format's rounding error, not by the kernels' own: the file's have batch norm in them.

    Args:
        aware: What `quantize_aware` returned.
        network: The units of its float model.

    Returns:
        Mean squared error of float16 over that of the integers, by unit that has kernels.
    """
    units, came_from = network.unit_of(), origins(aware)
    errors: dict[str, np.ndarray] = {}
    for layer in aware.layers:
        if not isinstance(layer, TfedgeQuantizeWrapper):
            continue
        name = layer_name(layer)
        unit = units[came_from.get(name, name)]
        for kernel, quantizer, variables in layer._weight_vars:
            values = kernel.numpy().astype(np.float64)
            integers = np.asarray(quantizer(kernel, False, variables), np.float64)
            pair = np.array([_HALF * np.sum(values**2), np.sum((integers - values) ** 2)])
            errors[unit] = errors.get(unit, 0.0) + pair
    return {unit: float(a / b) for unit, (a, b) in errors.items() if b}

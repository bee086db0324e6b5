"""What each unit costs under each scheme, and the ops where schemes meet: bytes and time.

One file per scheme is made of the whole network, and its constants and op times are counted for the
units behind them. So the numbers are those of real files on the target, fused ops included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.mixed.units import Network
from tfedge.tflite import TFLiteModel, flatbuffer
from tfedge.tflite.layers import LayerFinder, constant_bytes, op_layers


@dataclass(frozen=True)
class Costs:
    """Of one file, by unit.

    Attributes:
        bytes: Constants, with their scales.
        latency_us: Time of its ops, microseconds.
        overhead: Bytes of the file that are no unit's constants.
    """

    bytes: dict[str, int]
    latency_us: dict[str, float]
    overhead: int


def costs_of(
    file: TFLiteModel,
    network: Network,
    names: Mapping[str, str],
    times: Sequence[float] | None,
) -> Costs:
    """Counts a file's constants and op times for units.

    Args:
        file: Of the whole network under one scheme.
        network: Its units.
        names: Layer of the float model by layer name in the file, where they differ.
        times: Microseconds of each op of the file; None leaves the times at 0.
    """
    model, units = flatbuffer.read(file.data), network.unit_of()
    finder = LayerFinder(file.layers)

    def known(layers: Sequence[str]) -> list[str]:
        found = (units.get(names.get(layer, layer), "") for layer in layers)
        return [u for u in found if u in network.layers]

    sizes, spent = dict.fromkeys(network.layers, 0), dict.fromkeys(network.layers, 0.0)
    counted: set[int] = set()
    last = next(iter(network.layers), "")
    for position, layer in enumerate(op_layers(model, list(file.layers))):
        last = (known([layer]) or [last])[0]
        constants = [t for t in _constants(model, position) if t.buffer not in counted]
        counted.update(t.buffer for t in constants)
        if constants:
            op = model.subgraphs[0].operators[position]
            tensors = [*constants, *(model.subgraphs[0].tensors[int(t)] for t in op.outputs)]
            behind = known([n for t in tensors for n in finder.all(flatbuffer.tensor_name(t))])
            owner = _owner(constants, behind, network) or last
            sizes[owner] += sum(constant_bytes(model, t) + _scale_bytes(t) for t in constants)
        spent[last] += 0.0 if times is None else times[position]
    return Costs(sizes, spent, len(file.data) - sum(sizes.values()))


def _constants(model: Any, position: int) -> list[Any]:
    graph = model.subgraphs[0]
    found = [graph.tensors[int(i)] for i in graph.operators[position].inputs if i >= 0]
    return [t for t in found if constant_bytes(model, t)]


def _owner(constants: Sequence[Any], units: Sequence[str], network: Network) -> str:
    """The unit whose weight the largest constant is; else the first of them, or "".

    The converter takes a layer norm's factors into the dense layer behind it, and names the kernel
    after both.
    """
    largest = max(int(np.prod(t.shape)) for t in constants)
    own = [u for u in units if largest in network.weights[u]]
    return (own or list(units) or [""])[0]


def _scale_bytes(tensor: Any) -> int:
    """Bytes of a constant's scales and zero points: float32 and int64, by channel."""
    total = 0
    for field, width in (("scale", 4), ("zeroPoint", 8)):
        values = getattr(tensor.quantization, field, None)
        if values is not None and len(values) > 1:
            total += width * len(values)
    return total

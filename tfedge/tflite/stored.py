"""Float arithmetic on weights that are stored in less: float16, or int8 with scales.

The runtime's own form: a constant of the small type and a DEQUANTIZE, which XNNPACK takes into the
op that reads it, and the other kernels compute once, when they are made ready.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np

from tfedge.tflite.flatbuffer import (
    TYPES,
    add_buffer,
    op_code,
    op_name,
    schema,
    tensor_data,
    tensor_dtype,
    text,
)

HYBRID_OPS: dict[str, tuple[int, int]] = {
    "CONV_2D": (0, 1),
    "DEPTHWISE_CONV_2D": (0, 1),
    "FULLY_CONNECTED": (0, 1),
    "TRANSPOSE_CONV": (2, 1),
}
"""Places of input and weights of the ops that take float inputs with int8 weights."""

_LEAST = 64  # Elements; below, the op costs more than it saves.
_HIGHEST = float(np.finfo(np.float16).max)
_VERSION = {"float16": 3, "int8": 5}  # Of DEQUANTIZE; 5: scales by channel.


def store_half(model: schema.ModelT, ops: Collection[int]) -> int:
    """Stores the float32 constants of some ops of the main subgraph as float16.

    Constants of fewer than 64 elements, or beyond float16's range, stay as they are.

    Args:
        model: What `flatbuffer.read` gave; changed in place.
        ops: Positions of the ops.

    Returns:
        How many constants were changed.
    """
    graph = model.subgraphs[0]
    halves: dict[int, int] = {}
    made: list[Any] = []
    for position in sorted(ops):
        op = graph.operators[position]
        inputs = [int(i) for i in op.inputs]
        for place, index in enumerate(inputs):
            if index < 0:
                continue
            if index not in halves:
                halves[index] = _halved(model, graph, index, made)
            inputs[place] = halves[index]
        op.inputs = np.array(inputs, np.int32)
    graph.operators = [*made, *graph.operators]
    return len(made)


def _halved(model: schema.ModelT, graph: Any, index: int, made: list[Any]) -> int:
    """The tensor that stands for a constant, which is the constant itself where it stays."""
    tensor = graph.tensors[index]
    values = tensor_data(model, tensor) if tensor_dtype(tensor) == "float32" else None
    if values is None or values.size < _LEAST or np.abs(values).max() > _HIGHEST:
        return index
    small = copy.copy(tensor)
    small.type = TYPES["float16"]
    small.buffer = add_buffer(model, values.astype(np.float16))
    small.name = f"{text(tensor.name)}_float16"
    graph.tensors.append(small)
    return _dequantized(model, graph, len(graph.tensors) - 1, made)


def widen_weights(model: schema.ModelT, kinds: Collection[str]) -> int:
    """Lets ops with float activations and int8 weights compute in float32.

    Where an op has a kernel for both ("dynamic range") it quantizes its input at every inference.

    Args:
        model: What `flatbuffer.read` gave; changed in place.
        kinds: Names in `HYBRID_OPS`.

    Returns:
        How many weights are widened now.
    """
    total = 0
    for graph in model.subgraphs:
        wide: dict[int, int] = {}
        made: list[Any] = []
        for op in graph.operators or []:
            name = op_name(model, op)
            if name not in kinds:
                continue
            x, w = (int(op.inputs[place]) for place in HYBRID_OPS[name])
            types = tensor_dtype(graph.tensors[x]), tensor_dtype(graph.tensors[w])
            if types != ("float32", "int8") or tensor_data(model, graph.tensors[w]) is None:
                continue
            if w not in wide:
                wide[w] = _dequantized(model, graph, w, made)
            inputs = np.array(op.inputs, np.int32)
            inputs[HYBRID_OPS[name][1]] = wide[w]
            op.inputs = inputs
            if hasattr(op.builtinOptions, "asymmetricQuantizeInputs"):
                op.builtinOptions.asymmetricQuantizeInputs = False
        graph.operators = [*made, *(graph.operators or [])]
        total += len(made)
    return total


def _dequantized(model: schema.ModelT, graph: Any, index: int, made: list[Any]) -> int:
    """A float32 tensor of a small constant's values; its DEQUANTIZE is added to `made`."""
    small = graph.tensors[index]
    wide = copy.copy(small)
    wide.type, wide.buffer, wide.quantization = TYPES["float32"], 0, None
    wide.name = f"{text(small.name).removesuffix('_float16')}_float32"
    graph.tensors.append(wide)
    op = schema.OperatorT()
    op.opcodeIndex = op_code(model, "DEQUANTIZE", _VERSION[tensor_dtype(small)])
    op.inputs = np.array([index], np.int32)
    op.outputs = np.array([len(graph.tensors) - 1], np.int32)
    made.append(op)
    return len(graph.tensors) - 1

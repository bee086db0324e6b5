"""Float weights stored as float16: half of the bytes, float32 arithmetic.

The runtime's own form: a constant of float16 and a DEQUANTIZE, which XNNPACK takes into the op that
reads it, and the other kernels compute once, when they are made ready.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from tfedge.tflite.flatbuffer import (
    TYPES,
    add_buffer,
    op_code,
    schema,
    tensor_data,
    tensor_dtype,
    text,
)

_LEAST = 64  # Elements; below, the op costs more than it saves.
_HIGHEST = float(np.finfo(np.float16).max)


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
    small, wide = schema.TensorT(), schema.TensorT()
    for fresh in (small, wide):
        for key, value in vars(tensor).items():
            setattr(fresh, key, value)
    small.type = TYPES["float16"]
    small.buffer = add_buffer(model, values.astype(np.float16))
    small.name = f"{text(tensor.name)}_float16"
    wide.buffer = 0
    graph.tensors += [small, wide]
    op = schema.OperatorT()
    op.opcodeIndex = op_code(model, "DEQUANTIZE", 3)
    op.inputs = np.array([len(graph.tensors) - 2], np.int32)
    op.outputs = np.array([len(graph.tensors) - 1], np.int32)
    made.append(op)
    return len(graph.tensors) - 1

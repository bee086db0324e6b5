"""uint8 inputs and outputs of an int8 file, for devices whose cameras and drivers give bytes.

uint8 = int8 + 128 with the same scale: a QUANTIZE at each end shifts the codes; nothing is lost.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tfedge.tflite.flatbuffer import TYPES, op_code, schema, tensor_dtype, text

_SHIFT = 128
_VERSION = 2  # Of QUANTIZE; 2: integers to integers.


def unsigned_ends(model: schema.ModelT) -> None:
    """Gives the main subgraph uint8 inputs and outputs in the place of int8 ones.

    Ends of other dtypes stay.

    Args:
        model: What `flatbuffer.read` gave, without signatures; changed in place.
    """
    graph = model.subgraphs[0]
    before, after = [], []
    inputs = [int(i) for i in graph.inputs]
    for place, index in enumerate(inputs):
        if tensor_dtype(graph.tensors[index]) == "int8":
            inputs[place] = _twin(graph, index)
            before.append(_shift(model, inputs[place], index))
    outputs = [int(i) for i in graph.outputs]
    for place, index in enumerate(outputs):
        if tensor_dtype(graph.tensors[index]) == "int8":
            outputs[place] = _twin(graph, index)
            after.append(_shift(model, index, outputs[place]))
    graph.inputs, graph.outputs = inputs, outputs
    graph.operators = [*before, *graph.operators, *after]


def _twin(graph: Any, index: int) -> int:
    """A uint8 tensor of the same values, under the int8 tensor's name."""
    tensor = graph.tensors[index]
    twin = copy.copy(tensor)
    twin.quantization = copy.copy(tensor.quantization)
    twin.quantization.zeroPoint = np.asarray(tensor.quantization.zeroPoint, np.int64) + _SHIFT
    twin.type, twin.buffer = TYPES["uint8"], 0
    tensor.name = f"{text(tensor.name)}_int8"
    graph.tensors.append(twin)
    return len(graph.tensors) - 1


def _shift(model: schema.ModelT, source: int, result: int) -> Any:
    op = schema.OperatorT()
    op.opcodeIndex = op_code(model, "QUANTIZE", _VERSION)
    op.inputs, op.outputs = np.array([source], np.int32), np.array([result], np.int32)
    return op

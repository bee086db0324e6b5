"""Files of one op: what an op takes by itself can be measured on any target that runs files."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tfedge.errors import InputError
from tfedge.tflite.flatbuffer import TYPES, op_code, op_name, schema, write

_VERSION = 3


def single_op(model: schema.ModelT, position: int) -> bytes:
    """The file that holds one op of the main subgraph; its activations are inputs.

    Args:
        model: What `flatbuffer.read` gave; not changed.
        position: Of the op.

    Raises:
        InputError: The op runs other subgraphs: it is nothing by itself.
    """
    graph = model.subgraphs[0]
    op = graph.operators[position]
    inner = [] if op.intermediates is None else [int(i) for i in op.intermediates]
    used = list(dict.fromkeys(int(i) for i in (*op.inputs, *op.outputs, *inner) if i >= 0))
    options = () if op.builtinOptions is None else vars(op.builtinOptions)
    if any("subgraph" in field.lower() for field in options):
        raise InputError("this op is nothing by itself: it has a body", op_name(model, op))
    place = {old: new for new, old in enumerate(used)}
    buffers, tensors = [schema.BufferT()], []
    for index in used:
        tensor = copy.copy(graph.tensors[index])
        data = model.buffers[tensor.buffer].data
        tensor.buffer = 0
        if data is not None and len(data):
            buffers.append(copy.copy(model.buffers[graph.tensors[index].buffer]))
            tensor.buffer = len(buffers) - 1
        tensor.name = f"t{place[index]}"
        tensors.append(tensor)
    alone = copy.copy(op)
    alone.opcodeIndex = 0
    for field in ("inputs", "outputs"):
        numbers = [place.get(int(i), -1) for i in getattr(op, field)]
        setattr(alone, field, np.array(numbers, np.int32))
    alone.intermediates = [place.get(i, -1) for i in inner] or None
    code = copy.copy(model.operatorCodes[op.opcodeIndex])
    outputs = {place[int(i)] for i in op.outputs if i >= 0}
    given = {place[int(i)] for i in op.inputs if i >= 0}
    inputs = [
        i for i in sorted(given - outputs) if not (tensors[i].buffer or tensors[i].isVariable)
    ]
    return _file([code], buffers, tensors, [alone], inputs, sorted(outputs))


def requantization(before: str, after: str, elements: int) -> bytes:
    """The file of one QUANTIZE or DEQUANTIZE, as stands between two schemes.

    Args:
        before: Dtype: "float32", "int8" or "int16".
        after: Likewise.
        elements: Size of the tensor.
    """
    model = schema.ModelT()
    model.operatorCodes = []
    name = "DEQUANTIZE" if after == "float32" else "QUANTIZE"
    op_code(model, name, _VERSION)
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, np.array([0], np.int32), np.array([1], np.int32)
    tensors = [_tensor(f"t{i}", d, elements) for i, d in enumerate((before, after))]
    return _file(model.operatorCodes, [schema.BufferT()], tensors, [op], [0], [1])


def _tensor(name: str, dtype: str, elements: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, TYPES[dtype], 0
    tensor.shape = np.array([1, elements], np.int32)
    if dtype != "float32":
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.array([0.02 if dtype == "int8" else 1e-4], np.float32)
        tensor.quantization.zeroPoint = np.array([0], np.int64)
    return tensor


def _file(
    codes: list[Any], buffers: list[Any], tensors: list[Any], ops: list[Any],
    inputs: list[int], outputs: list[int],
) -> bytes:  # fmt: skip
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.operatorCodes, model.buffers = _VERSION, codes, buffers
    graph.tensors, graph.operators = tensors, ops
    graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    model.subgraphs = [graph]
    return write(model)

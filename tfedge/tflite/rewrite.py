"""Changes to a converted file that no converter flag makes; each keeps what the file computes.

All take and change a `ModelT` in place. They cover the main subgraph: a Keras model has no other
op-bearing one unless it loops.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfedge.tflite.flatbuffer import (
    consumers,
    op_name,
    operators,
    schema,
    tensor_data,
    tensor_dtype,
    text,
)

_INTEGER = ("int8", "int16", "uint8")


def strip_float_io(model: schema.ModelT) -> None:
    """Makes integer inputs and outputs of float ones: drops the QUANTIZE and DEQUANTIZE there.

    An input that some op reads as float, or that is quantized in several ways, stays float; so
    does an output that is computed in float. Inputs and outputs of other dtypes stay.
    """
    graph = model.subgraphs[0]
    _strip_inputs(model, graph)
    _strip_outputs(model, graph)
    compact(model)


def merge_requantizations(model: schema.ModelT) -> None:
    """Makes one QUANTIZE, integer to integer, of each DEQUANTIZE and QUANTIZE in a row."""
    graph = model.subgraphs[0]
    makers = {int(i): op for op in graph.operators for i in op.outputs}
    for op in graph.operators:
        if op_name(model, op) != "QUANTIZE":
            continue
        before = makers.get(int(op.inputs[0]))
        if before is not None and op_name(model, before) == "DEQUANTIZE":
            source = graph.tensors[int(before.inputs[0])]
            if tensor_dtype(source) in _INTEGER:
                op.inputs = np.array([int(before.inputs[0])], np.int32)
    _drop_unread(model, graph)


def _drop_unread(model: schema.ModelT, graph: schema.SubGraphT) -> None:
    """Drops DEQUANTIZE ops whose output nothing reads."""
    read = {int(i) for op in graph.operators for i in op.inputs} | {int(i) for i in graph.outputs}
    graph.operators = [
        op
        for op in graph.operators
        if op_name(model, op) != "DEQUANTIZE" or int(op.outputs[0]) in read
    ]


def _strip_inputs(model: schema.ModelT, graph: schema.SubGraphT) -> None:
    readers = consumers(graph)
    fresh = []
    for index in [int(i) for i in graph.inputs]:
        ops = readers.get(index, [])
        quantized = [int(op.outputs[0]) for op in ops if op_name(model, op) == "QUANTIZE"]
        one = _same_quantization(graph, quantized) and len(quantized) == len(ops)
        if tensor_dtype(graph.tensors[index]) != "float32" or not one:
            fresh.append(index)
            continue
        first = quantized[0]
        _redirect(graph, {q: first for q in quantized[1:]})
        graph.operators = [op for op in graph.operators if not any(op is o for o in ops)]
        _rename_index(model, graph, index, first)
        graph.tensors[first].name = graph.tensors[index].name
        fresh.append(first)
    graph.inputs = fresh


def _strip_outputs(model: schema.ModelT, graph: schema.SubGraphT) -> None:
    makers = {int(i): op for op in graph.operators for i in op.outputs}
    fresh = []
    for index in [int(i) for i in graph.outputs]:
        maker = makers.get(index)
        if maker is None or op_name(model, maker) != "DEQUANTIZE":
            fresh.append(index)
            continue
        source = int(maker.inputs[0])
        constant = tensor_data(model, graph.tensors[source]) is not None
        if constant or tensor_dtype(graph.tensors[source]) not in _INTEGER:
            fresh.append(index)
            continue
        if not consumers(graph).get(index):
            graph.operators = [op for op in graph.operators if op is not maker]
        _rename_index(model, graph, index, source)
        fresh.append(source)
    graph.outputs = fresh


def _same_quantization(graph: schema.SubGraphT, indices: Sequence[int]) -> bool:
    def key(index: int) -> tuple:
        tensor = graph.tensors[index]
        quant = tensor.quantization
        return tensor.type, *(np.ravel(a).tolist() for a in (quant.scale, quant.zeroPoint))

    return bool(indices) and all(key(i) == key(indices[0]) for i in indices)


def _redirect(graph: schema.SubGraphT, moved: Mapping[int, int]) -> None:
    """Lets every op read other tensors."""
    for op in graph.operators:
        op.inputs = np.array([moved.get(int(i), int(i)) for i in op.inputs], np.int32)
    graph.outputs = [moved.get(int(i), int(i)) for i in graph.outputs]


def _rename_index(model: schema.ModelT, graph: schema.SubGraphT, old: int, new: int) -> None:
    """Lets the signatures of the main subgraph name another tensor."""
    for signature in model.signatureDefs or []:
        if model.subgraphs[signature.subgraphIndex] is graph:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                if entry.tensorIndex == old:
                    entry.tensorIndex = new


def compact(model: schema.ModelT) -> None:
    """Drops what nothing names any more: op codes, tensors, buffers.

    A runtime that lacks a kernel refuses a file which merely lists its op code.
    """
    _compact_op_codes(model)
    for number, graph in enumerate(model.subgraphs):
        _compact_tensors(model, number, graph)
    used = {0} | {int(t.buffer) for g in model.subgraphs for t in g.tensors}
    used |= {int(m.buffer) for m in model.metadata or []}
    used |= {int(i) for i in _listed(model.metadataBuffer)}
    order = sorted(used)
    place = {old: new for new, old in enumerate(order)}
    model.buffers = [model.buffers[i] for i in order]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = place[int(tensor.buffer)]
    for entry in model.metadata or []:
        entry.buffer = place[int(entry.buffer)]
    if model.metadataBuffer is not None:
        model.metadataBuffer = [place[int(i)] for i in model.metadataBuffer]


def _compact_op_codes(model: schema.ModelT) -> None:
    used = sorted({int(op.opcodeIndex) for _, _, op in operators(model)})
    place = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[i] for i in used]
    for _, _, op in operators(model):
        op.opcodeIndex = place[int(op.opcodeIndex)]


def _listed(values: Any) -> list[int]:
    return [] if values is None else [int(v) for v in values]


def _compact_tensors(model: schema.ModelT, number: int, graph: schema.SubGraphT) -> None:
    signatures = [s for s in model.signatureDefs or [] if s.subgraphIndex == number]
    entries = [e for s in signatures for e in [*(s.inputs or []), *(s.outputs or [])]]
    used = {*_listed(graph.inputs), *_listed(graph.outputs)} | {e.tensorIndex for e in entries}
    for op in graph.operators or []:
        used.update(_listed(op.inputs), _listed(op.outputs), _listed(op.intermediates))
    used.discard(-1)
    order = sorted(used)
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    graph.tensors = [graph.tensors[i] for i in order]
    for entry in entries:
        entry.tensorIndex = place[int(entry.tensorIndex)]
    graph.inputs = [place[i] for i in _listed(graph.inputs)]
    graph.outputs = [place[i] for i in _listed(graph.outputs)]
    for op in graph.operators or []:
        op.inputs = np.array([place[i] for i in _listed(op.inputs)], np.int32)
        op.outputs = np.array([place[i] for i in _listed(op.outputs)], np.int32)
        if op.intermediates is not None:
            op.intermediates = [place[i] for i in _listed(op.intermediates)]


def rename_layers(model: schema.ModelT, names: Mapping[str, str]) -> None:
    """Replaces layer names within tensor names ("quant_conv" by "conv").

    Args:
        model: The file.
        names: New name by old; a name counts as found where it is whole path components (the name
            may hold slashes itself), also with the "_1" that a further call of a layer gets.
    """
    if not names:
        return
    known = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?:(?<=^)|(?<=[/;]))({known})(?=(?:_\d+)?(?:[/;:]|$))")
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = pattern.sub(lambda m: names[m.group(1)], text(tensor.name))

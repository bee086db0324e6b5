"""Puts the right ops back where a 16-bit export had to use others (see `tfedge.quantized`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfedge.errors import ConversionError
from tfedge.tflite.flatbuffer import (
    op_code,
    op_name,
    operators,
    schema,
    tensor_data,
    tensor_name,
    text,
)

FUNCTION_OPS: dict[str, tuple[str, int]] = {
    "sigmoid": ("LOGISTIC", 3),
    "softmax": ("SOFTMAX", 3),
    "tanh": ("TANH", 3),
    "exp": ("EXP", 2),
    "log": ("LOG", 2),
    "rsqrt": ("RSQRT", 3),
}
"""Op and the version that knows int16, by function."""


def restore_functions(model: schema.ModelT, slopes: Mapping[str, float]) -> None:
    """Puts LOGISTIC, SOFTMAX and others in the place of the LEAKY_RELU ops that stand for them.

    Args:
        model: The file.
        slopes: The slope that marks each of `FUNCTION_OPS`.
    """
    numbers = {float(np.float32(slope)): name for name, slope in slopes.items()}
    for _, _, op in operators(model):
        if op_name(model, op) != "LEAKY_RELU":
            continue
        name = numbers.get(float(np.float32(op.builtinOptions.alpha)))
        if name is None:
            continue
        op.builtinOptions, op.builtinOptionsType = None, 0
        if name == "softmax":
            op.builtinOptions = schema.SoftmaxOptionsT()
            op.builtinOptions.beta = 1.0
            op.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
        op.opcodeIndex = op_code(model, *FUNCTION_OPS[name])


def remove_boundaries(model: schema.ModelT, scope: str) -> None:
    """Takes the ELU ops out that stand at the ends of what stays float.

    Args:
        model: The file.
        scope: Name scope that marks them.
    """
    for graph in model.subgraphs:
        moved: dict[int, int] = {}
        kept = []
        for op in graph.operators:
            name = tensor_name(graph.tensors[int(op.outputs[0])]) if len(op.outputs) else ""
            if op_name(model, op) == "ELU" and scope in name:
                source = int(op.inputs[0])
                moved[int(op.outputs[0])] = moved.get(source, source)
                continue
            op.inputs = np.array([moved.get(int(i), int(i)) for i in op.inputs], np.int32)
            kept.append(op)
        graph.operators = kept
        graph.outputs = np.array([moved.get(int(i), int(i)) for i in graph.outputs], np.int32)


def restore_concatenations(model: schema.ModelT, scope: str) -> None:
    """Puts CONCATENATION in the place of the PADs and MAXIMUMs that stand for it.

    Args:
        model: The file.
        scope: Name scope that marks the stand-ins: each input padded to the output's shape, the
            maximum of all.

    Raises:
        ConversionError: The converter changed the stand-in beyond recognition.
    """
    graph = model.subgraphs[0]
    makers = {int(i): op for op in graph.operators for i in op.outputs}
    leaves: set[int] = set()
    for op in reversed(list(graph.operators)):
        if id(op) in leaves or op_name(model, op) != "MAXIMUM":
            continue
        parts = _padded_parts(model, graph, makers, op, scope)
        if parts is None:
            continue
        inner, sources, axis = parts
        leaves |= {id(x) for x in inner}
        op.inputs = np.array(sources, np.int32)
        op.builtinOptions = schema.ConcatenationOptionsT()
        op.builtinOptions.axis = axis
        op.builtinOptionsType = schema.BuiltinOptions.ConcatenationOptions
        op.opcodeIndex = op_code(model, "CONCATENATION", 3)
    graph.operators = [op for op in graph.operators if id(op) not in leaves]
    left = [
        text(graph.tensors[int(op.outputs[0])].name) for op in graph.operators
        if op_name(model, op) == "PAD" and scope in text(graph.tensors[int(op.outputs[0])].name)
    ]  # fmt: skip
    if left:
        raise ConversionError("a 16-bit concatenation could not be put back", f"'{left[0]}'")


def _padded_parts(
    model: schema.ModelT, graph: schema.SubGraphT, makers: dict[int, Any], root: Any, scope: str
) -> tuple[list[Any], list[int], int] | None:
    """The ops below a stand-in's last MAXIMUM, what they join in order, and the axis."""
    inner: list[Any] = []
    found: list[tuple[int, int]] = []
    axes: set[int] = set()
    stack = [int(i) for i in root.inputs]
    while stack:
        index = stack.pop()
        op = makers.get(index)
        if op is None or scope not in tensor_name(graph.tensors[index]):
            return None
        if op_name(model, op) == "MAXIMUM":
            inner.append(op)
            stack += [int(i) for i in op.inputs]
            continue
        rescale = op if op_name(model, op) == "QUANTIZE" else None
        if rescale is not None:  # The input has a scale of its own: rescale before joining.
            op = makers.get(int(rescale.inputs[0]))
        if op is None or op_name(model, op) != "PAD":
            return None
        inner.append(op)
        source = int(op.inputs[0])
        if rescale is not None:
            rescale.inputs = np.array([source], np.int32)
            graph.tensors[index].shape = graph.tensors[source].shape
            graph.tensors[index].shapeSignature = graph.tensors[source].shapeSignature
            source = index
        widths = tensor_data(model, graph.tensors[int(op.inputs[1])])
        if widths is None:
            return None
        axes |= {int(a) for a in np.flatnonzero(widths.any(1))}
        found.append((int(widths[:, 0].max()), source))
    if len(axes) != 1:
        return None
    return inner, [source for _, source in sorted(found)], axes.pop()

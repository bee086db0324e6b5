"""What every op of a file computes in, who runs it, and that a "full integer" file is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tfedge.errors import ConversionError, InputError
from tfedge.record import CertificateRow
from tfedge.schemes import QuantScheme, get_scheme
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import check_runs
from tfedge.tflite.delegation import OpView, views, why_not
from tfedge.tflite.int16_bias import CALIBRATED_SUMS, sum_notes
from tfedge.tflite.interpreter import OpInfo
from tfedge.tflite.layers import op_layers

_FLOATS = frozenset(("float16", "float32", "float64", "bfloat16", "complex64", "complex128"))


def certify(
    data: bytes, layers: Sequence[str] = (), *, ops: Sequence[OpInfo] | None = None
) -> list[CertificateRow]:
    """Lists every op of the main subgraph with its types, its Keras layer and who runs it.

    Who runs it is asked of the runtime, on this machine; the reason why an op is not delegated
    comes from the documented conditions in `tfedge.tflite.delegation`.

    Args:
        data: The whole file.
        layers: Names of the Keras model's layers in topological order; without them every row's
            layer is "".
        ops: What `check_runs` found; None runs it, so that a bad file cannot end this process.

    Returns:
        One row per op, in execution order. The reason of an op with 16-bit activations and 8-bit
        weights says how wide its sum is, and why that is safe. Ops of further subgraphs (bodies of
        loops and branches) are not listed; `require_integer` looks at them too.

    Raises:
        InputError: The data is no TFLite file.
        ConversionError: The file does not run.
    """
    model = flatbuffer.read(data)
    found = list(check_runs(data) if ops is None else ops)
    sums = sum_notes(model, flatbuffer.get_metadata(data).get(CALIBRATED_SUMS))
    behind = op_layers(model, layers)
    if len(found) != len(behind):
        raise InputError(
            "the op list belongs to another file", f"{len(found)} ops for {len(behind)}"
        )
    return [
        CertificateRow(
            index=info.index,
            op=op.name,
            layer=layer,
            types=_types(op),
            delegated=info.delegated,
            reason="" if info.delegated else _reason(op, sums.get(info.index, "")),
        )
        for info, op, layer in zip(found, views(model), behind, strict=True)
    ]


def _reason(op: OpView, sums: str) -> str:
    return f"{why_not(op)}; {sums}" if sums else why_not(op)


def _types(op: OpView) -> str:
    ends = [
        [flatbuffer.tensor_dtype(t) for t in tensors if t is not None]
        for tensors in (op.inputs, op.outputs)
    ]
    return f"{','.join(ends[0])}->{','.join(ends[1])}"


def require_integer(
    data: bytes,
    scheme: str | QuantScheme,
    *,
    layers: Sequence[str] = (),
    io: Literal["int", "float", "uint8"] = "int",
    floats: frozenset[str] = frozenset(),
) -> None:
    """Checks that a file is as integer as its scheme says; does nothing for float schemes.

    No op of any subgraph may read or write a float tensor. With `io="float"` a QUANTIZE that reads
    a float input of the file, and a DEQUANTIZE that writes a float output, are allowed. A file for
    16-bit activations must hold some: converters have fallen back to int8 without a word.

    Args:
        data: The whole file.
        scheme: The scheme that it was made for.
        layers: Names of the Keras model's layers in topological order, for the message.
        io: What its inputs and outputs were asked to be.
        floats: Layers that were asked to stay float: their ops may, with what quantizes and
            dequantizes around them; so may inputs and outputs.

    Raises:
        InputError: The data is no TFLite file, or the scheme is unknown.
        ConversionError: A float tensor is left (the message names the op and the Keras layer), an
            input or output is float although `io="int"`, or the activations have the wrong width.
    """
    scheme = get_scheme(scheme) if isinstance(scheme, str) else scheme
    if not scheme.full_integer:
        return
    model = flatbuffer.read(data)
    if io != "float" and not floats:
        _require_integer_ends(model, scheme)
    left = _float_ops(model, layers, io, floats)
    if left:
        shown = "; ".join(left[:5]) + (f"; and {len(left) - 5} more" if len(left) > 5 else "")
        raise ConversionError(
            f"float is left in a full-integer file ({scheme.name})",
            shown,
            "Replace or leave out these layers, or use a scheme that allows float",
        )
    if scheme.activation_bits == 16 and not _has_int16(model):
        raise ConversionError(
            f"a file for {scheme.name} has no 16-bit activations",
            "every op writes another type",
            "The converter fell back; calibrate with data, or convert from a 16-bit QAT model",
        )


def _require_integer_ends(model: Any, scheme: QuantScheme) -> None:
    graph = model.subgraphs[0]
    for kind, numbers in (("input", graph.inputs), ("output", graph.outputs)):
        for t in numbers:
            tensor = graph.tensors[int(t)]
            dtype = flatbuffer.tensor_dtype(tensor)
            if dtype in _FLOATS:
                raise ConversionError(
                    f"an {kind} of a full-integer file ({scheme.name}) is float",
                    f"{dtype} {kind} '{flatbuffer.tensor_name(tensor)}'",
                    'Convert with io="int", or accept float ends with io="float"',
                )


def _float_ops(model: Any, layers: Sequence[str], io: str, floats: frozenset[str]) -> list[str]:
    """Describes the ops that touch float, each as "MUL (op 3, layer 'scale', float32->float32)"."""
    main = model.subgraphs[0]
    behind = op_layers(model, layers)
    found = []
    for index, graph, op in flatbuffer.operators(model):
        ends = [
            [flatbuffer.tensor_dtype(graph.tensors[int(t)]) for t in numbers if t >= 0]
            for numbers in (op.inputs, op.outputs)
        ]
        if not _FLOATS & {*ends[0], *ends[1]}:
            continue
        if io == "float" and graph is main and _is_boundary(model, op):
            continue
        seam = flatbuffer.op_name(model, op) in ("QUANTIZE", "DEQUANTIZE")
        # A layer that loops keeps its ops in subgraphs of its own, whose names say nothing.
        if floats and (seam or graph is not main or behind[index] in floats):
            continue
        where = f"layer '{behind[index]}'" if graph is main and behind[index] else "no layer known"
        if graph is not main:
            where = f"subgraph '{flatbuffer.text(graph.name)}'"
        types = f"{','.join(ends[0])}->{','.join(ends[1])}"
        found.append(f"{flatbuffer.op_name(model, op)} (op {index}, {where}, {types})")
    return found


def _is_boundary(model: Any, op: Any) -> bool:
    """A QUANTIZE of a file's input, or a DEQUANTIZE into a file's output."""
    graph, name = model.subgraphs[0], flatbuffer.op_name(model, op)
    if name == "QUANTIZE":
        return int(op.inputs[0]) in {int(t) for t in graph.inputs}
    return name == "DEQUANTIZE" and int(op.outputs[0]) in {int(t) for t in graph.outputs}


def _has_int16(model: Any) -> bool:
    return any(
        flatbuffer.tensor_dtype(graph.tensors[int(t)]) == "int16"
        for _, graph, op in flatbuffer.operators(model)
        for t in op.outputs
        if t >= 0
    )

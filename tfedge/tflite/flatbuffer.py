"""Reading and writing of TFLite files: the only module that knows the flatbuffer schema.

A file is read into the schema's object API (`ModelT`, plain Python objects), changed in place and
written again. Everything that a caller does not change is kept: op options, sparsity, signatures,
metadata, subgraphs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfedge.errors import ConversionError, InputError

IDENTIFIER = b"TFL3"
SIGNATURE_KEY = "serving_default"
METADATA_NAME = "tfedge"
_FIX = "Give a .tflite file that a converter wrote, complete"
LIMIT = 2**31 - 2**20
"""Bytes of constants in one file: its offsets are 32-bit and signed, and tables need room."""

DTYPES: dict[int, str] = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
"""Dtype name ("int8", "float32", "int4"...) by the schema's number."""

TYPES: dict[str, int] = {name: number for number, name in DTYPES.items()}
"""The schema's number by dtype name."""

_OPS: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}

__all__ = [
    "DTYPES",
    "IDENTIFIER",
    "METADATA_NAME",
    "SIGNATURE_KEY",
    "TYPES",
    "add_buffer",
    "consumers",
    "get_metadata",
    "get_signature",
    "op_code",
    "op_name",
    "operators",
    "read",
    "schema",
    "set_metadata",
    "set_signature",
    "tensor_data",
    "tensor_dtype",
    "tensor_name",
    "text",
    "write",
]


class _StrictBytes(bytes):
    """Bytes whose slices must lie inside, so that a cut string is an error and not a short one."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.stop is not None and key.stop > len(self):
            raise IndexError("slice past the end of the file")
        return super().__getitem__(key)


class _AlignedBuilder(flatbuffers.Builder):
    """Puts byte vectors on 16-byte borders, as the schema asks for constant data (`force_align`).

    The Python object API ignores that attribute; kernels that load vectors then read slowly.
    """

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        """Begins a vector; see `flatbuffers.Builder.StartVector`."""
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def read(data: bytes) -> schema.ModelT:
    """Parses a TFLite file into the object API.

    Buffers and custom options that lie behind the flatbuffer (files over 2 GB) are taken inline.

    Args:
        data: The whole file.

    Returns:
        The model, with at least one subgraph; all tensor, buffer and op code numbers are in range.

    Raises:
        InputError: The data is no TFLite file, is cut short or is inconsistent.
    """
    if len(data) < 8 or bytes(data[4:8]) != IDENTIFIER:
        head = bytes(data[:8])
        raise InputError("this is not a TFLite file", f"{len(data)} bytes, start {head!r}", _FIX)
    try:
        model = schema.ModelT.InitFromPackedBuf(_StrictBytes(data))
        _take_inline(model, bytes(data))
        _fill_in(model)
        problem = _problem(model)
    except (
        struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError,
        RecursionError, KeyError,
    ) as error:  # fmt: skip
        problem = f"{type(error).__name__} while parsing"
        raise InputError("the TFLite file is damaged or cut short", problem, _FIX) from error
    if problem:
        raise InputError("the TFLite file is damaged or cut short", problem, _FIX)
    return model


def _take_inline(model: schema.ModelT, data: bytes) -> None:
    """Moves data addressed by file offset into the objects, because writing moves offsets."""
    for buffer in model.buffers or []:
        if buffer.offset > 1:
            buffer.data = _outside(data, buffer.offset, buffer.size)
        buffer.offset = buffer.size = 0
    for graph in model.subgraphs or []:
        for op in graph.operators or []:
            if op.largeCustomOptionsOffset > 1:
                op.customOptions = _outside(
                    data, op.largeCustomOptionsOffset, op.largeCustomOptionsSize
                )
            op.largeCustomOptionsOffset = op.largeCustomOptionsSize = 0


def _fill_in(model: schema.ModelT) -> None:
    """Gives ops without inputs or outputs empty lists: the object API has None for these."""
    for graph in model.subgraphs or []:
        for op in graph.operators or []:
            op.inputs = np.zeros(0, np.int32) if op.inputs is None else op.inputs
            op.outputs = np.zeros(0, np.int32) if op.outputs is None else op.outputs


def _outside(data: bytes, offset: int, size: int) -> np.ndarray:
    if offset + size > len(data):
        raise IndexError("external data past the end of the file")
    return np.frombuffer(data, np.uint8, size, offset)


def _problem(model: schema.ModelT) -> str:
    """Says which number points outside its table, or "" where all are in range."""
    if not model.subgraphs or not model.buffers:
        return "no subgraph" if not model.subgraphs else "no buffers"
    codes, buffers = len(model.operatorCodes or []), len(model.buffers)
    for graph in model.subgraphs:
        count = len(graph.tensors or [])
        for tensor in graph.tensors or []:
            if not 0 <= tensor.buffer < buffers:
                return f"tensor {text(tensor.name)} names buffer {tensor.buffer} of {buffers}"
        ends = [*_ints(graph.inputs), *_ints(graph.outputs)]
        for op in graph.operators or []:
            if not 0 <= op.opcodeIndex < codes:
                return f"an op names op code {op.opcodeIndex} of {codes}"
            ends += [i for i in (*_ints(op.inputs), *_ints(op.outputs)) if i != -1]
        if any(not 0 <= i < count for i in ends):
            return f"an op or signature names a tensor outside 0..{count - 1}"
    return ""


def write(model: schema.ModelT) -> bytes:
    """Packs a model into a TFLite file.

    Args:
        model: What `read` returned, changed as wished; buffer data may be bytes or uint8 arrays.

    Raises:
        ConversionError: The constants are too large for one flatbuffer (2 GB).
    """
    size = 0
    for buffer in model.buffers or []:
        if buffer.data is not None:
            buffer.data = _as_bytes_array(buffer.data)
            size += buffer.data.nbytes + 16
    if size > LIMIT:
        found = f"{size / 2**30:.2f} GB of constants"
        raise ConversionError("the file would not fit in one flatbuffer", found, "Split the model")
    builder = _AlignedBuilder(size + (1 << 16))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _as_bytes_array(data: Any) -> np.ndarray:
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(bytes(data), np.uint8)


def text(name: bytes | str | None) -> str:
    """A schema string as `str` (the object API keeps bytes)."""
    if name is None:
        return ""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def _ints(values: Any) -> list[int]:
    return [] if values is None else [int(v) for v in values]


def op_name(model: schema.ModelT, op: schema.OperatorT) -> str:
    """Builtin operator name ("CONV_2D"), or the custom op's own code.

    Args:
        model: The model that owns the op.
        op: One of its operators.

    Returns:
        The name; "UNKNOWN_<number>" for an op newer than the schema.
    """
    code = model.operatorCodes[op.opcodeIndex]
    number = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
    name = _OPS.get(number, f"UNKNOWN_{number}")
    return text(code.customCode) or name if name == "CUSTOM" else name


def op_code(model: schema.ModelT, name: str, version: int) -> int:
    """Index of a builtin's op code of at least this version; added where the file has none."""
    number = getattr(schema.BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        same = max(int(code.builtinCode), int(code.deprecatedBuiltinCode)) == number
        if same and int(code.version) >= version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = number, version
    code.deprecatedBuiltinCode = min(number, 127)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operators(model: schema.ModelT) -> Iterator[tuple[int, schema.SubGraphT, schema.OperatorT]]:
    """Yields (position in its subgraph, subgraph, operator) over all subgraphs."""
    for graph in model.subgraphs or []:
        for index, op in enumerate(graph.operators or []):
            yield index, graph, op


def tensor_name(tensor: schema.TensorT) -> str:
    """The tensor's name; converters join the names of fused ops by ";"."""
    return text(tensor.name)


def tensor_dtype(tensor: schema.TensorT) -> str:
    """The tensor's dtype as a numpy-like name ("int8", "float32", "int4")."""
    return DTYPES.get(tensor.type, f"type_{tensor.type}")


def tensor_data(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """The constant behind a tensor, in its shape.

    Args:
        model: The model that owns the tensor.
        tensor: A tensor whose dtype numpy has (packed int4, int2 and strings are left out).

    Returns:
        A read-only array, or None for a tensor without constant data.

    Raises:
        InputError: The dtype is not one of numpy's, or the size does not fit the shape.
    """
    raw = model.buffers[tensor.buffer].data
    if raw is None or len(raw) == 0:
        return None
    dtype = tensor_dtype(tensor)
    shape = _ints(tensor.shape)
    try:
        return np.frombuffer(_as_bytes_array(raw).tobytes(), np.dtype(dtype)).reshape(shape)
    except (TypeError, ValueError) as error:
        found = f"{len(raw)} bytes as {dtype} {shape}"
        raise InputError(
            f"the constant '{tensor_name(tensor)}' cannot be read as an array", found
        ) from error


def add_buffer(model: schema.ModelT, data: np.ndarray) -> int:
    """Appends a constant buffer and returns its number (buffers may be shared: never overwrite)."""
    buffer = schema.BufferT()
    buffer.data = _as_bytes_array(data)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def consumers(graph: schema.SubGraphT) -> dict[int, list[schema.OperatorT]]:
    """The operators that read each tensor, by tensor number."""
    found: dict[int, list[schema.OperatorT]] = {}
    for op in graph.operators or []:
        for index in _ints(op.inputs):
            if index >= 0:
                found.setdefault(index, []).append(op)
    return found


def get_metadata(data: bytes) -> dict[str, Any]:
    """Reads the JSON mapping that `set_metadata` stored; {} where there is none.

    Raises:
        InputError: The data is no TFLite file, or the entry is no JSON mapping.
    """
    model = read(data)
    for entry in model.metadata or []:
        if text(entry.name) == METADATA_NAME:
            raw = model.buffers[entry.buffer].data
            try:
                found = json.loads(bytes(_as_bytes_array(b"{}" if raw is None else raw)))
            except ValueError as error:
                raise InputError("the file's tfedge metadata is no JSON", str(error)) from error
            if not isinstance(found, dict):
                raise InputError("the file's tfedge metadata is no mapping", type(found).__name__)
            return found
    return {}


def set_metadata(data: bytes, mapping: Mapping[str, Any]) -> bytes:
    """Stores a mapping as JSON in the file's metadata entry "tfedge" (replacing an earlier one).

    Args:
        data: A TFLite file.
        mapping: Plain JSON values.

    Raises:
        InputError: The data is no TFLite file, or the mapping holds values that JSON has not.
    """
    model = read(data)
    try:
        raw = json.dumps(dict(mapping), allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise InputError("the metadata holds a value that is no JSON", str(error)) from error
    for entry in model.metadata or []:
        if text(entry.name) == METADATA_NAME:
            model.buffers[entry.buffer].data = _as_bytes_array(raw)
            return write(model)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA_NAME, add_buffer(model, np.frombuffer(raw, np.uint8))
    model.metadata = [*(model.metadata or []), entry]
    return write(model)


def get_signature(model: schema.ModelT) -> tuple[dict[str, int], dict[str, int]] | None:
    """Tensor numbers of inputs and outputs by name, from the main subgraph's first signature.

    Returns:
        (inputs, outputs), or None where the file has no signature.
    """
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            ends = (signature.inputs or [], signature.outputs or [])
            maps = [{text(t.name): int(t.tensorIndex) for t in end} for end in ends]
            return maps[0], maps[1]
    return None


def set_signature(data: bytes, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
    """Names inputs and outputs: one signature "serving_default", and the tensors' own names.

    A tensor that is both input and output (or two outputs at once) keeps the first name given.

    Args:
        data: A TFLite file.
        inputs: Tensor number in the main subgraph by Keras input name, in the model's order.
        outputs: Tensor number by Keras output name, likewise.

    Raises:
        InputError: The data is no TFLite file, or a number is not an input or output of it.
    """
    model = read(data)
    graph = model.subgraphs[0]
    for what, given, have in (
        ("input", inputs, _ints(graph.inputs)),
        ("output", outputs, _ints(graph.outputs)),
    ):
        if set(given.values()) != set(have):
            found = f"{dict(given)} for the {what} tensors {have}"
            raise InputError(f"the signature does not name the file's {what}s", found)
    # Order by what the caller gave: it is the Keras order.
    graph.inputs = list(dict.fromkeys(inputs.values()))
    graph.outputs = list(outputs.values())
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE_KEY, 0
    signature.inputs = [_tensor_map(n, i) for n, i in inputs.items()]
    signature.outputs = [_tensor_map(n, i) for n, i in outputs.items()]
    model.signatureDefs = [s for s in model.signatureDefs or [] if s.subgraphIndex != 0]
    model.signatureDefs.insert(0, signature)
    named: set[int] = set()
    for name, index in (*inputs.items(), *outputs.items()):
        if index not in named:
            graph.tensors[index].name = name
            named.add(index)
    return write(model)


def _tensor_map(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry

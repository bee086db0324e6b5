"""Editing the main subgraph of a file: who makes and reads a tensor, new tensors, new ops."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from tfedge.errors import InputError
from tfedge.tflite import flatbuffer
from tfedge.tflite.flatbuffer import TYPES, schema

# Version of each op as of which its kernel takes 8-bit tensors.
_VERSIONS = {
    "ADD": 2, "CONCATENATION": 2, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2, "MEAN": 2, "MUL": 2,
    "PAD": 2, "QUANTIZE": 2, "RESHAPE": 1, "SLICE": 2, "SUB": 2,
}  # fmt: skip
_OPTIONLESS = {
    "ABS", "DEQUANTIZE", "EXP", "HARD_SWISH", "MAXIMUM", "MINIMUM", "NEG", "PADV2", "PRELU",
    "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "SPLIT", "SPLIT_V", "SQUARED_DIFFERENCE",
}  # fmt: skip
_FUSED = {
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV",
    "FULLY_CONNECTED", "MAX_POOL_2D", "MUL", "SUB", "TRANSPOSE_CONV",
}  # fmt: skip
NONE = schema.ActivationFunctionType.NONE

Only = Collection[int] | None
"""Positions of the ops that a fix may rewrite; None for all."""


class Editor:
    """The main subgraph of a model while it is rewritten.

    Args:
        model: What `flatbuffer.read` gave; it is changed in place. New tensors and buffers go to
            the end, so that the numbers of old ones hold until `rewrite.compact`.
        only: Positions of the ops that may be rewritten; None for all.

    Attributes:
        candidates: These ops, as the graph had them in the beginning.
    """

    def __init__(self, model: Any, only: Only = None) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.graph.operators = list(self.graph.operators or [])
        places = enumerate(self.graph.operators)
        wanted = [op for i, op in places if only is None or i in only]
        self.candidates = [op for op in wanted if self._complete(op)]
        self.graph.tensors = list(self.graph.tensors or [])
        named = [s for s in model.signatureDefs or [] if s.subgraphIndex == 0]
        ends = [self.graph.inputs, self.graph.outputs]
        ends += [[e.tensorIndex for e in s.outputs or []] for s in named]
        # What an op keeps from one run to the next is read when its turn comes, and not by others.
        self._ends = {int(t) for end in ends if end is not None for t in end} | self._variables()

    def _complete(self, op: Any) -> bool:
        """False for ops without outputs, or without the options that say what they do."""
        known = op.builtinOptions is not None or self.name(op) in _OPTIONLESS
        return known and len(op.inputs) > 0 and len(op.outputs) > 0

    @property
    def ops(self) -> list[Any]:
        """The operators, in execution order (a new list)."""
        return list(self.graph.operators)

    def name(self, op: Any) -> str:
        """Builtin name of an op."""
        return flatbuffer.op_name(self.model, op)

    def tensor(self, index: int) -> Any:
        """A tensor by number."""
        return self.graph.tensors[int(index)]

    def dtype(self, index: int) -> str:
        """Dtype name of a tensor."""
        return flatbuffer.tensor_dtype(self.tensor(index))

    def shape(self, index: int) -> tuple[int, ...] | None:
        """A tensor's shape, or None where an axis may have another size when the file is run."""
        tensor = self.tensor(index)
        if tensor.shape is None:
            return ()
        signature = tensor.shapeSignature
        if signature is not None and any(int(d) < 0 for d in signature):
            return None
        return tuple(int(d) for d in tensor.shape)

    def constant(self, index: int) -> np.ndarray | None:
        """A constant as an array; None for others, and for dtypes that numpy has not."""
        if index < 0 or index in self._variables():
            return None
        try:
            return flatbuffer.tensor_data(self.model, self.tensor(index))
        except InputError:
            return None

    def _variables(self) -> set[int]:
        return {i for i, t in enumerate(self.graph.tensors) if t.isVariable}

    def quantization(self, index: int) -> tuple[float, int] | None:
        """Scale and zero point of an 8- or 16-bit tensor with one of each; None for others."""
        quant = self.tensor(index).quantization
        if self.dtype(index) not in ("int8", "uint8", "int16") or quant is None:
            return None
        scale, zero = _listed(quant.scale), _listed(quant.zeroPoint)
        if len(scale) != 1 or len(zero) > 1 or not np.isfinite(scale[0]) or scale[0] <= 0:
            return None
        return float(np.float32(scale[0])), int(zero[0]) if zero else 0

    def same_codes(self, a: int, b: int) -> bool:
        """True where two tensors have one dtype and, if quantized, one scale and zero point."""
        if self.dtype(a) != self.dtype(b):
            return False
        keys = []
        for index in (a, b):
            quant = self.tensor(index).quantization
            values = (quant.scale, quant.zeroPoint) if quant is not None else (None, None)
            keys.append([np.asarray(_listed(v), np.float32).tolist() for v in values])
        return keys[0] == keys[1]

    def maker(self, index: int) -> Any:
        """The op that writes a tensor, or None."""
        return next((op for op in self.graph.operators if index in _numbers(op.outputs)), None)

    def readers(self, index: int) -> list[Any]:
        """The ops that read a tensor, each once."""
        return [op for op in self.graph.operators if index in _numbers(op.inputs)]

    def private(self, index: int) -> bool:
        """True where a tensor is read by one op only and is no end of the file."""
        return index not in self._ends and len(self.readers(index)) == 1

    def is_end(self, index: int) -> bool:
        """True for the file's inputs, outputs and variables."""
        return index in self._ends

    def fused(self, op: Any) -> int | None:
        """The op's fused activation, or None where it can have none."""
        if self.name(op) not in _FUSED or op.builtinOptions is None:
            return None
        return int(op.builtinOptions.fusedActivationFunction)

    def add_tensor(self, like: int, shape: Sequence[int], name: str) -> int:
        """Adds a tensor with another's dtype and quantization.

        Args:
            like: Number of the other tensor.
            shape: Shape of the new one.
            name: Ending of its name.
        """
        old, new = self.tensor(like), schema.TensorT()
        new.type, new.quantization = old.type, old.quantization
        new.shape, new.buffer, new.hasRank = list(shape), 0, True
        new.name = f"{flatbuffer.tensor_name(old)}/{name}"
        self.graph.tensors.append(new)
        return len(self.graph.tensors) - 1

    def add_float(self, like: int) -> int:
        """Adds a float32 tensor with another's shape."""
        index = self.add_tensor(like, self.shape(like) or (), "real")
        self.tensor(index).type, self.tensor(index).quantization = TYPES["float32"], None
        return index

    def add_constant(self, values: np.ndarray, name: str) -> int:
        """Adds a constant tensor without quantization."""
        new = schema.TensorT()
        new.type, new.shape, new.hasRank = TYPES[values.dtype.name], list(values.shape), True
        new.buffer, new.name = flatbuffer.add_buffer(self.model, values), name
        self.graph.tensors.append(new)
        return len(self.graph.tensors) - 1

    def quantize(self, index: int, scale: float | np.ndarray, zero: int = 0) -> None:
        """Gives a tensor its own quantization; an array of scales runs along axis 0."""
        quant = schema.QuantizationParametersT()
        quant.scale = np.atleast_1d(np.asarray(scale, np.float32))
        quant.zeroPoint = np.full(quant.scale.shape, zero, np.int64)
        quant.quantizedDimension = 0
        self.tensor(index).quantization = quant

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        """Makes an op with default options; it is not yet in the graph.

        Args:
            name: Builtin name, one of those that fixes write.
            inputs: Tensor numbers.
            outputs: Tensor numbers.
        """
        op = schema.OperatorT()
        op.opcodeIndex = self._code(name)
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if name in _OPTIONS:
            kind, make = _OPTIONS[name]
            op.builtinOptionsType, op.builtinOptions = kind, make()
        return op

    def _code(self, name: str) -> int:
        number = getattr(schema.BuiltinOperator, name)
        codes = self.model.operatorCodes
        for i, code in enumerate(codes):
            known = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
            if known == number and int(code.version) >= _VERSIONS[name]:
                return i
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = number, _VERSIONS[name]
        code.deprecatedBuiltinCode = min(number, 127)
        self.model.operatorCodes = [*codes, code]
        return len(codes)

    def replace(self, old: Any, new: Sequence[Any]) -> None:
        """Puts ops in the place of one (none drops it)."""
        at = next(i for i, op in enumerate(self.graph.operators) if op is old)
        self.graph.operators[at : at + 1] = list(new)

    def redirect(self, old: int, new: int) -> None:
        """Lets every op that reads one tensor read another."""
        for op in self.readers(old):
            op.inputs = np.array([new if t == old else t for t in _numbers(op.inputs)], np.int32)

    def write_to(self, op: Any, position: int, tensor: int, *, output: bool = False) -> None:
        """Sets one input (or output) of an op; missing inputs before it become absent."""
        numbers = _numbers(op.outputs if output else op.inputs)
        numbers += [-1] * (position + 1 - len(numbers))
        numbers[position] = tensor
        if output:
            op.outputs = np.array(numbers, np.int32)
        else:
            op.inputs = np.array(numbers, np.int32)


_OPTIONS: dict[str, tuple[int, Any]] = {
    "ADD": (schema.BuiltinOptions.AddOptions, schema.AddOptionsT),
    "CONCATENATION": (schema.BuiltinOptions.ConcatenationOptions, schema.ConcatenationOptionsT),
    "DEPTHWISE_CONV_2D": (
        schema.BuiltinOptions.DepthwiseConv2DOptions,
        schema.DepthwiseConv2DOptionsT,
    ),
    "MEAN": (schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT),
    "MUL": (schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
    "PAD": (schema.BuiltinOptions.PadOptions, schema.PadOptionsT),
    "QUANTIZE": (schema.BuiltinOptions.QuantizeOptions, schema.QuantizeOptionsT),
    "RESHAPE": (schema.BuiltinOptions.ReshapeOptions, schema.ReshapeOptionsT),
    "SLICE": (schema.BuiltinOptions.SliceOptions, schema.SliceOptionsT),
    "SUB": (schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
}


def _numbers(values: Any) -> list[int]:
    return [] if values is None else [int(v) for v in values]


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(np.ravel(values))

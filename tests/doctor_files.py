"""Tiny .tflite files written op by op, for the doctor's rules and fixes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tfedge.tflite import flatbuffer
from tfedge.tflite.flatbuffer import schema

_OPTIONS = {
    "ADD": "Add", "AVERAGE_POOL_2D": "Pool2D", "BATCH_MATMUL": "BatchMatMul",
    "CONCATENATION": "Concatenation", "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "FULLY_CONNECTED": "FullyConnected", "LEAKY_RELU": "LeakyRelu", "MAX_POOL_2D": "Pool2D",
    "MUL": "Mul", "PACK": "Pack", "RESHAPE": "Reshape", "SOFTMAX": "Softmax", "SPLIT": "Split",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighbor", "SPLIT_V": "SplitV",
    "SQUARED_DIFFERENCE": "SquaredDifference", "STRIDED_SLICE": "StridedSlice", "SUB": "Sub",
    "UNPACK": "Unpack", "PAD": "Pad", "PADV2": "PadV2", "TRANSPOSE_CONV": "TransposeConv",
    "QUANTIZE": "Quantize", "DEQUANTIZE": "Dequantize", "EXP": "Exp", "CAST": "Cast",
    "SVDF": "SVDF",
}  # fmt: skip
_VERSION = {
    "RELU_N1_TO_1": 1, "HARD_SWISH": 1, "RESHAPE": 1, "FULLY_CONNECTED": 9, "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
}  # fmt: skip


@dataclass
class Net:
    """A graph under construction; `tensor` and `op` give tensor numbers."""

    tensors: list = field(default_factory=list)
    buffers: list = field(default_factory=lambda: [schema.BufferT()])
    ops: list = field(default_factory=list)
    codes: list = field(default_factory=list)
    inputs: list = field(default_factory=list)

    def tensor(self, shape, dtype="int8", scale=None, zero=0, data=None, name=None):
        t = schema.TensorT()
        t.shape, t.type, t.hasRank = list(shape), flatbuffer.TYPES[dtype], True
        t.name = f"t{len(self.tensors)}" if name is None else name
        t.buffer = 0
        if scale is not None:
            t.quantization = schema.QuantizationParametersT()
            t.quantization.scale = np.atleast_1d(np.float32(scale))
            t.quantization.zeroPoint = np.full(t.quantization.scale.shape, zero, np.int64)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            t.buffer = len(self.buffers) - 1
        self.tensors.append(t)
        return len(self.tensors) - 1

    def input(self, shape, dtype="int8", scale=None, zero=0):
        self.inputs.append(self.tensor(shape, dtype, scale, zero))
        return self.inputs[-1]

    def constant(self, values, scale=None, zero=0):
        values = np.asarray(values)
        dtype = values.dtype.name
        return self.tensor(values.shape, dtype, scale, zero, values)

    def ints(self, *values):
        return self.constant(np.array(values, np.int32))

    def op(self, name, inputs, outputs, **options):
        code = schema.OperatorCodeT()
        custom = not hasattr(schema.BuiltinOperator, name)
        number = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, name)
        code.builtinCode, code.version = number, _VERSION.get(name, 2)
        code.deprecatedBuiltinCode = min(number, 127)
        if custom:
            code.customCode = name
        self.codes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.codes) - 1
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if name in _OPTIONS:
            kind = f"{_OPTIONS[name]}Options"
            op.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            op.builtinOptions = getattr(schema, f"{kind}T")()
            for key, value in options.items():
                assert hasattr(op.builtinOptions, key), key
                setattr(op.builtinOptions, key, value)
        self.ops.append(op)
        return outputs[0]

    def write(self, *outputs):
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators = self.tensors, self.ops
        graph.inputs, graph.outputs, graph.name = list(self.inputs), list(outputs), "main"
        model.version, model.subgraphs = 3, [graph]
        model.buffers, model.operatorCodes = self.buffers, self.codes
        return flatbuffer.write(model)


def remembering():
    """A float SVDF, whose variable holds what the runs before put in; [1, 3] -> [1, 4]."""
    net = Net()
    x, y = net.input((1, 3), "float32"), net.tensor((1, 4), "float32", name="y")
    state = net.tensor((1, 20), "float32")
    net.tensors[state].isVariable = True
    weights = [net.constant(np.full(s, 0.5, "f")) for s in ((4, 3), (4, 5))]
    bias = net.constant(np.zeros(4, "f"))
    net.op("SVDF", [x, *weights, bias, state], [y], rank=1)
    return net.write(y)


RNG = np.random.default_rng(7)
CONV = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
VALID, SAME = 1, 0


def quantized(kind):
    """Scale of activations for a dtype, or None."""
    return None if kind == "float32" else 0.1


def kernel(net, kind, shape, per_channel=True):
    """A constant kernel [O, ...] of a file of int8, uint8 or float32 activations."""
    if kind == "float32":
        return net.constant(RNG.normal(size=shape).astype("f"))
    values = RNG.integers(-127, 128, shape)
    if kind == "uint8":
        return net.constant((values + 128).astype("uint8"), 0.01, 128)
    scales = np.full(shape[0], 0.01) if per_channel else 0.01
    return net.constant(values.astype("int8"), scales)


def bias(net, kind, count):
    """A constant bias."""
    if kind == "float32":
        return net.constant(RNG.normal(size=count).astype("f"))
    per_tensor = kind == "uint8"
    return net.constant(
        RNG.integers(-500, 500, count).astype("int32"), 0.001 if per_tensor else [0.001] * count
    )


def conv(net, x, y, kind="int8", channels=(4, 8), with_bias=True, **options):
    """A 3x3 convolution from tensor x to y."""
    inputs = [x, kernel(net, kind, (channels[1], 3, 3, channels[0]))]
    inputs += [bias(net, kind, channels[1])] if with_bias else []
    return net.op("CONV_2D", inputs, [y], **{**CONV, "padding": SAME, **options})

"""Faster forms of the depthwise and grouped convolutions of 16-bit files.

The runtime has plain loops only for DEPTHWISE_CONV_2D with 16-bit activations, and for CONV_2D in
groups. Both forms here give what the op gives, to within one step of its output:

- blocks: SPLIT, a dense convolution for each block of channels (zeros where a depthwise kernel does
  not look), CONCATENATION. Pure integer; more bytes, because of the zeros. The dense convolution is
  a CONV_2D, or where `transposable` holds a TRANSPOSE_CONV of the turned kernel: that multiplies
  each input once and not once for each position of the kernel, so that there is less to pack.
- float: DEQUANTIZE, DEPTHWISE_CONV_2D in float32, QUANTIZE. Hybrid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.tflite.flatbuffer import (
    TYPES,
    add_buffer,
    op_code,
    schema,
    tensor_data,
    tensor_name,
)
from tfedge.tflite.int16_bias import Summing, proof, summing_ops
from tfedge.tflite.int16_bounds import code_ranges, scale_of

_VERSIONS = {
    "CONCATENATION": 3, "CONV_2D": 4, "DEPTHWISE_CONV_2D": 1, "DEQUANTIZE": 3, "QUANTIZE": 2,
    "SPLIT": 4, "SPLIT_V": 2, "TRANSPOSE_CONV": 4,
}  # fmt: skip
"""The least op versions that know int16 (DEPTHWISE_CONV_2D: float32)."""

_FLOAT_STEPS = 2.0**21
"""Largest partial sum, in steps of the output, that float32 (24 bits) holds to an eighth."""


@dataclass(frozen=True)
class Grouped:
    """A convolution whose channels are computed in groups that share nothing.

    Attributes:
        found: The op, with its weights and bias.
        groups: Number of groups; of a depthwise one, its input channels.
        weights: Codes [groups, outputs per group, height, width, inputs per group].
    """

    found: Summing
    groups: int
    weights: np.ndarray

    @property
    def depthwise(self) -> bool:
        """True for a DEPTHWISE_CONV_2D."""
        return self.found.name == "DEPTHWISE_CONV_2D"

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return int(self.weights.shape[2] * self.weights.shape[3])

    @property
    def pixels(self) -> int:
        """Output positions, over the batch."""
        shape = self.found.graph.tensors[int(self.found.op.outputs[0])].shape
        return int(np.prod([max(int(d), 1) for d in shape[:-1]]))


def grouped_ops(model: schema.ModelT) -> Iterator[Grouped]:
    """The 16-bit DEPTHWISE_CONV_2D and grouped CONV_2D of the main subgraph that can be rewritten.

    Left out are ops without constant weights, without a bias, or whose sums may not fit 32 bits.

    Args:
        model: The file.
    """
    graph = model.subgraphs[0]
    known = code_ranges(model, graph)
    for found in summing_ops(model):
        if found.graph is not graph or found.bias is None or not proof(found, known):
            continue
        channels = int(graph.tensors[found.source].shape[-1])
        weights = tensor_data(model, graph.tensors[found.weights])
        if weights is None:
            continue
        if found.name == "DEPTHWISE_CONV_2D":
            outputs = weights.shape[-1] // channels
            split = weights[0].reshape(*weights.shape[1:3], channels, outputs)
            yield Grouped(found, channels, np.moveaxis(split, (2, 3), (0, 1))[..., None])
        elif found.name == "CONV_2D" and channels > weights.shape[-1]:
            groups = channels // weights.shape[-1]
            split = weights.reshape(groups, -1, *weights.shape[1:])
            yield Grouped(found, groups, split)


def transposable(grouped: Grouped) -> bool:
    """True where a TRANSPOSE_CONV of the turned kernel computes the same.

    That is so for stride 1, no dilation, "SAME" padding and kernels of odd sizes.
    """
    options = grouped.found.op.builtinOptions
    steps = (options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor)
    odd = all(n % 2 for n in grouped.weights.shape[2:4])
    return odd and set(map(int, steps)) == {1} and options.padding == schema.Padding.SAME


def to_blocks(
    model: schema.ModelT, grouped: Grouped, size: int, transposed: bool = False
) -> list[Any]:
    """Makes the ops that compute a grouped convolution as dense blocks with 32-bit sums.

    Args:
        model: The file; gets tensors and buffers, its op list is left to the caller.
        grouped: An op of `grouped_ops`.
        size: Groups in a block, at least 1; the last block may have fewer.
        transposed: Take TRANSPOSE_CONV; only where `transposable` holds.

    Returns:
        The ops that take its place, in order: SPLIT (or SPLIT_V), convolutions, CONCATENATION; one
        convolution alone where the block has all groups.
    """
    dense = _transposed if transposed else _conv
    found, graph = grouped.found, grouped.found.graph
    counts = [min(size, grouped.groups - s) for s in range(0, grouped.groups, size)]
    output = int(found.op.outputs[0])
    if len(counts) == 1:
        return [dense(model, grouped, slice(0, grouped.groups), found.source, output)]
    inside, outside = grouped.weights.shape[4], grouped.weights.shape[1]
    parts = [_part(graph, found.source, n * inside, f"in{i}") for i, n in enumerate(counts)]
    results = [_part(graph, output, n * outside, f"out{i}") for i, n in enumerate(counts)]
    made = [_split(model, graph, found.source, parts, [n * inside for n in counts])]
    start = 0
    for count, part, result in zip(counts, parts, results, strict=True):
        made.append(dense(model, grouped, slice(start, start + count), part, result))
        start += count
    options = schema.ConcatenationOptionsT()
    options.axis = len(graph.tensors[output].shape) - 1
    return [*made, _op(model, "CONCATENATION", results, [output], options)]


def to_float(model: schema.ModelT, grouped: Grouped) -> list[Any]:
    """Makes the ops that compute a DEPTHWISE_CONV_2D in float32.

    Args:
        model: The file; gets tensors and buffers, its op list is left to the caller.
        grouped: An op of `grouped_ops` for which `float_is_exact` holds.

    Returns:
        DEQUANTIZE, DEPTHWISE_CONV_2D, QUANTIZE, which take its place.
    """
    found, graph = grouped.found, grouped.found.graph
    output = int(found.op.outputs[0])
    scales = _scales(graph.tensors[found.weights])
    weights = tensor_data(model, graph.tensors[found.weights])
    if weights is None or found.bias is None:
        raise ValueError("this op has no constant weights and bias")
    step = scale_of(graph.tensors[found.source]) or 0.0
    real = (weights * scales).astype(np.float32)
    bias = (found.bias * (scales * step)).astype(np.float32)
    name = tensor_name(graph.tensors[output])
    ends = [_float_tensor(graph, i) for i in (found.source, output)]
    kernel = _constant(model, graph, real, f"{name}_float_weights")
    offset = _constant(model, graph, bias, f"{name}_float_bias")
    options = found.op.builtinOptions
    return [
        _op(model, "DEQUANTIZE", [found.source], [ends[0]], schema.DequantizeOptionsT()),
        _op(model, "DEPTHWISE_CONV_2D", [ends[0], kernel, offset], [ends[1]], options),
        _op(model, "QUANTIZE", [ends[1]], [output], schema.QuantizeOptionsT()),
    ]


def float_is_exact(grouped: Grouped) -> bool:
    """True where float32 sums of a DEPTHWISE_CONV_2D round to the same codes, but for ties.

    Its largest partial sum must be far below 2^24 steps of its output.
    """
    found = grouped.found
    ends = [scale_of(found.graph.tensors[int(i)]) for i in (found.source, found.op.outputs[0])]
    if not grouped.depthwise or found.bias is None or ends[0] is None or not ends[1]:
        return False
    sums = 32768.0 * np.abs(found.kernels[0].astype(np.float64)).sum((1, 2)) + np.abs(found.bias)
    scales = _scales(found.graph.tensors[found.weights])
    return bool(np.all(sums * scales * (ends[0] / ends[1]) < _FLOAT_STEPS))


def _scales(weights: Any) -> np.ndarray:
    return np.asarray(weights.quantization.scale, np.float64)


def _conv(model: schema.ModelT, grouped: Grouped, block: slice, source: int, output: int) -> Any:
    """The CONV_2D of a block of groups."""
    inputs = [source, *_constants(model, grouped, block, _kernel(grouped.weights[block]))]
    options = _options(schema.Conv2DOptionsT(), grouped)
    return _op(model, "CONV_2D", inputs, [output], options)


def _transposed(
    model: schema.ModelT, grouped: Grouped, block: slice, source: int, output: int
) -> Any:
    """The TRANSPOSE_CONV of a block of groups."""
    graph = grouped.found.graph
    kernel = _kernel(grouped.weights[block])[:, ::-1, ::-1]
    shape = np.array(graph.tensors[output].shape, np.int32)
    size = _constant(model, graph, shape, f"{tensor_name(graph.tensors[output])}_shape")
    weights, bias = _constants(model, grouped, block, kernel)
    options = _options(schema.TransposeConvOptionsT(), grouped)
    return _op(model, "TRANSPOSE_CONV", [size, weights, source, bias], [output], options)


def _kernel(part: np.ndarray) -> np.ndarray:
    """Dense weights [outputs, height, width, inputs] of groups; zeros between them."""
    count, outside, height, width, inside = part.shape
    kernel = np.zeros((count, outside, height, width, count, inside), np.int8)
    place = np.arange(count)
    kernel[place, :, :, :, place] = part
    return kernel.reshape(count * outside, height, width, count * inside)


def _constants(
    model: schema.ModelT, grouped: Grouped, block: slice, kernel: np.ndarray
) -> tuple[int, int]:
    """Numbers of the weights and the int32 bias of a block."""
    found, graph = grouped.found, grouped.found.graph
    outside = grouped.weights.shape[1]
    channels = slice(block.start * outside, block.stop * outside)
    weights = _like(graph, found.weights, channels, kernel.shape)
    graph.tensors[weights].buffer = add_buffer(model, np.ascontiguousarray(kernel))
    bias = _like(graph, found.bias_index, channels, kernel.shape[:1])
    values = np.asarray(found.bias)[channels]
    graph.tensors[bias].type = TYPES["int32"]
    graph.tensors[bias].buffer = add_buffer(model, values.astype(np.int32))
    return weights, bias


def _options(fresh: Any, grouped: Grouped) -> Any:
    """Options of the new op: what it shares with the old one, and sums of 32 bits."""
    old = grouped.found.op.builtinOptions
    for key in vars(fresh):
        if hasattr(old, key):
            setattr(fresh, key, getattr(old, key))
    fresh.quantizedBiasType = TYPES["int32"]
    return fresh


def _split(
    model: schema.ModelT, graph: Any, source: int, parts: list[int], sizes: list[int]
) -> Any:
    axis = _constant(model, graph, np.array(len(graph.tensors[source].shape) - 1, np.int32), "axis")
    if len(set(sizes)) == 1:
        options = schema.SplitOptionsT()
        options.numSplits = len(parts)
        return _op(model, "SPLIT", [axis, source], parts, options)
    options = schema.SplitVOptionsT()
    options.numSplits = len(parts)
    widths = _constant(model, graph, np.array(sizes, np.int32), "sizes")
    return _op(model, "SPLIT_V", [source, widths, axis], parts, options)


def _op(model: schema.ModelT, name: str, inputs: list[int], outputs: list[int], opts: Any) -> Any:
    op = schema.OperatorT()
    op.opcodeIndex = op_code(model, name, _VERSIONS[name])
    op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    op.builtinOptions = opts
    kind = type(opts).__name__.removesuffix("T")
    op.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    return op


def _copy(graph: Any, index: int) -> Any:
    fresh = schema.TensorT()
    vars(fresh).update(vars(graph.tensors[index]))
    graph.tensors.append(fresh)
    return fresh


def _part(graph: Any, index: int, channels: int, suffix: str) -> int:
    """Number of a new tensor: some channels of another, of the same scale."""
    fresh = _copy(graph, index)
    fresh.name = f"{tensor_name(fresh)}_{suffix}"
    fresh.shape = np.array([*list(fresh.shape)[:-1], channels], np.int32)
    if fresh.shapeSignature is not None:
        fresh.shapeSignature = np.array([*list(fresh.shapeSignature)[:-1], channels], np.int32)
    return len(graph.tensors) - 1


def _like(graph: Any, index: int, channels: slice, shape: tuple[int, ...]) -> int:
    """Number of a new constant with a part of another's scales; its buffer is not set yet."""
    fresh = _copy(graph, index)
    old = fresh.quantization
    fresh.name = f"{tensor_name(fresh)}_{channels.start}"
    fresh.shape, fresh.shapeSignature = np.array(shape, np.int32), None
    fresh.quantization = schema.QuantizationParametersT()
    scales = np.asarray(old.scale, np.float32)
    fresh.quantization.scale = scales[channels] if len(scales) > 1 else scales
    fresh.quantization.zeroPoint = np.zeros(len(fresh.quantization.scale), np.int64)
    fresh.quantization.quantizedDimension = 0
    return len(graph.tensors) - 1


def _float_tensor(graph: Any, index: int) -> int:
    fresh = _copy(graph, index)
    fresh.name = f"{tensor_name(fresh)}_float"
    fresh.type, fresh.buffer, fresh.quantization = TYPES["float32"], 0, None
    return len(graph.tensors) - 1


def _constant(model: schema.ModelT, graph: Any, values: np.ndarray, name: str) -> int:
    fresh = schema.TensorT()
    fresh.name, fresh.type = name, TYPES[values.dtype.name]
    fresh.shape = np.array(values.shape, np.int32)
    fresh.buffer = add_buffer(model, values)
    graph.tensors.append(fresh)
    return len(graph.tensors) - 1

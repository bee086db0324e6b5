"""Gives kernels the scales, one a channel, that the converter could not write; biases too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfedge.errors import ConversionError
from tfedge.tflite.flatbuffer import (
    add_buffer,
    op_name,
    operators,
    schema,
    tensor_data,
    tensor_dtype,
    tensor_name,
)
from tfedge.tflite.int16_bias import BIAS_OPS

OPS = ("FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Ops whose kernels are exported as codes."""


def restore_scales(model: schema.ModelT, kernels: Sequence[Any]) -> None:
    """Replaces the one scale of exported codes by the scales of the channels; biases follow.

    A kernel is recognised by its codes and its scale.

    Args:
        model: The file.
        kernels: `quantized.CodedKernel`s of the export.

    Raises:
        ConversionError: A kernel is not in the file as it was exported.
    """
    left = {id(k): k for k in kernels}
    done: dict[tuple[int, int], int] = {}
    for _, graph, op in list(operators(model)):
        name = op_name(model, op)
        if name not in OPS:
            continue
        inputs, places = [int(i) for i in op.inputs], BIAS_OPS[name]
        index = inputs[places[1]]
        alike = _found(model, graph.tensors[index], kernels)
        if not alike:
            continue
        for one in alike:
            left.pop(id(one), None)
        found, place = alike[0], places[2]
        if len(inputs) > place and inputs[place] >= 0:
            source = graph.tensors[inputs[places[0]]]
            bias = graph.tensors[inputs[place]]
            found, fresh = _bias(model, bias, alike, float(source.quantization.scale[0]))
            graph.tensors.append(fresh)
            inputs[place] = len(graph.tensors) - 1
        if (index, id(found)) not in done:
            graph.tensors.append(_copied(graph.tensors[index], found.scales))
            done[index, id(found)] = len(graph.tensors) - 1
        inputs[places[1]] = done[index, id(found)]
        op.inputs = np.array(inputs, np.int32)
    missing = [k for k in left.values() if not any(_same(k, o) for o in kernels if o is not k)]
    if missing:
        raise ConversionError(
            "the converter changed kernels whose scales were to be written afterwards",
            ", ".join(str(tuple(k.codes.shape)) for k in missing[:4]),
        )


def mend_uniform_biases(model: schema.ModelT, numbers: Sequence[float] = ()) -> None:
    """Gives biases that are one number in all channels that number in all channels.

    The converter quantizes a constant of equal values once, in the step of the first channel, and
    stores that code for all of them: 0.5 is 0.65 in a channel whose step is 1.3 times as long.
    Codes of unlike numbers that are equal by chance are small ones, for which the change is far
    below a step of the output.

    Args:
        model: A file of a quantize-aware model.
        numbers: What such biases may be; else a code stands for the number.
    """
    for _, graph, op in list(operators(model)):
        name = op_name(model, op)
        if name not in BIAS_OPS:
            continue
        place = BIAS_OPS[name][2]
        if place >= len(op.inputs) or op.inputs[place] < 0:
            continue
        tensor = graph.tensors[int(op.inputs[place])]
        codes, quant = tensor_data(model, tensor), tensor.quantization
        if codes is None or codes.ndim != 1 or quant is None or quant.scale is None:
            continue
        scales = np.ravel(quant.scale)
        if len(scales) != len(codes) or len(codes) < 2 or np.ptp(scales) == 0:
            continue
        if np.ptp(codes) == 0 and codes[0] and np.all(scales > 0):
            first = float(scales[0])
            value = min(numbers, key=lambda v: abs(v - codes[0] * first), default=np.inf)
            if abs(value - codes[0] * first) > 0.51 * first + 1e-6 * abs(codes[0] * first):
                value = codes[0] * first
            exact = value / scales.astype(np.float64)
            ends = np.iinfo(codes.dtype)
            mended = np.clip(np.round(exact), ends.min, ends.max).astype(codes.dtype)
            tensor.buffer = add_buffer(model, mended)


def _same(one: Any, other: Any) -> bool:
    return one.codes.shape == other.codes.shape and bool(np.all(one.codes == other.codes))


def _found(model: schema.ModelT, tensor: Any, kernels: Sequence[Any]) -> list[Any]:
    """The kernels that a tensor may be: several where they have the same codes and scale."""
    quant = tensor.quantization
    if quant is None or quant.scale is None or len(quant.scale) == 0:
        return []
    scales = np.ravel(quant.scale)  # The converter may have repeated the one for each channel.
    near = [k for k in kernels if np.all(np.abs(k.scale / scales - 1.0) < 1e-4)]
    values = _codes(model, tensor) if near else None
    if values is None:
        return []
    return [k for k in near if np.array_equal(values, k.codes)]


def _codes(model: schema.ModelT, tensor: Any) -> np.ndarray | None:
    """A constant of small integers, unpacked; the first of two int4 is in the low half byte."""
    if tensor_dtype(tensor) != "int4":
        return tensor_data(model, tensor)
    raw = model.buffers[tensor.buffer].data
    if raw is None or len(raw) == 0:
        return None
    packed = np.frombuffer(np.asarray(raw, np.uint8).tobytes(), np.uint8)
    halves = np.stack([packed & 15, packed >> 4], 1).ravel()[: int(np.prod(tensor.shape))]
    signed = halves.astype(np.int8) - 16 * (halves > 7).astype(np.int8)
    return signed.reshape(tuple(int(d) for d in tensor.shape))


def _copied(tensor: Any, scales: np.ndarray) -> Any:
    """A tensor like this one with these scales along axis 0."""
    fresh = schema.TensorT()
    vars(fresh).update(vars(tensor))
    fresh.quantization = schema.QuantizationParametersT()
    fresh.quantization.scale = scales.astype(np.float32)
    fresh.quantization.zeroPoint = np.zeros(len(scales), np.int64)
    fresh.quantization.quantizedDimension = 0
    return fresh


def _bias(
    model: schema.ModelT, old: Any, kernels: Sequence[Any], source_scale: float
) -> tuple[Any, Any]:
    """The kernel whose bias this is, and the bias in steps of source scale times channel scale.

    Args:
        model: The file.
        old: The bias in steps of source scale times the one scale.
        kernels: What the kernel may be; the one with this bias counts.
        source_scale: Of the op's input.

    Raises:
        ConversionError: The bias is no constant.
    """
    codes = tensor_data(model, old)
    if codes is None:
        raise ConversionError("a bias is computed at run time", f"'{tensor_name(old)}'")
    values, kernel = codes.astype(np.float64) * (kernels[0].scale * source_scale), kernels[0]
    for other in kernels:
        if other.bias is not None and _rounds_to(other.bias, values, other.scale * source_scale):
            values, kernel = other.bias.astype(np.float64), other
            break
    scales = kernel.scales * np.float32(source_scale)
    exact = values / (kernel.scales.astype(np.float64) * source_scale)
    ends = np.iinfo(codes.dtype)
    fresh = _copied(old, scales)
    fresh.buffer = add_buffer(
        model, np.clip(np.round(exact), ends.min, ends.max).astype(codes.dtype)
    )
    return kernel, fresh


def _rounds_to(exact: np.ndarray, rounded: np.ndarray, step: float) -> bool:
    """Whether values in steps are others rounded (the step itself is known to float32)."""
    if exact.shape != rounded.shape:
        return False
    return bool(np.all(np.abs(rounded - exact) <= 0.51 * step + 1e-5 * np.abs(exact)))

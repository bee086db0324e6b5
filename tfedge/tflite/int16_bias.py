"""The bias, and with it the width of the sum, of ops with 16-bit activations and 8-bit weights.

CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV run in optimised kernels where their bias is int32 and
`quantizedBiasType` says so; their sums have 32 bits then, and wrap when they overflow. With an
int64 bias they run in plain loops with sums of 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.errors import ConversionError
from tfedge.tflite.flatbuffer import (
    TYPES,
    add_buffer,
    op_name,
    operators,
    schema,
    tensor_data,
    tensor_dtype,
    tensor_name,
    text,
)
from tfedge.tflite.int16_bounds import HIGHEST, LOWEST, Range, code_ranges, largest_sums, scale_of

BIAS_OPS: dict[str, tuple[int, int, int]] = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Positions of (input, weights, bias) among an op's inputs."""

FAST_BIAS_OPS = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
"""Ops that have an optimised kernel with 32-bit sums."""

CODES_MARGIN = 2.0
"""A bound by calibrated codes allows every input channel so many times the largest seen in it."""

FLOOR = 0.25
"""... and at least this share of the largest code seen in the tensor: a channel that happened to be
silent is not taken for dead."""

SUMS_MARGIN = 4.0
"""A bound by calibrated sums allows so many times the largest partial sum that was seen."""

WORST_CASE = "no input can overflow the 32-bit sum"
KNOWN_RANGE = "the range of the op before it cannot overflow the 32-bit sum"
CODES = f"its 32-bit sum holds {CODES_MARGIN:g} times the codes of the calibration data"
SUMS = f"its 32-bit sum holds {SUMS_MARGIN:g} times the partial sums of the calibration data"
UNPROVEN = "nothing shows that its 32-bit sum cannot overflow"
WIDE = "int64 bias, plain kernel: the 32-bit sum could overflow"
CHOSEN_WIDE = "int64 bias, plain kernel, although the 32-bit sum could not overflow"
ONLY_WIDE = "int64 bias, plain kernel: it has no other"

CALIBRATED_SUMS = "calibrated_sums"
"""Metadata key of a file: positions of the ops whose 32-bit sums rest on calibration data."""

CALIBRATED = {"codes": CODES, "sums": SUMS}
"""What the certificate says, by what the bound rests on."""

_ACCUMULATOR = 2**31


@dataclass(frozen=True)
class Summing:
    """An op that sums products of int16 codes and int8 weights.

    Attributes:
        index: Position in its subgraph.
        name: Builtin operator name.
        op: The operator.
        graph: Its subgraph.
        bias: Codes [channels]; None where it has none.
        bias_index: Tensor number of the bias, -1 where it has none.
        kernels: Weight codes [channels, positions, inputs], one array per set of weights that one
            sum takes (a TRANSPOSE_CONV has one set for each phase of its strides). Empty where the
            weights are computed at run time.
    """

    index: int
    name: str
    op: Any
    graph: Any
    bias: np.ndarray | None
    bias_index: int
    kernels: tuple[np.ndarray, ...]

    @property
    def source(self) -> int:
        """Tensor number of the activations that it reads."""
        return int(self.op.inputs[BIAS_OPS[self.name][0]])

    @property
    def weights(self) -> int:
        """Tensor number of its weights."""
        return int(self.op.inputs[BIAS_OPS[self.name][1]])

    @property
    def width(self) -> int:
        """Number of input channels that its weights tell apart."""
        return int(self.kernels[0].shape[2]) if self.kernels else 0

    @property
    def wide(self) -> bool:
        """True where it sums in 64 bits."""
        if self.name not in FAST_BIAS_OPS:
            return True
        if self.name == "FULLY_CONNECTED" and self.bias is None:
            return False  # Its kernel takes the absence of a bias for one of 32 bits.
        return int(getattr(self.op.builtinOptions, "quantizedBiasType", 0)) != TYPES["int32"]


@dataclass
class Seen:
    """What calibration data made of one op.

    Attributes:
        low: Lowest code of each input, int64 [inputs], at most 0.
        high: Highest code, likewise, at least 0.
        sums: Largest magnitude of a partial sum of products, float64 [channels].
    """

    low: np.ndarray
    high: np.ndarray
    sums: np.ndarray

    @classmethod
    def nothing(cls, found: Summing) -> Seen:
        """Before the first sample."""
        width, channels = found.width, len(found.kernels[0])
        return cls(np.zeros(width, np.int64), np.zeros(width, np.int64), np.zeros(channels))

    def add(self, codes: np.ndarray, sums: np.ndarray) -> None:
        """Takes in a batch: codes [n, inputs], largest partial sums [channels]."""
        self.low = np.minimum(self.low, codes.min(0))
        self.high = np.maximum(self.high, codes.max(0))
        self.sums = np.maximum(self.sums, sums)


def summing_ops(model: schema.ModelT) -> Iterator[Summing]:
    """All ops of all subgraphs that sum int16 codes times int8 weights.

    Ops whose bias is computed at run time are left out.

    Args:
        model: The file; it may be changed meanwhile.
    """
    for index, graph, op in list(operators(model)):
        name = op_name(model, op)
        if name not in BIAS_OPS:
            continue
        inputs = [int(i) for i in op.inputs] + [-1] * 4
        x, w, b = (inputs[p] for p in BIAS_OPS[name])
        if tensor_dtype(graph.tensors[x]) != "int16" or tensor_dtype(graph.tensors[w]) != "int8":
            continue
        weights = tensor_data(model, graph.tensors[w])
        bias = None if b < 0 else tensor_data(model, graph.tensors[b])
        if b < 0 or bias is not None:
            kernels = () if weights is None else _kernels(name, op, graph, weights)
            yield Summing(index, name, op, graph, bias, b, kernels)


def _kernels(name: str, op: Any, graph: Any, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Weights as `Summing.kernels` has them."""
    if name == "DEPTHWISE_CONV_2D":  # [1, h, w, channels]: a channel sums its own positions.
        return (np.moveaxis(weights[0], -1, 0).reshape(weights.shape[-1], -1, 1),)
    if name == "TRANSPOSE_CONV":
        steps = op.builtinOptions.strideH, op.builtinOptions.strideW
        return tuple(
            weights[:, row :: steps[0], column :: steps[1]].reshape(
                len(weights), -1, weights.shape[-1]
            )
            for row in range(min(steps[0], weights.shape[1]))
            for column in range(min(steps[1], weights.shape[2]))
        )
    channels = int(graph.tensors[int(op.inputs[0])].shape[-1]) if name == "CONV_2D" else 0
    groups = channels // weights.shape[-1] if channels else 1
    flat = weights.reshape(len(weights), -1, weights.shape[-1])
    if groups <= 1:
        return (flat,)
    # Each group reads inputs of its own; written as zeros elsewhere, all read all inputs.
    each = len(flat) // groups
    full = np.zeros((len(flat), flat.shape[1], channels), np.int8)
    for g in range(groups):
        part = slice(g * each, (g + 1) * each)
        full[part, :, g * flat.shape[2] : (g + 1) * flat.shape[2]] = flat[part]
    return (full,)


def _limits(found: Summing) -> np.ndarray:
    """What the magnitude of each channel's sum must stay under, int64 [channels] or [1].

    2^31; less where the kernel shifts the sum to the left before it multiplies, which it does for
    input scale * weight scale / output scale >= 1.
    """
    tensors = found.graph.tensors
    ends = [scale_of(tensors[int(i)]) for i in (found.source, found.op.outputs[0])]
    quantization = tensors[found.weights].quantization
    scales = None if quantization is None else quantization.scale
    if ends[0] is None or not ends[1] or scales is None:
        return np.array([0], np.int64)  # No kernel for 16 bits without scales: claim nothing.
    _, exponent = np.frexp(np.asarray(scales, np.float64) * (ends[0] / ends[1]))
    return _ACCUMULATOR >> np.clip(exponent, 0, 31).astype(np.int64)


def _fits(found: Summing, low: np.ndarray, high: np.ndarray) -> bool:
    limits = _limits(found)
    return all(
        bool(np.all(largest_sums(kernel, low, high, found.bias) < limits))
        for kernel in found.kernels
    )


def proof(found: Summing, known: Mapping[int, Range], seen: Seen | None = None) -> str:
    """Says why an op's sum, in any order, fits 32 bits in every channel.

    Args:
        found: The op.
        known: Code ranges of its subgraph (`int16_bounds.code_ranges`).
        seen: What calibration data made of it.

    Returns:
        WORST_CASE, KNOWN_RANGE, CODES or SUMS, the strongest that holds; "" where none does.
    """
    if not found.kernels:
        return ""
    if _fits(found, np.array([LOWEST]), np.array([HIGHEST])):
        return WORST_CASE
    low, high = known.get(found.source, (LOWEST, HIGHEST))
    if _fits(found, np.array([low]), np.array([high])):
        return KNOWN_RANGE
    if seen is None:
        return ""
    if _fits(found, _with_margin(seen.low, low), _with_margin(seen.high, high)):
        return CODES
    bias = 0 if found.bias is None else np.abs(found.bias.astype(np.float64))
    return SUMS if bool(np.all(SUMS_MARGIN * seen.sums + bias < _limits(found))) else ""


def _with_margin(codes: np.ndarray, end: int) -> np.ndarray:
    """Bounds of the channels on one side of 0, from what was seen there, within the known end."""
    size = np.abs(codes.astype(np.float64))
    allowed = np.ceil(CODES_MARGIN * np.maximum(size, FLOOR * size.max(initial=0.0)))
    return (math.copysign(1, end) * np.minimum(allowed, abs(end))).astype(np.int64)


def fit_int16_biases(
    model: schema.ModelT, seen: Mapping[int, Seen] | None = None, *, narrow: bool = True
) -> dict[str, list[int]]:
    """Gives every op with int16 activations and int8 weights the bias type its kernel wants.

    int32 where `proof` has one and an optimised kernel exists, else int64. Shared biases are copied
    first. A FULLY_CONNECTED without a bias sums in 32 bits whatever its options say: where that is
    not proved, it gets an int64 bias of zeros.

    Args:
        model: The file; changed in place.
        seen: What calibration data made of ops of the main subgraph, by position; None proves by
            the file alone.
        narrow: False gives every op an int64 bias, also those without one.

    Returns:
        Positions, in the main subgraph, of the ops that rest on calibration data, by what of them
        (a key of `CALIBRATED`).

    Raises:
        ConversionError: A bias was clipped to the end of int32 by the converter.
    """
    known = {id(graph): code_ranges(model, graph) for graph in model.subgraphs}
    calibrated: dict[str, list[int]] = {}
    for found in summing_ops(model):
        _refuse_clipped(found)
        main = found.graph is model.subgraphs[0]
        why = ""
        if narrow and found.name in FAST_BIAS_OPS:
            met = seen.get(found.index) if main and seen else None
            why = proof(found, known[id(found.graph)], met)
        _set_bias(model, found, "int32" if why else "int64")
        for kind, text_of_it in CALIBRATED.items():
            if why == text_of_it:
                calibrated.setdefault(kind, []).append(found.index)
    return calibrated


def _refuse_clipped(found: Summing) -> None:
    bias = found.bias
    if bias is None or bias.dtype != np.int32:
        return
    if np.any(np.abs(bias.astype(np.int64)) >= _ACCUMULATOR - 1):
        raise ConversionError(
            "a bias does not fit its scale in 32 bits and was clipped",
            f"'{tensor_name(found.graph.tensors[found.bias_index])}'",
            "A channel's weights are tiny beside its bias: remove the channel (prune), or use w8a8",
        )


def _set_bias(model: schema.ModelT, found: Summing, dtype: str) -> None:
    options = found.op.builtinOptions
    if options is not None and hasattr(options, "quantizedBiasType"):
        options.quantizedBiasType = TYPES["int32"] if dtype == "int32" else TYPES["float32"]
    if found.bias is None:
        if found.name == "FULLY_CONNECTED" and dtype == "int64":
            _add_zeros(model, found)
        return
    if found.bias.dtype != np.dtype(dtype):
        old = found.graph.tensors[found.bias_index]
        _put(found, _bias_tensor(model, old, found.bias.astype(dtype)))


def _put(found: Summing, bias: schema.TensorT) -> None:
    """Lets an op read a bias of its own."""
    found.graph.tensors.append(bias)
    place = BIAS_OPS[found.name][2]
    changed = [*(int(i) for i in found.op.inputs), -1][: max(place + 1, len(found.op.inputs))]
    changed[place] = len(found.graph.tensors) - 1
    found.op.inputs = np.array(changed, np.int32)


def _add_zeros(model: schema.ModelT, found: Summing) -> None:
    weights = found.graph.tensors[found.weights]
    source = scale_of(found.graph.tensors[found.source]) or 1.0
    fresh = schema.TensorT()
    fresh.name = f"{text(weights.name)}_zero_bias"
    channels = int(weights.shape[0])
    fresh.shape = np.array([channels], np.int32)
    fresh.type = TYPES["int64"]
    fresh.buffer = add_buffer(model, np.zeros(channels, np.int64))
    fresh.quantization = schema.QuantizationParametersT()
    fresh.quantization.scale = np.asarray(weights.quantization.scale, np.float32) * source
    fresh.quantization.zeroPoint = np.zeros(len(fresh.quantization.scale), np.int64)
    _put(found, fresh)


def _bias_tensor(model: schema.ModelT, old: schema.TensorT, values: np.ndarray) -> schema.TensorT:
    """A bias tensor like `old` with other values; its buffer is its own."""
    fresh = schema.TensorT()
    vars(fresh).update(vars(old))
    fresh.type = TYPES[values.dtype.name]
    fresh.buffer = add_buffer(model, values)
    fresh.name = f"{text(old.name)}_{values.dtype.name}"
    return fresh


def sum_notes(
    model: schema.ModelT, calibrated: Mapping[str, Sequence[int]] | None = None
) -> dict[int, str]:
    """What the certificate says of the sums of the main subgraph's ops, by position.

    Args:
        model: The file.
        calibrated: What `fit_int16_biases` returned, as the file's metadata keep it.
    """
    graph = model.subgraphs[0]
    known = code_ranges(model, graph)
    claims = {i: why for kind, why in CALIBRATED.items() for i in (calibrated or {}).get(kind, ())}
    notes = {}
    for found in summing_ops(model):
        if found.graph is not graph:
            continue
        if found.wide:
            notes[found.index] = _why_wide(found, known)
        else:
            why = proof(found, known) or claims.get(found.index, UNPROVEN)
            notes[found.index] = f"int32 bias: {why}"
    return notes


def _why_wide(found: Summing, known: Mapping[int, Range]) -> str:
    if found.name not in FAST_BIAS_OPS:
        return ONLY_WIDE
    return CHOSEN_WIDE if proof(found, known) else WIDE

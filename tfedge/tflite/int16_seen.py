"""What calibration data make of a 16-bit file: the codes that channels and sums reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfedge.data import InputSpec, as_batches
from tfedge.tflite import flatbuffer
from tfedge.tflite.ends import filled
from tfedge.tflite.int16_bias import FAST_BIAS_OPS, Seen, Summing, summing_ops
from tfedge.tflite.interpreter import Interpreter
from tfedge.tflite.tensors import TensorSpec, quantize

SAMPLES = 32
"""At most so many samples are looked at: the file runs in slow kernels meanwhile."""

_BLOCK = 128
"""Output channels whose weights are held as floats at a time."""


def undecided(model: Any) -> list[Summing]:
    """Ops of the main subgraph that sum in 64 bits although a kernel with 32 bits exists."""
    return [
        found
        for found in summing_ops(model)
        if found.graph is model.subgraphs[0]
        and found.wide and found.kernels and found.name in FAST_BIAS_OPS
    ]  # fmt: skip


def observe(data: bytes, samples: Any) -> dict[int, Seen]:
    """Runs a file on samples and notes what the `undecided` ops meet.

    One batch and its activations are held in memory at a time.

    Args:
        data: The file; its sums must not overflow, so that the codes are true.
        samples: Real values, in any form that `data.as_batches` takes; the first `SAMPLES` count.

    Returns:
        What was seen, by the op's position.

    Raises:
        InputError: Samples that do not fit.
        ConversionError: The file fails when it is run.
    """
    runner = Interpreter(data, keep_tensors=True)
    model = flatbuffer.read(data)
    found = undecided(model)
    seen = {op.index: Seen.nothing(op) for op in found}
    batches = as_batches(
        samples, _specs(runner.inputs), batch=runner.batch, limit=SAMPLES, role="calibration data"
    )
    for arrays in batches:
        stored = {s.name: quantize(arrays[s.name], s) for s in runner.inputs}
        runner.run({k: filled(v, runner.batch) for k, v in stored.items()})
        for op in found:
            codes = runner.tensor(op.source)
            seen[op.index].add(codes.reshape(-1, op.width), _largest(model, op, codes))
    return seen


def _specs(inputs: Sequence[TensorSpec]) -> tuple[InputSpec, ...]:
    return tuple(InputSpec(s.name, s.shape, "float32" if s.quantized else s.dtype) for s in inputs)


def _largest(model: Any, op: Summing, codes: np.ndarray) -> np.ndarray:
    """The largest magnitude that a partial sum can have on these codes, float64 [channels].

    The sum of all positive products, or of all negative ones, without the bias.
    """
    weights = flatbuffer.tensor_data(model, op.graph.tensors[op.weights])
    if weights is None:
        raise ValueError("this op has no constant weights")
    dense = op.kernels[0] if op.name != "TRANSPOSE_CONV" else weights
    if op.name == "CONV_2D":  # Kernels of groups are written out there.
        dense = dense.reshape(len(weights), *weights.shape[1:3], op.width)
    real = codes.astype(np.float32)
    above, below = np.maximum(real, 0), np.maximum(-real, 0)
    parts = []
    for start in range(0, len(dense), _BLOCK):
        block = dense[start : start + _BLOCK].astype(np.float32)
        up, down = np.maximum(block, 0), np.maximum(-block, 0)
        positive, negative = _sums(op, above, up), _sums(op, above, down)
        if below.any():
            positive, negative = positive + _sums(op, below, down), negative + _sums(op, below, up)
        parts.append(np.maximum(positive.max(0), negative.max(0)))
    return np.concatenate(parts).astype(np.float64)


def _sums(op: Summing, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of products at every output position, [positions, channels], in float32."""
    if op.name == "FULLY_CONNECTED":
        return codes.reshape(-1, op.width) @ weights.reshape(len(weights), -1).T
    if op.name == "TRANSPOSE_CONV":
        return _scattered(op, codes, weights)
    output = op.graph.tensors[int(op.op.outputs[0])].shape
    options = op.op.builtinOptions
    steps = (int(options.strideH), int(options.strideW))
    spread = (int(options.dilationHFactor), int(options.dilationWFactor))
    padded = _padded(codes, weights.shape[1:3], output[1:3], steps, spread, int(options.padding))
    total = np.zeros((len(codes) * int(output[1]) * int(output[2]), len(weights)), np.float32)
    for i in range(weights.shape[1]):
        for j in range(weights.shape[2]):
            rows = slice(i * spread[0], i * spread[0] + (output[1] - 1) * steps[0] + 1, steps[0])
            columns = slice(j * spread[1], j * spread[1] + (output[2] - 1) * steps[1] + 1, steps[1])
            total += padded[:, rows, columns].reshape(-1, codes.shape[-1]) @ weights[:, i, j].T
    return total


def _padded(codes: np.ndarray, kernel: Any, output: Any, steps: Any, spread: Any, kind: int) -> Any:
    """Codes with the zeros around them that the op's padding puts there."""
    widths = []
    for axis in range(2):
        reach = (int(output[axis]) - 1) * steps[axis] + (kernel[axis] - 1) * spread[axis] + 1
        lack = max(reach - codes.shape[axis + 1], 0)
        before = lack // 2 if kind == flatbuffer.schema.Padding.SAME else 0
        widths.append((before, lack - before))
    return np.pad(codes, ((0, 0), *widths, (0, 0)))


def _scattered(op: Summing, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of a TRANSPOSE_CONV, of the positions that its padding cuts off too."""
    steps = int(op.op.builtinOptions.strideH), int(op.op.builtinOptions.strideW)
    count, height, width, channels = codes.shape
    size = [(n - 1) * steps[a] + weights.shape[a + 1] for a, n in enumerate((height, width))]
    total = np.zeros((count, *size, len(weights)), np.float32)
    flat = codes.reshape(-1, channels)
    for i in range(weights.shape[1]):
        for j in range(weights.shape[2]):
            part = (flat @ weights[:, i, j].T).reshape(count, height, width, -1)
            rows = slice(i, i + (height - 1) * steps[0] + 1, steps[0])
            columns = slice(j, j + (width - 1) * steps[1] + 1, steps[1])
            total[:, rows, columns] += part
    return total.reshape(-1, len(weights))

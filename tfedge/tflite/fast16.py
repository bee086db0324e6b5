"""Fast 16x8: lets a file with 16-bit activations run in optimised kernels wherever that is safe."""

from __future__ import annotations

from typing import Any

from tfedge.errors import InputError, did_you_mean
from tfedge.tflite import flatbuffer, int16_depthwise
from tfedge.tflite.int16_bias import FAST_BIAS_OPS, fit_int16_biases, summing_ops
from tfedge.tflite.int16_costs import choose_forms
from tfedge.tflite.int16_seen import codes_seen
from tfedge.tflite.rewrite import compact

DEPTHWISE = {
    "integer": "the fastest 16-bit integer form, by an estimate of time and a limit of bytes",
    "stock": "the op as the converter makes it, in the runtime's slow kernel",
    "float": "in float32 between DEQUANTIZE and QUANTIZE: fast, but hybrid, not full integer",
}
"""What may become of depthwise convolutions with 16-bit activations."""

CALIBRATED_SUMS, HYBRID = "calibrated_sums", "hybrid"
"""Metadata keys: ops whose 32-bit sums rest on calibration data; what is not integer."""


def check_depthwise(name: str) -> None:
    """Refuses a name that is not in `DEPTHWISE`.

    Raises:
        InputError: It is not.
    """
    if name not in DEPTHWISE:
        raise InputError(
            "unknown form of 16-bit depthwise convolutions", repr(name),
            did_you_mean(str(name), DEPTHWISE),
        )  # fmt: skip


def speed_up(
    data: bytes, samples: Any = None, depthwise: str = "integer"
) -> tuple[bytes, dict[str, Any]]:
    """Rewrites the ops of a file that have 16-bit activations and 8-bit weights.

    CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV get an int32 bias where no 32-bit sum can overflow:
    by proof (`int16_bias.proof`), or within a bound from the samples with a margin. Depthwise and
    grouped convolutions take another form where that is faster. Each op, given what the op of the
    file it came from was given, is within one step of it.

    Args:
        data: A file whose biases `int16_bias.fit_int16_biases` has fitted.
        samples: Typical real inputs (`data.as_batches` says in which forms); None proves by the
            file alone.
        depthwise: One of `DEPTHWISE`.

    Returns:
        The file, and metadata to keep in it.

    Raises:
        InputError: An unknown form, or samples that do not fit.
        ConversionError: The file does not run.
    """
    check_depthwise(depthwise)
    model = flatbuffer.read(data)
    if not any(True for _ in summing_ops(model)):
        return data, {}
    floats = _reform(model, depthwise)
    fit_int16_biases(model)
    compact(model)
    data = flatbuffer.write(model)
    calibrated: list[int] = []
    slow = _slow(model)
    if slow and samples is not None:
        seen = codes_seen(data, slow, samples)
        calibrated = fit_int16_biases(model, seen)
        compact(model)
        data = flatbuffer.write(model)
    facts: dict[str, Any] = {CALIBRATED_SUMS: calibrated} if calibrated else {}
    if floats:
        facts[HYBRID] = f"hybrid, not full integer: {floats} depthwise convolutions in float32"
    return data, facts


def _slow(model: Any) -> set[tuple[int, int]]:
    """(input tensor, channels) of the main subgraph's ops that could be fast if their sums fit."""
    return {
        (found.source, found.width)
        for found in summing_ops(model)
        if found.graph is model.subgraphs[0]
        and found.wide and found.kernels and found.name in FAST_BIAS_OPS
    }  # fmt: skip


def _reform(model: Any, depthwise: str) -> int:
    """Gives depthwise and grouped convolutions other forms; says how many became float."""
    grouped = list(int16_depthwise.grouped_ops(model))
    instead: dict[int, list[Any]] = {}
    floats = 0
    if depthwise == "float":
        for op in grouped:
            if int16_depthwise.float_is_exact(op):
                instead[op.found.index] = int16_depthwise.to_float(model, op)
                floats += 1
    if depthwise != "stock":
        left = [op for op in grouped if op.found.index not in instead]
        for index, form in choose_forms(model, left).items():
            op = next(g for g in left if g.found.index == index)
            instead[index] = int16_depthwise.to_blocks(model, op, form.size, form.transposed)
    graph = model.subgraphs[0]
    graph.operators = [
        new for i, old in enumerate(graph.operators) for new in instead.get(i, [old])
    ]
    return floats

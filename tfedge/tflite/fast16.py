"""Fast 16x8: lets a file with 16-bit activations run in optimised kernels wherever that is safe."""

from __future__ import annotations

from typing import Any

from tfedge.errors import InputError, did_you_mean
from tfedge.schemes import DEPTHWISE
from tfedge.tflite import flatbuffer, int16_depthwise
from tfedge.tflite.int16_bias import CALIBRATED_SUMS, fit_int16_biases, summing_ops
from tfedge.tflite.int16_costs import choose_forms
from tfedge.tflite.int16_seen import observe, undecided
from tfedge.tflite.rewrite import compact

DEFAULT = "integer"

HYBRID = "hybrid"
"""Metadata key of a file that is not all integer: what is float in it."""


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
    data: bytes, samples: Any = None, depthwise: str = DEFAULT
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
        InputError: An unknown form, one for a file without 16-bit activations, or samples that do
            not fit.
        ConversionError: The file does not run.
    """
    check_depthwise(depthwise)
    model = flatbuffer.read(data)
    if next(summing_ops(model), None) is None:
        if depthwise != DEFAULT and not _has_int16(model):
            raise InputError(
                "depthwise is for files with 16-bit activations", f"'{depthwise}'",
                "Leave it out, or convert to w8a16",
            )  # fmt: skip
        return data, {}
    floats = _reform(model, depthwise)
    fit_int16_biases(model)
    compact(model)
    data = flatbuffer.write(model)
    calibrated: dict[str, list[int]] = {}
    if samples is not None and undecided(model):
        calibrated = fit_int16_biases(model, observe(data, samples))
        compact(model)
        data = flatbuffer.write(model)
    facts: dict[str, Any] = {CALIBRATED_SUMS: calibrated} if calibrated else {}
    if floats:
        facts[HYBRID] = f"hybrid, not full integer: {floats} depthwise convolutions in float32"
    return data, facts


def _has_int16(model: Any) -> bool:
    tensors = [t for graph in model.subgraphs for t in graph.tensors]
    return any(flatbuffer.tensor_dtype(t) == "int16" for t in tensors)


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

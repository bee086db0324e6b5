"""Fast 16x8: lets a file with 16-bit activations run in optimised kernels wherever that is safe."""

from __future__ import annotations

from typing import Any

from tfedge.errors import InputError
from tfedge.schemes import Int16
from tfedge.tflite import flatbuffer, int16_depthwise
from tfedge.tflite.check import check_runs
from tfedge.tflite.int16_bias import CALIBRATED_SUMS, fit_int16_biases, summing_ops
from tfedge.tflite.int16_costs import choose_forms
from tfedge.tflite.int16_seen import observe, undecided
from tfedge.tflite.rewrite import compact

DEFAULT = Int16()

_NARROW = "x86_64"
"""Where kernels with 32-bit sums are the faster ones."""

HYBRID = "hybrid"
"""Metadata key of a file that is not all integer: what is float in it."""


def speed_up(
    data: bytes, samples: Any = None, form: Int16 = DEFAULT
) -> tuple[bytes, dict[str, Any]]:
    """Rewrites the ops of a file that have 16-bit activations and 8-bit weights.

    For x86_64, CONV_2D, FULLY_CONNECTED and TRANSPOSE_CONV get an int32 bias where no 32-bit sum
    can overflow: by proof (`int16_bias.proof`), or within a bound from the samples with a margin.
    Depthwise and grouped convolutions take another form where that is faster. Each op, given what
    the op of the file it came from was given, is within one step of it. For arm64 all sums have 64
    bits.

    Args:
        data: A file whose biases `int16_bias.fit_int16_biases` has fitted.
        samples: Typical real inputs (`data.as_batches` says in which forms); None proves by the
            file alone.
        form: The processor that the file is for, and what depthwise convolutions become.

    Returns:
        The file, and metadata to keep in it.

    Raises:
        InputError: A form other than the default for a file without 16-bit activations, or samples
            that do not fit.
        ConversionError: The file does not run.
    """
    model = flatbuffer.read(data)
    if next(summing_ops(model), None) is None:
        if form != DEFAULT and not _has_int16(model):
            raise InputError(
                "the options of int16 are for files with 16-bit activations", f"{form}",
                "Leave them out, or convert to w8a16",
            )  # fmt: skip
        return data, {}
    narrow = form.cpu == _NARROW
    floats = _reform(model, form)
    fit_int16_biases(model, narrow=narrow)
    compact(model)
    data = flatbuffer.write(model)
    calibrated: dict[str, list[int]] = {}
    if narrow and samples is not None and undecided(model):
        check_runs(data)  # A file that no one has run yet may end the process.
        calibrated = fit_int16_biases(model, observe(data, samples))
        compact(model)
        data = flatbuffer.write(model)
    facts: dict[str, Any] = {CALIBRATED_SUMS: calibrated} if calibrated else {}
    if floats:
        facts[HYBRID] = f"hybrid, not full integer: {floats} depthwise convolutions in float32"
    return data, facts


def elsewhere_note(data: bytes) -> str:
    """What is to be said of a file's 16x8 ops off x86_64; "" where there is nothing.

    Sums in 32 bits are slower than stock ones on Arm cores, and the forms of depthwise convolutions
    are other ones; TFLM reads the 32-bit bias of a TRANSPOSE_CONV as 64 bits.

    Args:
        data: The whole file.

    Raises:
        InputError: It is no TFLite file.
    """
    found = list(summing_ops(flatbuffer.read(data)))
    narrow = sum(not op.wide for op in found)
    if not narrow:
        return ""
    return (
        f"{narrow} of {len(found)} 16x8 ops are written for x86_64: for Arm cores, NPUs and "
        "microcontrollers convert with --cpu=arm64 (docs/INT16.md)"
    )


def _has_int16(model: Any) -> bool:
    tensors = [t for graph in model.subgraphs for t in graph.tensors]
    return any(flatbuffer.tensor_dtype(t) == "int16" for t in tensors)


def _reform(model: Any, form: Int16) -> int:
    """Gives depthwise and grouped convolutions other forms; says how many became float."""
    grouped = list(int16_depthwise.grouped_ops(model))
    instead: dict[int, list[Any]] = {}
    floats = 0
    if form.depthwise == "float":
        for op in grouped:
            if int16_depthwise.float_is_exact(op):
                instead[op.found.index] = int16_depthwise.to_float(model, op)
                floats += 1
    if form.depthwise != "stock" and form.cpu == _NARROW:
        left = {op.found.index: op for op in grouped if op.found.index not in instead}
        for index, block in choose_forms(model, list(left.values())).items():
            instead[index] = int16_depthwise.to_blocks(
                model, left[index], block.size, block.transposed
            )
    graph = model.subgraphs[0]
    graph.operators = [
        new for i, old in enumerate(graph.operators) for new in instead.get(i, [old])
    ]
    return floats

"""Whether a changed file gives what it gave before: both are run on the same inputs.

This runs in a process of its own, because a file that nobody has run yet can end the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.errors import ConversionError, InputError, TargetError, TfedgeError
from tfedge.shell import Answer, run_module, serve
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import random_inputs
from tfedge.tflite.interpreter import Interpreter
from tfedge.tflite.tensors import TensorSpec

MAX_STEPS = 1.0
"""Codes that an output of a rewritten op may move."""

FLOAT_TOLERANCE = 1e-5
"""How far a float output may move, relative to its largest element: the rounding of a sum."""

_SEEDS = 4
_WORKER = "tfedge.tflite.proof_worker"


@dataclass(frozen=True)
class Proof:
    """How far two files' outputs are apart.

    Attributes:
        steps: Largest difference in codes (also of a float output that only unpacks codes);
            infinite where indices, booleans or text differ.
        relative: Largest difference of float outputs, relative to the output's largest element.
        inputs: Sets of inputs that both were run on.
    """

    steps: float
    relative: float
    inputs: int

    def holds(self, max_steps: float) -> bool:
        """True within so many steps, and within float rounding."""
        return self.steps <= max_steps and self.relative <= FLOAT_TOLERANCE


def prove(
    before: bytes,
    after: bytes,
    samples: Mapping[str, np.ndarray] | None = None,
    timeout: float = 600.0,
) -> Proof:
    """Runs two files on random inputs, and on samples where there are some, and compares.

    Args:
        before: A file.
        after: One with the same inputs and outputs.
        samples: Real values [N, ...] by input name, which are quantized as the file needs.
        timeout: Seconds that it may take.

    Raises:
        InputError: Samples that do not fit.
        ConversionError: One of the files fails, ends the process or does not end.
    """
    arrays = {"before": np.frombuffer(before, np.uint8), "after": np.frombuffer(after, np.uint8)}
    arrays |= {f"input:{k}": np.asarray(v) for k, v in (samples or {}).items()}
    try:
        ended = run_module(_WORKER, {}, arrays, timeout=timeout)
    except TargetError as error:
        raise ConversionError("the changed file does not end", error.found) from error
    if ended.answer is None:
        raise ConversionError("the changed file ends the process", ended.finished.ending)
    values = ended.answer.values
    if "error" in values:
        kind = InputError if values["kind"] == "input" else ConversionError
        raise kind("the changed file cannot be compared", str(values["error"]))
    steps = float("inf") if values["steps"] is None else float(values["steps"])
    relative = float("inf") if values["relative"] is None else float(values["relative"])
    return Proof(steps, relative, int(values["inputs"]))


def _steps(data: bytes) -> dict[int, float]:
    """The step of each tensor that a DEQUANTIZE makes, by number."""
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    found = {}
    for op in graph.operators or []:
        if flatbuffer.op_name(model, op) == "DEQUANTIZE":
            quant = graph.tensors[int(op.inputs[0])].quantization
            scale = None if quant is None else quant.scale
            if scale is not None and len(scale) == 1:
                found[int(op.outputs[0])] = float(scale[0])
    return found


def compare(before: bytes, after: bytes, samples: Mapping[str, np.ndarray] | None = None) -> Proof:
    """As `prove`, within this process.

    Args:
        before: A file.
        after: One with the same inputs and outputs.
        samples: As for `prove`.

    Raises:
        InputError: Samples that do not fit.
        ConversionError: The runtime refuses one of the files.
    """
    first, second = Interpreter(before), Interpreter(after)
    worst, steps = np.zeros(2), _steps(before)
    sets = [_random(first.inputs, seed) for seed in range(_SEEDS)]
    sets += _samples(first, samples or {})
    for inputs in sets:
        pairs = zip(
            first.run(inputs).values(),
            second.run(_renamed(inputs, second.inputs)).values(),
            strict=True,
        )
        for spec, (a, b) in zip(first.outputs, pairs, strict=True):
            worst = np.maximum(worst, apart(a, b, spec, steps.get(spec.index, 0.0)))
    return Proof(float(worst[0]), float(worst[1]), len(sets))


def _answer(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Answer:
    """The other process's part."""
    del values
    given = {k.partition(":")[2]: v for k, v in arrays.items() if k.startswith("input:")}
    try:
        found = compare(arrays["before"].tobytes(), arrays["after"].tobytes(), given)
    except TfedgeError as error:
        return Answer(
            {"error": str(error), "kind": "input" if isinstance(error, InputError) else "file"}
        )
    steps, relative = (v if np.isfinite(v) else None for v in (found.steps, found.relative))
    return Answer({"steps": steps, "relative": relative, "inputs": found.inputs})


def _random(specs: Sequence[TensorSpec], seed: int) -> dict[str, np.ndarray]:
    """Random inputs; floats every other time in [-3, 3), which is where activations clip."""
    found = random_inputs(tuple(specs), seed)
    if seed % 2:
        return {k: v * 6 - 3 if v.dtype.kind == "f" else v for k, v in found.items()}
    return found


def _samples(file: Interpreter, given: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    from tfedge.tflite.tensors import quantize

    if not given:
        return []
    named = file.named(given)
    stored = {s.name: quantize(named[s.name], s) for s in file.inputs}
    count, batch = len(next(iter(stored.values()))), file.batch
    starts = range(0, count - batch + 1, batch)
    return [{k: v[i : i + batch] for k, v in stored.items()} for i in starts]


def _renamed(
    inputs: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    return {s.name: v for s, v in zip(specs, inputs.values(), strict=True)}


def apart(a: np.ndarray, b: np.ndarray, spec: TensorSpec, step: float) -> tuple[float, float]:
    """Difference of one output: (in steps, relative to its largest element).

    Args:
        a: The output before.
        b: The output after.
        spec: The output's tensor.
        step: The scale of the codes that a float output unpacks, or 0.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf, 0.0
    if a.dtype.kind != "f":
        if np.array_equal(a, b):
            return 0.0, 0.0
        if not spec.quantized:
            return np.inf, 0.0
        return float(np.abs(a.astype(np.int64) - b.astype(np.int64)).max()), 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0, 0.0
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a.astype(np.float64) - b))
    largest = float(np.nan_to_num(difference, nan=np.inf).max())
    if step:
        return largest / step - 1e-3, 0.0  # The product with the scale is rounded to float32.
    finite = np.abs(a[np.isfinite(a)])
    return 0.0, largest / max(float(finite.max(initial=0.0)), 1e-30)


def main() -> None:
    """Runs the comparison that `prove` sent; see `tfedge.shell.serve`."""
    serve(_answer)

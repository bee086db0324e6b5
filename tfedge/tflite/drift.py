"""How far a file is from a reference, over its outputs and layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from tfedge.errors import InputError, did_you_mean
from tfedge.record import Drift, LayerDrift
from tfedge.tflite import flatbuffer
from tfedge.tflite.ends import Inputs, filled
from tfedge.tflite.interpreter import Interpreter
from tfedge.tflite.layers import LayerFinder, op_layers
from tfedge.tflite.tensors import TensorSpec, codes, dequantize, quantize

SQNR_8BIT_DB = 20.0
"""A layer of 8-bit tensors below this has drifted: its error is above a tenth of its signal."""

SQNR_WIDE_DB = 40.0
"""The same for float and 16-bit tensors: above a hundredth."""

MAX_STEPS = 2.0
"""Steps a layer may be off a quantized reference."""

_COMPARABLE = ("float16", "float32", "int8", "uint8", "int16")
_NEAR_DB = 1.0
_FLOAT_TOLERANCE = 1e-5


@dataclass
class _Tally:
    """Sums over the elements of one pair of tensors, batch by batch."""

    signal: float = 0.0
    noise: float = 0.0
    other: float = 0.0
    dot: float = 0.0
    steps: float = 0.0

    def add(self, reference: np.ndarray, found: np.ndarray, steps: np.ndarray | None) -> None:
        ref, got = reference.astype(np.float64).ravel(), found.astype(np.float64).ravel()
        with np.errstate(invalid="ignore", over="ignore"):
            self.signal += float(ref @ ref)
            self.other += float(got @ got)
            self.dot += float(ref @ got)
            self.noise += float(np.square(ref - got).sum())
        if steps is not None and steps.size:
            self.steps = max(self.steps, float(steps.max()))

    @property
    def sqnr_db(self) -> float:
        """10*log10(signal / noise); infinite where equal, minus infinite where NaN or overflow."""
        if self.noise == 0.0:
            return math.inf
        if not math.isfinite(self.noise) or self.signal == 0.0:
            return -math.inf
        return 10.0 * math.log10(self.signal / self.noise)

    @property
    def cosine(self) -> float:
        norm = math.sqrt(self.signal) * math.sqrt(self.other)
        if norm == 0.0:
            return 1.0 if self.signal == self.other else 0.0
        return max(-1.0, min(1.0, self.dot / norm)) if math.isfinite(norm) else math.nan


def compare(
    data: bytes,
    inputs: Inputs,
    reference: Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray,
    layers: Mapping[str, np.ndarray] | None = None,
    *,
    quantized_reference: bool = False,
) -> Drift:
    """Runs a file and measures its difference to reference arrays.

    The file is run as it is deployed, with XNNPACK. For the layers it is run a second time, with
    the tensors that stand for them as further outputs: the same kernels compute them.

    A file keeps only names. An op's output stands for the last layer fused into it, and a
    converter may drop that layer's name, so among the layers that an op may end with (those named,
    and those after them that no other op is named for) the tensor is compared with the one that it
    is nearest to. Layers whose shape no tensor has are left out. For a layer that is called more
    than once, give the output of one call.

    Args:
        data: The whole file.
        inputs: Real values [N, ...] by input name (or an array, or a list in the file's order).
        reference: Real outputs [N, ...] by output name; where no name fits, in the file's order.
        layers: Real activations [M, ...] of the first M samples by Keras layer name, in topological
            order; M is the same for all, at most N. All of them are held in memory.
        quantized_reference: True where `layers` come from a simulation of the same quantization
            (QAT): then a layer has drifted when it is more than `MAX_STEPS` steps off.

    Returns:
        The drift. `first_layer` is the first, in execution order, with an SQNR under
        `SQNR_8BIT_DB` (8-bit tensors) or `SQNR_WIDE_DB` (float, 16 bits), or, with a quantized
        reference, more than `MAX_STEPS` off. Steps count codes that are not clipped, so a
        reference beyond the file's range shows. A float output counts as within a step where it
        is within 1e-5 of the reference's largest magnitude. `top1_agreement` is over all 2-D
        outputs of at least two columns.

    Raises:
        InputError: Inputs or reference of wrong names, shapes or number, or NaN in them.
        ConversionError: The file fails when it is run.
    """
    interpreter = Interpreter(data)
    found = interpreter.run_all(_stored(interpreter, inputs))
    named = _by_output(reference, interpreter.outputs)
    drift = _outputs(interpreter.outputs, found, named)
    rows: list[LayerDrift] = []
    first = worst = ""
    if layers:
        scored = _layer_rows(data, inputs, layers)
        rows = [row for row, _ in scored]
        drifted = (r.layer for r, bits in scored if _has_drifted(r, bits, quantized_reference))
        first = next(drifted, "")
        worst = min(rows, key=lambda r: r.sqnr_db).layer if rows else ""
    return Drift(
        max_step=drift.max_step,
        within_one_step=drift.within,
        sqnr_db=drift.tally.sqnr_db,
        cosine=drift.tally.cosine,
        first_layer=first,
        worst_layer=worst,
        top1_agreement=drift.top1,
        samples=drift.samples,
        layers=tuple(rows),
    )


def _stored(interpreter: Interpreter, inputs: Inputs) -> dict[str, np.ndarray]:
    named = interpreter.named(inputs)
    return {s.name: quantize(named[s.name], s) for s in interpreter.inputs}


def _by_output(
    reference: Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray,
    outputs: Sequence[TensorSpec],
) -> dict[str, np.ndarray]:
    names = [s.name for s in outputs]
    if isinstance(reference, np.ndarray):
        reference = [reference]
    if not isinstance(reference, Mapping):
        reference = dict(zip([f"#{i}" for i in range(len(reference))], reference, strict=True))
    given = {str(k): np.asarray(v) for k, v in reference.items()}
    known = [n for n in names if n in given]
    if known and len(known) < len(names):
        lost = next(n for n in names if n not in given)
        fix = did_you_mean(lost, given)
        raise InputError("the reference lacks an output of the file", f"'{lost}'", fix)
    if not known:
        if len(given) != len(names):
            raise InputError(
                "the reference's outputs are not the file's", f"{list(given)} for {names}"
            )
        given = dict(zip(names, given.values(), strict=True))
    for name in names:
        if given[name].dtype.kind == "f" and np.isnan(given[name]).any():
            raise InputError(f"the reference output '{name}' holds NaN")
    return {n: given[n] for n in names}


@dataclass
class _Outputs:
    tally: _Tally = field(default_factory=_Tally)
    max_step: float = 0.0
    within: float = 1.0
    top1: float | None = None
    samples: int = 0


def _outputs(
    specs: Sequence[TensorSpec],
    found: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
) -> _Outputs:
    result = _Outputs()
    near = total = agree = ranked = 0
    for spec in specs:
        got, ref = found[spec.name], reference[spec.name]
        if got.shape != ref.shape:
            raise InputError(
                f"the reference output '{spec.name}' has the wrong shape",
                str(ref.shape),
                f"The file gives {got.shape}",
            )
        real, steps = dequantize(got, spec), _steps(got, ref, spec)
        result.tally.add(ref, real, steps)
        near += int(_close(real, ref, steps).sum())
        total += ref.size
        result.samples = len(ref)
        if ref.ndim == 2 and ref.shape[1] > 1:
            agree += int((real.argmax(1) == ref.argmax(1)).sum())
            ranked += len(ref)
    result.max_step = result.tally.steps
    result.within = near / total if total else 1.0
    result.top1 = agree / ranked if ranked else None
    return result


def _steps(got: np.ndarray, ref: np.ndarray, spec: TensorSpec) -> np.ndarray | None:
    """Whole steps between a tensor's codes and the reference's; None where it has no codes."""
    return np.abs(got.astype(np.float64) - codes(ref, spec)) if spec.quantized else None


def _close(real: np.ndarray, ref: np.ndarray, steps: np.ndarray | None) -> np.ndarray:
    if steps is not None:
        return steps <= 1.0
    largest = float(np.abs(ref).max(initial=0.0))
    return np.abs(real.astype(np.float64) - ref) <= _FLOAT_TOLERANCE * largest


def _has_drifted(row: LayerDrift, bits: int, quantized_reference: bool) -> bool:
    if quantized_reference and bits < 32:
        return row.max_step > MAX_STEPS or row.sqnr_db == -math.inf
    return row.sqnr_db < (SQNR_8BIT_DB if bits == 8 else SQNR_WIDE_DB)


def _layer_rows(
    data: bytes, inputs: Inputs, layers: Mapping[str, np.ndarray]
) -> list[tuple[LayerDrift, int]]:
    """Rows in execution order, each with the bits of its tensor (32 for float)."""
    candidates = _candidates(data, list(layers))
    interpreter = Interpreter(exposed(data, candidates))
    stored, batch = _stored(interpreter, inputs), interpreter.batch
    count = _layer_count(layers, len(next(iter(stored.values()))))
    specs: dict[int, TensorSpec] = {}
    tallies: dict[int, dict[str, _Tally]] = {}
    for start in range(0, count, batch):
        stop = min(start + batch, count)
        interpreter.run({k: filled(v[start:stop], batch) for k, v in stored.items()})
        # Where the file has free axes, its tensors have their sizes only after a run.
        specs = specs or interpreter.tensors()
        for index, names in candidates.items():
            fits = [n for n in names if _same_shape(layers[n], specs[index], batch)]
            got = interpreter.tensor(index)[: stop - start] if fits else np.empty(0)
            real = dequantize(got, specs[index])
            for name in fits:
                ref = layers[name][start:stop]
                tally = tallies.setdefault(index, {}).setdefault(name, _Tally())
                tally.add(ref, real, _steps(got, ref, specs[index]))
    return _rows(tallies, specs)


def exposed(data: bytes, tensors: Iterable[int]) -> bytes:
    """The file with more of its tensors as outputs: so XNNPACK computes them as it is deployed."""
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    graph.outputs = list(dict.fromkeys([*(int(t) for t in graph.outputs), *tensors]))
    return flatbuffer.write(model)


def _layer_count(layers: Mapping[str, np.ndarray], samples: int) -> int:
    """The number of samples that the layers hold."""
    counts = {name: len(values) for name, values in layers.items()}
    if len(set(counts.values())) > 1 or not 1 <= max(counts.values()) <= samples:
        raise InputError(
            "the layers' activations have the wrong number of samples",
            str(dict(list(counts.items())[:5])),
            f"All need the same number, at most {samples}",
        )
    for name, values in layers.items():
        if np.isnan(values).any():
            raise InputError(f"the activations of layer '{name}' hold NaN")
    return max(counts.values())


def _candidates(data: bytes, order: Sequence[str]) -> dict[int, list[str]]:
    """Layers that each op's output may stand for, the likeliest last; in execution order."""
    model = flatbuffer.read(data)
    graph, finder = model.subgraphs[0], LayerFinder(order)
    behind = op_layers(model, order)
    present = set(behind)
    found: dict[int, list[str]] = {}
    for op, last in zip(graph.operators or [], behind, strict=True):
        if not last:
            continue
        after = finder.order[last] + 1
        unnamed = list(takewhile(lambda name: name not in present, order[after:]))
        for index in (int(t) for t in op.outputs if t >= 0):
            tensor = graph.tensors[index]
            if flatbuffer.tensor_dtype(tensor) not in _COMPARABLE or tensor.isVariable:
                continue
            named = [n for n in finder.all(flatbuffer.tensor_name(tensor)) if n != last]
            found[index] = list(dict.fromkeys([*named, *unnamed, last]))
    return found


def _same_shape(values: np.ndarray, spec: TensorSpec, batch: int) -> bool:
    return spec.shape[:1] == (batch,) and values.shape[1:] == spec.shape[1:]


def _rows(
    tallies: Mapping[int, Mapping[str, _Tally]], specs: Mapping[int, TensorSpec]
) -> list[tuple[LayerDrift, int]]:
    """One row per layer: of the tensors that stand for it, the nearest (the last on a tie)."""
    best: dict[str, tuple[int, _Tally]] = {}
    for index, by_layer in tallies.items():
        top = max(t.sqnr_db for t in by_layer.values())
        # Layers can be nearly equal (a ReLU of positive values): then the likeliest is meant.
        name = [n for n, t in by_layer.items() if t.sqnr_db >= top - _NEAR_DB][-1]
        if name not in best or by_layer[name].sqnr_db >= best[name][1].sqnr_db:
            best[name] = (index, by_layer[name])
    position = {index: i for i, index in enumerate(tallies)}
    rows = []
    for name, (index, tally) in sorted(best.items(), key=lambda item: position[item[1][0]]):
        spec = specs[index]
        row = LayerDrift(name, spec.name, tally.sqnr_db, tally.steps, tally.cosine)
        rows.append((row, 8 * spec.numpy_dtype.itemsize if spec.quantized else 32))
    return rows

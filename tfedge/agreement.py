"""Each op of a file alone against its simulation: fed the file's own codes, do they agree?

End to end, a difference of one step at the first op spreads. Here every op of the file is compared
with the layers that simulate it, both given what the file itself computed before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.graph.execute import execute
from tfedge.graph.rewrite import activation_name
from tfedge.graph.trace import Graph, Ref, flatten, map_structure, trace
from tfedge.quantized import layer_name
from tfedge.record import OpAgreement
from tfedge.tflite import flatbuffer
from tfedge.tflite.drift import exposed
from tfedge.tflite.ends import filled
from tfedge.tflite.interpreter import Interpreter, OpInfo
from tfedge.tflite.layers import LayerFinder, op_layers
from tfedge.tflite.tensors import TensorSpec, codes, dequantize, quantize

_NEAR = 0.02
"""Layers that are equally near to a tensor, by this share of its spread, are told apart by name."""

_FAR = 0.1
"""A tensor that differs from every layer's output by this share of its spread stands for none."""


def op_agreement(
    model: Any, data: bytes, inputs: Mapping[str, np.ndarray], kernels: str = "xnnpack"
) -> list[OpAgreement]:
    """Compares every op of an integer file with its simulation, op by op.

    Args:
        model: The quantize-aware tf_keras model that the file was made from.
        data: The file.
        inputs: Real values [n, ...] by input name; all activations of the n samples are held in
            memory.
        kernels: "xnnpack", "builtin" or "reference" (see `tflite.interpreter.KERNELS`).

    Returns:
        One row per op in execution order. Ops that compute one layer together (a swish's LOGISTIC
        and MUL) are compared at the last of them. An op is not compared where its output holds no
        codes, or where the layers between its inputs and its output cannot be found; then `reason`
        says so.

    Raises:
        InputError: Inputs or kernels that do not fit.
        ConversionError: The file fails when it is run.
    """
    graph = trace(model)
    file = _File(data, inputs, kernels)
    simulated = _simulated(graph, inputs)
    places = _matched(graph, file, simulated)
    places |= _input_tensors(graph, file)
    layers = list(dict.fromkeys(layer_name(c.layer) for c in graph.calls))
    named = op_layers(file.model, layers)
    twins = _twins(graph, simulated)
    return [_row(graph, file, op, places, twins, named[op.index]) for op in file.ops]


class _File:
    """What a file computes: ops, tensors and their codes."""

    def __init__(self, data: bytes, inputs: Mapping[str, np.ndarray], kernels: str) -> None:
        self.model = flatbuffer.read(data)
        graph = self.model.subgraphs[0]
        made = [int(t) for op in graph.operators for t in op.outputs if t >= 0]
        runner = Interpreter(exposed(data, made), kernels=kernels)
        self.inputs = {s.name: s.index for s in Interpreter(data).inputs}
        self.specs: dict[int, TensorSpec] = {}
        self.ops: list[OpInfo] = runner.ops()
        self.values = self._run(runner, inputs, made)

    def _run(
        self, runner: Interpreter, inputs: Mapping[str, np.ndarray], made: list[int]
    ) -> dict[int, np.ndarray]:
        """Codes of every input and every op's output, [n, ...] by tensor number."""
        stored = {s.name: quantize(inputs[s.name], s) for s in runner.inputs}
        count, batch = len(next(iter(stored.values()))), runner.batch
        parts: dict[int, list[np.ndarray]] = {}
        for start in range(0, count, batch):
            stop = min(start + batch, count)
            runner.run({k: filled(v[start:stop], batch) for k, v in stored.items()})
            self.specs = self.specs or runner.tensors()
            for index in made:
                parts.setdefault(index, []).append(runner.tensor(index)[: stop - start])
        values = {i: np.concatenate(p) if p[0].ndim else p[0] for i, p in parts.items()}
        return values | {index: stored[name] for name, index in self.inputs.items()}

    def real(self, index: int) -> np.ndarray:
        """A tensor's real values."""
        return dequantize(self.values[index], self.specs[index])


def _simulated(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """What every call of the simulation gives, by tensor number."""
    found: dict[int, np.ndarray] = {}
    for call, _, outputs in execute(graph, dict(inputs)):
        found.update({i: np.asarray(t) for i, t in zip(call.outputs, outputs, strict=True)})
    return found


def _input_tensors(graph: Graph, file: _File) -> dict[int, int]:
    """Tensor number in the graph of each input of the file."""
    numbers = dict(zip(graph.input_names, graph.inputs, strict=True))
    return {index: numbers[name] for name, index in file.inputs.items()}


def _twins(graph: Graph, simulated: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
    """Other tensors of which the file keeps one: handed on, or equal and made of the same ones."""
    found: dict[int, list[int]] = {}
    alike: dict[tuple[Any, ...], list[int]] = {}
    for call in graph.calls:
        if not call.inputs or len(call.outputs) != 1:
            continue
        alike.setdefault((type(call.layer), call.inputs), []).append(call.outputs[0])
        identity = isinstance(call.layer, keras.layers.Activation)
        if identity and activation_name(call.layer) == "linear":
            alike[call.layer, call.inputs] = [call.inputs[0], call.outputs[0]]
    for numbers in alike.values():
        for one in numbers:
            equal = (n for n in numbers if n != one and _equal(simulated, n, one))
            found.setdefault(one, []).extend(equal)
    return found


def _equal(values: Mapping[int, np.ndarray], one: int, other: int) -> bool:
    return one in values and other in values and np.array_equal(values[one], values[other])


def _matched(graph: Graph, file: _File, simulated: Mapping[int, np.ndarray]) -> dict[int, int]:
    """The simulation's tensor that each of the file's stands for: the nearest, then by name."""
    names = {i: layer_name(c.layer) for c in graph.calls for i in c.outputs}
    finder = LayerFinder(list(dict.fromkeys(names.values())))
    found: dict[int, int] = {}
    for op in file.ops:
        for index in op.outputs:
            spec = file.specs[index]
            if not spec.quantized:
                continue
            got = file.values[index].astype(np.float64)
            spread = float(got.std()) or 1.0
            near = {
                number: float(np.abs(got - codes(values, spec)).mean()) / spread
                for number, values in simulated.items()
                if values.shape == got.shape and values.dtype.kind == "f"
            }
            least = min(near.values(), default=_FAR)
            if least >= _FAR:
                continue
            best = [n for n, d in near.items() if d <= least + _NEAR]
            named = finder.all(spec.name)
            found[index] = next((n for n in reversed(best) if names[n] in named), best[0])
    return found


def _clipped(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    ends = np.iinfo(spec.dtype)
    return np.clip(codes(values, spec), ends.min, ends.max)


def _row(
    graph: Graph,
    file: _File,
    op: OpInfo,
    places: Mapping[int, int],
    twins: Mapping[int, list[int]],
    layer: str,
) -> OpAgreement:
    if len(op.outputs) != 1 or op.outputs[0] not in places:
        reason = "its output stands for no layer's: compared with the op after it"
        return OpAgreement(op.index, op.name, layer, reason=reason)
    target, spec = places[op.outputs[0]], file.specs[op.outputs[0]]
    inputs, names = _inputs(file, op, places)
    given = {n: file.real(i) for i in inputs for n in twins.get(places[i], [])}
    given |= {places[i]: file.real(i) for i in inputs}
    want = _between(graph, given, target)
    if want is None:
        reason = "the layers between its inputs and its output were not found"
        return OpAgreement(op.index, names, layer, reason=reason)
    steps = np.abs(file.values[op.outputs[0]].astype(np.float64) - _clipped(want, spec))
    shares = [float((steps <= limit).mean()) for limit in (0, 1)]
    return OpAgreement(op.index, names, layer, steps.size, *shares, float(steps.max()))


def _inputs(file: _File, op: OpInfo, places: Mapping[int, int]) -> tuple[list[int], str]:
    """The tensors that an op computes from, back to those of a layer's output; the ops' names."""
    makers = {i: o for o in file.ops for i in o.outputs}
    found: list[int] = []
    names = op.name
    for index in op.inputs:
        if index in places:
            found.append(index)
        elif index in makers:
            further, before = _inputs(file, makers[index], places)
            found += further
            names = f"{before}+{names}"
    return found, names


def _between(graph: Graph, given: Mapping[int, np.ndarray], target: int) -> np.ndarray | None:
    """The value of a tensor from those of others; None where these do not determine it."""
    makers = {i: c for c in graph.calls for i in c.outputs}
    values: dict[int, Any] = {i: tf.constant(v) for i, v in given.items()}

    def value(number: int) -> Any:
        if number not in values:
            call = makers[number]  # KeyError: a model input that is not given

            def to_tensor(leaf: Any) -> Any:
                return value(leaf.index) if isinstance(leaf, Ref) else leaf

            args, kwargs = (
                map_structure(to_tensor, call.args),
                map_structure(to_tensor, call.kwargs),
            )
            kwargs = {k: v for k, v in kwargs.items() if v is not None or k != "training"}
            values.update(zip(call.outputs, flatten(call.layer(*args, **kwargs)), strict=True))
        return values[number]

    try:
        return np.asarray(value(target))
    except KeyError:
        return None

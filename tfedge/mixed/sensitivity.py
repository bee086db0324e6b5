"""What quantizing one part of a network alone does to the outputs.

The quantizers of a quantize-aware model are switched on one unit at a time: of its kernels, then of
its activations. Noises so small add up (each is independent of the others), which is what lets an
integer programme choose. Three measures:

- "sqnr": E|y~ - y|^2 / E|y|^2 per output (the inverse of the signal-to-noise ratio), summed.
- "kl": KL(p || p~) of the class probabilities, for classifiers.
- "hessian": the former by its second-order term e'J'Je, where e is the unit's own error and J the
  outputs' Jacobian (the Gauss-Newton Hessian of the squared error; Dong et al. 2020, "HAWQ-V2").
  J is met only in products with random signs v: E(v'Je)^2 = |Je|^2 (Hutchinson), so that one pass
  serves all units: for networks of many layers and large inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.errors import InputError, ModelError, did_you_mean
from tfedge.graph.execute import call_on, run_on
from tfedge.graph.trace import Graph, trace
from tfedge.mixed.units import Network, Quantizers, quantized_layers
from tfedge.quant.ends import Phase
from tfedge.quant.ranges import filled

DRAWS = 4
"""Random vectors of the "hessian" measure."""

_MEMORY = 2**29  # Bytes that all activations of the samples may take.
_LEAST = 1e-12  # Probabilities are at least this.

Outputs = list[np.ndarray]


@dataclass(frozen=True)
class Noise:
    """What quantizing one unit does to the outputs.

    Attributes:
        kernels: Its kernels alone; 0 where it has none.
        activations: Its activations alone.
    """

    kernels: float
    activations: float


def sensitivities(
    aware: Any, network: Network, samples: list[np.ndarray], measure: str = "sqnr"
) -> dict[str, Noise]:
    """The noise of every unit, and of every input, under the scheme of a quantize-aware model.

    Args:
        aware: What `quantize_aware` returned, with its ranges set.
        network: Of its float model.
        samples: One array an input, [N, ...], in order; as many are used as fit into 0.5 GB with
            all activations.
        measure: One of `MEASURES`.

    Raises:
        InputError: An unknown measure, or "kl" where an output is no vector of classes.
        ModelError: The float network gives values that are not finite.
    """
    return MEASURES[check_measure(measure)](_Probe(aware, network, samples))


def check_measure(measure: str) -> str:
    """The measure itself.

    Raises:
        InputError: There is none of this name.
    """
    if measure not in MEASURES:
        raise InputError("unknown measure", f"'{measure}'", did_you_mean(measure, MEASURES))
    return measure


class _Probe:
    """A quantize-aware model whose quantizers are all off, and what it computes then."""

    def __init__(self, aware: Any, network: Network, samples: list[np.ndarray]) -> None:
        self.graph = trace(aware)
        units = network.unit_of()
        self.units: dict[str, Quantizers] = {}
        for layer, found in quantized_layers(aware).items():
            unit = self.units.setdefault(units[layer], Quantizers([], []))
            unit.kernels.extend(found.kernels)
            unit.activations.extend(found.activations)
        self._all = [
            q for unit in self.units.values() for _, q in (*unit.kernels, *unit.activations)
        ]
        count = _count(self.graph, samples)
        self.inputs = [tf.constant(filled(s, count)[:count]) for s in samples]

    def __enter__(self) -> _Probe:
        self._phases = [q.phase for q in self._all]
        self.switch(self._all, False)
        return self

    def __exit__(self, *error: object) -> None:
        for quantizer, phase in zip(self._all, self._phases, strict=True):
            quantizer.phase = phase

    @staticmethod
    def switch(quantizers: Iterable[Any], on: bool) -> None:
        """Lets quantizers quantize, or hand through."""
        for quantizer in quantizers:
            quantizer.phase = Phase(quantizing=on, moving=False)

    def run(self, watch: Callable[[Any], None] | None = None) -> dict[int, Any]:
        """All tensors of the float network, by number.

        Args:
            watch: Is shown every float tensor.

        Raises:
            ModelError: An output is not finite.
        """
        values = dict(zip(self.graph.inputs, self.inputs, strict=True))
        for call in self.graph.calls:
            made = call_on(call, values)
            if watch is not None:
                for tensor in made:
                    if tensor.dtype.is_floating:
                        watch(tensor)
            values.update(zip(call.outputs, made, strict=True))
        for output in self.outputs(values):
            if not np.isfinite(output).all():
                raise ModelError("the float network's outputs are not finite", "NaN or infinity")
        return values

    def outputs(self, values: Mapping[int, Any]) -> Outputs:
        """The model's outputs, float64 [N, ...]."""
        return [np.asarray(values[i], np.float64) for i in self.graph.output_refs()]

    def parts(self) -> Iterable[tuple[str, str, list[tuple[int, Any]]]]:
        """(unit, field of `Noise`, quantizers with their calls)."""
        for unit, found in self.units.items():
            yield unit, "kernels", found.kernels
            yield unit, "activations", found.activations

    def each(self, noise: Callable[[list[tuple[int, Any]]], float]) -> dict[str, Noise]:
        """Noise by unit, of what is found for each part that has quantizers."""
        values: dict[str, dict[str, float]] = {}
        for unit, part, quantizers in self.parts():
            found = 0.0
            if quantizers:
                self.switch((q for _, q in quantizers), True)
                found = noise(quantizers)
                self.switch((q for _, q in quantizers), False)
            values.setdefault(unit, {})[part] = found
        return {unit: Noise(**parts) for unit, parts in values.items()}


def _count(graph: Graph, samples: list[np.ndarray]) -> int:
    """How many samples fit into memory with all their activations."""
    size = sum(4 * int(np.prod([d or 1 for d in t.shape[1:]])) for t in graph.tensors)
    if fixed := [graph.tensors[i].shape[0] or 0 for i in graph.inputs if graph.tensors[i].shape[0]]:
        return max(fixed)
    return max(1, min(len(samples[0]), _MEMORY // max(1, size)))


def _by_outputs(probe: _Probe, distance: Callable[[Outputs, Outputs], float]) -> dict[str, Noise]:
    """Runs the network on from each part's first quantizer, and compares the outputs."""
    with probe:
        values = probe.run()
        wanted = probe.outputs(values)

        def noise(quantizers: list[tuple[int, Any]]) -> float:
            now = dict(values)
            run_on(probe.graph, now, {n for n, _ in quantizers})
            return distance(wanted, probe.outputs(now))

        return probe.each(noise)


def _inverse_sqnr(wanted: Outputs, got: Outputs) -> float:
    return sum(float(np.mean((g - w) ** 2)) / _power(w) for w, g in zip(wanted, got, strict=True))


def _power(values: np.ndarray) -> float:
    return float(np.mean(values**2)) or 1.0


def _sqnr(probe: _Probe) -> dict[str, Noise]:
    return _by_outputs(probe, _inverse_sqnr)


def _kl(probe: _Probe) -> dict[str, Noise]:
    return _by_outputs(probe, _divergence)


def _divergence(wanted: Outputs, got: Outputs) -> float:
    total = 0.0
    for w, g in zip(wanted, got, strict=True):
        if w.ndim != 2 or w.shape[1] < 2:
            raise InputError(
                "the measure 'kl' compares class probabilities", f"an output of shape {w.shape}",
                "Use measure='sqnr'",
            )  # fmt: skip
        p, q = _probabilities(w), _probabilities(g)
        total += float(np.mean(np.sum(p * (np.log(p) - np.log(q)), 1)))
    return max(0.0, total)


def _probabilities(values: np.ndarray) -> np.ndarray:
    """The values themselves where they are probabilities, else their softmax."""
    if values.min() >= -0.01 and np.allclose(values.sum(1), 1.0, atol=0.05):
        return np.clip(values, _LEAST, 1.0)
    raised = np.exp(values - values.max(1, keepdims=True))
    return np.clip(raised / raised.sum(1, keepdims=True), _LEAST, 1.0)


def _hessian(probe: _Probe) -> dict[str, Noise]:
    """|Je|^2 by random projections, all units in one pass."""
    with probe:
        gradients, values = _projections(probe)

        def noise(quantizers: list[tuple[int, Any]]) -> float:
            squares = 0.0
            for draw in gradients:
                product = 0.0
                for number in dict.fromkeys(n for n, _ in quantizers):
                    call = probe.graph.calls[number]
                    for out, made in zip(call.outputs, call_on(call, values), strict=True):
                        if draw.get(out) is not None:
                            error = np.asarray(made - values[out], np.float64)
                            product = product + _per_sample(draw[out] * error)
                squares += float(np.mean(np.square(product)))
            return squares / len(gradients)

        return probe.each(noise)


def _projections(probe: _Probe) -> tuple[list[dict[int, Any]], dict[int, Any]]:
    """Per draw the gradient of v'y by every tensor, float64; and the tensors."""
    random = np.random.default_rng(0)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        values = probe.run(tape.watch)
        sums = []
        for _ in range(DRAWS):
            total = 0.0
            for number in probe.graph.output_refs():
                y = values[number]
                v = random.choice([-1.0, 1.0], size=y.shape).astype(np.float32)
                v /= np.sqrt(_power(np.asarray(y, np.float64)) * np.prod(y.shape[1:]))
                total += tf.reduce_sum(y * v)
            sums.append(total)
    numbers = [n for n, v in values.items() if v.dtype.is_floating and n not in probe.graph.inputs]
    found = []
    for total in sums:
        gradients = tape.gradient(total, [values[n] for n in numbers])
        found.append(
            {
                n: None if g is None else np.asarray(tf.convert_to_tensor(g), np.float64)
                for n, g in zip(numbers, gradients, strict=True)
            }
        )
    return found, values


def _per_sample(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(1)


MEASURES: dict[str, Callable[[_Probe], dict[str, Noise]]] = {
    "sqnr": _sqnr,
    "kl": _kl,
    "hessian": _hessian,
}
"""How noise is measured, by name."""

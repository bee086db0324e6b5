"""What is measured before the choice: noise, bytes and time of every unit by scheme."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from tfedge import api
from tfedge.bridge import ServingModel, to_float32
from tfedge.data import repeatable, stack
from tfedge.errors import InputError, ModelError, did_you_mean
from tfedge.mixed.costs import Costs, costs_of
from tfedge.mixed.latency import seam_cost, seam_times, timer_of
from tfedge.mixed.sensitivity import Noise, check_measure, sensitivities
from tfedge.mixed.solver import Link, Option, Solution
from tfedge.mixed.units import Network, half_ratios, quantized_layers
from tfedge.quant import QuantizationWarning, quantize_aware
from tfedge.quant.placement import FLOAT
from tfedge.quant.qat import origins
from tfedge.quant.ranges import input_specs
from tfedge.quantized import is_quantized, qat_schemes
from tfedge.schemes import SCHEMES
from tfedge.tflite import TFLiteModel, certify, check_runs, flatbuffer
from tfedge.tflite.interpreter import Interpreter
from tfedge.tflite.layers import op_layers
from tfedge.tflite.rewrite import compact
from tfedge.tflite.stored import store_half

CANDIDATES = ("w8a8", "w4a8", "w8a16", "float16", "float32")
"""Schemes that a unit may get."""

_FLOATS = ("float16", "float32")
_FRAME = "(file)"  # Stands for the bytes that are no unit's constants.
_LOOK, _HELD = 32, 64  # Samples that noise is measured on, and those that judge the file.


class Survey:
    """A network measured under each scheme.

    Args:
        model: A float tf_keras model.
        network: Its units.
        calibration: Data of any form.
        candidates: Some of `CANDIDATES`.
        how: The measure of noise (see `sensitivity`), and where time is measured.

    Attributes:
        model: The float model.
        network: Its units.
        files: The whole network under each scheme.
        timer: What tells times.
        links: Tensors between units, with what a seam costs there.
        overhead: Bytes of a file that are no unit's constants.
    """

    def __init__(
        self,
        model: Any,
        network: Network,
        calibration: Any,
        candidates: Sequence[str],
        how: tuple[str, str],
    ) -> None:
        self.model, self.network, self.candidates = model, network, _checked(candidates)
        if calibration is None:
            raise InputError("mixed precision needs calibration data", "none", "Pass 100 inputs")
        self.measure, self._data = check_measure(how[0]), repeatable(calibration)
        self._samples = stack(self._data, input_specs(self.model), limit=_LOOK + _HELD)
        self.timer = timer_of(how[1])
        aware = {s: self._aware(s) for s in self.candidates if s not in _FLOATS}
        self.files = {s: self._whole(s, aware.get(s)) for s in self.candidates}
        self._noises = self._measure_noise(aware)
        self._available = {s: _available(s, a, self.network) for s, a in aware.items()}
        self._costs = self._count({s: origins(a) for s, a in aware.items()})
        self.overhead = max(c.overhead for c in self._costs.values())
        self.links = self._links()

    def _aware(self, scheme: str, overrides: Mapping[str, str] | None = None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantizationWarning)
            return quantize_aware(self.model, scheme, self._data, overrides=overrides)

    def _whole(self, scheme: str, aware: Any) -> TFLiteModel:
        return self._converted(self.model if aware is None else aware, scheme)

    def _converted(self, model: Any, scheme: str) -> TFLiteModel:
        """The file; 16x8 as the target's processor wants it."""
        sixteen = is_quantized(model) and any(
            SCHEMES[s].activation_bits == 16 for s in qat_schemes(model)
        )
        return api.convert(model, scheme, int16={"cpu": self.timer.cpu} if sixteen else None)

    def _measure_noise(self, aware: Mapping[str, Any]) -> dict[str, dict[str, Noise]]:
        few = [v[:_LOOK] for v in self._samples.values()]
        found = {s: sensitivities(a, self.network, few, self.measure) for s, a in aware.items()}
        scheme, model = next(iter(aware.items()))
        if "float16" in self.candidates:
            found["float16"] = {
                unit: Noise(found[scheme][unit].kernels * ratio, 0.0)
                for unit, ratio in half_ratios(model, self.network).items()
            }
        return found

    def _count(self, names: Mapping[str, Mapping[str, str]]) -> dict[str, Costs]:
        """Costs by scheme; float16 takes float32's arithmetic and time."""
        files = dict(self.files)
        if "float16" in files and "float32" not in files:
            files["float32"] = self._whole("float32", None)
        timed = [s for s in files if s != "float16"]
        times = self.timer.ops([files[s].data for s in timed])
        costs = {
            s: costs_of(files[s], self.network, names.get(s, {}), row)
            for s, row in zip(timed, times, strict=True)
        }
        if "float16" in files:
            half = costs_of(files["float16"], self.network, {}, None)
            costs["float16"] = replace(half, latency_us=costs["float32"].latency_us)
        return costs

    def _links(self) -> list[Link]:
        lines = seam_times(self.timer)
        found = []
        for tensor in self.network.tensors:
            outside = tensor.maker in self.network.inputs
            costs = {
                pair: 0.0 if outside else seam_cost(line, tensor.elements)
                for pair, line in lines.items()
            }
            noise = {
                SCHEMES[scheme].activation_bits: noises[tensor.maker].activations
                for scheme, noises in self._noises.items()
                if tensor.maker in noises and scheme not in _FLOATS
            }
            found.append(Link(tensor.maker, tensor.readers, noise, {"latency_us": costs}))
        return found

    def options(self, pinned: Mapping[str, str]) -> dict[str, dict[str, Option]]:
        """What each unit may be; model inputs, and the file's frame, are units without a choice.

        Args:
            pinned: Scheme by unit, of units that are not free.

        Raises:
            InputError: A pinned scheme that the unit has no kernel for.
        """
        found: dict[str, dict[str, Option]] = {}
        for name, size in {**dict.fromkeys(self.network.inputs, 0), _FRAME: self.overhead}.items():
            found[name] = {FLOAT: Option(0, 0.0, {"bytes": float(size), "latency_us": 0.0})}
        for unit in self.network.layers:
            fit = [s for s in self.candidates if s in _FLOATS or unit in self._available[s]]
            if unit in pinned and pinned[unit] not in fit:
                raise InputError(
                    f"keep asks for a scheme that '{unit}' has no kernel for",
                    f"'{pinned[unit]}'", f"It can have: {', '.join(fit) or 'none'}",
                )  # fmt: skip
            fit = [pinned[unit]] if unit in pinned else fit
            if not fit:
                raise InputError(
                    f"'{unit}' has no integer form, and no float scheme is among the candidates",
                    ", ".join(self.candidates), "Add 'float32' to the candidates",
                )  # fmt: skip
            found[unit] = {s: self._option(unit, s) for s in fit}
        return found

    def enlarge_frame(self, options: dict[str, dict[str, Option]], by: float) -> None:
        """Takes the bytes of a file that are no unit's constants for more, or less.

        Args:
            options: What `options` returned; changed in place.
            by: Bytes.
        """
        size = max(0.0, options[_FRAME][FLOAT].costs["bytes"] + by)
        options[_FRAME] = {FLOAT: Option(0, 0.0, {"bytes": size, "latency_us": 0.0})}

    def _option(self, unit: str, scheme: str) -> Option:
        noise = self._noises.get(scheme, {}).get(unit, Noise(0.0, 0.0))
        bits = 0 if scheme in _FLOATS else SCHEMES[scheme].activation_bits
        return Option(bits, noise.kernels + noise.activations, self._costs_of(scheme, unit))

    def _costs_of(self, scheme: str, unit: str) -> dict[str, float]:
        found = self._costs[scheme]
        return {"bytes": float(found.bytes[unit]), "latency_us": found.latency_us[unit]}

    def overrides(self, schemes: Mapping[str, str]) -> dict[str, str]:
        """Scheme by layer, of schemes by unit."""
        return {
            layer: schemes[unit] for unit, layers in self.network.layers.items() for layer in layers
        }

    def build(self, schemes: Mapping[str, str]) -> TFLiteModel:
        """The real file of a choice.

        Args:
            schemes: Scheme by unit.
        """
        wanted = self.overrides(schemes)
        counts = Counter(s for s in wanted.values() if s not in _FLOATS)
        if counts:
            base = counts.most_common(1)[0][0]
            given = {k: FLOAT if s in _FLOATS else s for k, s in wanted.items()}
            aware = self._aware(base, given)
            file, names = self._converted(aware, base), origins(aware)
        else:
            file, names = api.convert(self.model, "float32"), {}
        return _finished(file, names, wanted)

    def prediction(self, solution: Solution) -> dict[str, float]:
        """What a solution is expected to be: "sqnr_db" (or "kl"), "bytes", "latency_us"."""
        return {**self._quality(solution.noise), **solution.costs}

    def _quality(self, noise: float) -> dict[str, float]:
        if self.measure == "kl":
            return {"kl": noise}
        outputs = len(self.model.outputs)
        return {"sqnr_db": 10 * math.log10(outputs / noise) if noise > 0 else math.inf}

    def measured(self, files: Mapping[str, TFLiteModel]) -> dict[str, dict[str, float]]:
        """What real files are, timed in turn.

        Args:
            files: By name.

        Returns:
            By name: "sqnr_db" on held-out samples, "bytes", "latency_us".
        """
        times = self.timer.files({k: f.data for k, f in files.items()})
        return {
            name: {
                "sqnr_db": self.quality(file),
                "bytes": len(file.data),
                "latency_us": times[name],
            }
            for name, file in files.items()
        }

    def quality(self, file: TFLiteModel) -> float:
        """Signal-to-noise ratio of a file's outputs on held-out samples, dB."""
        held = {k: v[-min(_HELD, len(v)) :] for k, v in self._samples.items()}
        got = list(Interpreter(file.data).predict(held).values())
        noise = sum(
            float(np.mean((g - w) ** 2)) / (float(np.mean(np.square(w))) or 1.0)
            for g, w in zip(got, self._wanted, strict=True)
        )
        return 10 * math.log10(len(got) / noise) if noise > 0 else math.inf

    @cached_property
    def _wanted(self) -> list[np.ndarray]:
        """The float model's outputs on the held-out samples."""
        held = [v[-min(_HELD, len(v)) :] for v in self._samples.values()]
        found = self.model.predict(held, verbose=0)
        return list(found) if isinstance(found, (list, tuple)) else [found]


def float_model(model: Any) -> Any:
    """The float model in tf_keras.

    Args:
        model: A Keras model of either flavour, or a path.

    Raises:
        ModelError: It is quantize-aware, or has no Keras layers.
    """
    loaded = api.load_model(model)
    if isinstance(loaded, ServingModel) or is_quantized(loaded):
        raise ModelError("mixed precision starts from a float Keras model", type(loaded).__name__)
    return to_float32(loaded)


def _checked(candidates: Sequence[str]) -> tuple[str, ...]:
    for name in candidates:
        if name not in CANDIDATES:
            raise InputError("no such candidate", f"'{name}'", did_you_mean(name, CANDIDATES))
    if len(set(candidates)) < 2:
        raise InputError("mixed precision needs two candidates or more", f"{list(candidates)}")
    if not set(candidates) - set(_FLOATS):
        raise InputError("mixed precision needs an integer candidate", f"{list(candidates)}")
    return tuple(dict.fromkeys(candidates))


def _available(scheme: str, aware: Any, network: Network) -> set[str]:
    """Units that a scheme is a choice of its own for: the runtime has kernels with its bits."""
    bits, units = SCHEMES[scheme], network.unit_of()
    kernels: dict[str, list[int]] = {}
    activations: dict[str, list[int]] = {}
    for layer, found in quantized_layers(aware).items():
        kernels.setdefault(units[layer], []).extend(q.num_bits for _, q in found.kernels)
        activations.setdefault(units[layer], []).extend(q.num_bits for _, q in found.activations)
    few = bits.weight_bits < 8
    return {
        unit
        for unit, widths in activations.items()
        if all(b == bits.activation_bits for b in widths)
        and (bits.weight_bits in kernels[unit] if few else widths or kernels[unit])
    }


def _finished(
    file: TFLiteModel, names: Mapping[str, str], wanted: Mapping[str, str]
) -> TFLiteModel:
    """The file with its float16 weights, checked anew, and the choice in its metadata."""
    layers, data = file.layers, file.data
    model = flatbuffer.read(data)
    behind = op_layers(model, layers)
    halves = [i for i, name in enumerate(behind) if wanted.get(names.get(name, name)) == "float16"]
    if halves and store_half(model, halves):
        compact(model)
        data = flatbuffer.write(model)
    facts = {**flatbuffer.get_metadata(data), "mixed": dict(wanted)}
    data = flatbuffer.set_metadata(data, facts)
    return TFLiteModel.from_bytes(data, certificate=certify(data, layers, ops=check_runs(data)))

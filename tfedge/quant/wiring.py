"""Puts quantizers into a normalised graph: behind inputs, between unlike schemes, around floats."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tfedge.graph.copying import copy_layer
from tfedge.graph.trace import Call, Graph, Ref, Tensor, map_structure, replay
from tfedge.quant import observe
from tfedge.quant.configs import InputQuantizer, TfedgeQuantizeWrapper
from tfedge.quant.placement import Placement, is_operation, rule_of
from tfedge.quant.quantizers import ActivationQuantizer
from tfedge.quant.seams import Boundary, Requantize


@dataclass
class _Value:
    """One tensor of the old graph in the new one.

    Attributes:
        number: Its tensor.
        bits: Activation bits that it is quantized with (or will be, where ops are fused); 0: float.
        entered: Whether it comes straight from outside: then nothing separates it from floats.
        forms: The tensor with other bits.
    """

    number: int
    bits: int
    entered: bool = False
    forms: dict[int, int] = field(default_factory=dict)


class Wiring:
    """Inserts quantizers and boundaries into a graph.

    Args:
        graph: The traced normalised model.
        place: Where it is quantized.
        mode: How the ranges of the quantizers come about.
    """

    def __init__(self, graph: Graph, place: Placement, mode: str) -> None:
        self._old, self._place, self._mode = graph, place, mode
        self._names = {c.name for c in graph.calls} | set(graph.input_names)
        self._tensors = list(graph.tensors)
        self._calls: list[Call] = []
        self._values: dict[int, _Value] = {}
        self._layers: dict[str, Any] = {}

    def run(self) -> Graph:
        """The graph with the new calls in it."""
        for number in self._old.inputs:
            self._values[number] = _Value(number, 0, entered=True)
        for call in self._old.calls:
            self._add(call)

        def last(ref: Ref) -> Ref:
            return Ref(self._values[ref.index].number)

        outputs = map_structure(last, self._old.outputs)
        return replace(self._old, tensors=self._tensors, calls=self._calls, outputs=outputs)

    def _add(self, call: Call) -> None:
        """Adds a call whose inputs have the form that it takes."""
        bits = self._bits(call)
        apart = bits and self._place.has_one_scale(call)
        moved: dict[int, int] = {}

        def read_number(number: int) -> int:
            read = self._read(number, bits)
            floats = self._tensors[read].dtype.startswith("float")
            if not (apart and floats) or self._place.takes_scale(number, call):
                return read
            if read not in moved:
                moved[read] = self._emit(Requantize, read, f"requantize_{call.name}")
            return moved[read]

        def read(leaf: Any) -> Any:
            return Ref(read_number(leaf.index)) if isinstance(leaf, Ref) else leaf

        args, kwargs = map_structure(read, call.args), map_structure(read, call.kwargs)
        inputs = tuple(map(read_number, call.inputs))
        self._calls.append(replace(call, args=args, kwargs=kwargs, inputs=inputs))
        for number in call.outputs:
            self._values[number] = _Value(number, bits)
            rule = rule_of(call.layer)
            if bits and is_operation(call.layer) and rule is not None and rule.kind == "output":
                self._values[number].number = self._quantize(number, bits, call.name)

    def _bits(self, call: Call) -> int:
        """Activation bits of a call's output: its own, or those of the input that it hands on."""
        if self._place.is_float(call.name):
            return 0
        own = self._place.bits(call.name)
        before = self._values[call.inputs[0]] if call.inputs else None
        if before is None or before.entered or not self._place.keeps_range(call):
            return own
        return before.bits

    def _read(self, number: int, bits: int) -> int:
        """A tensor in the form that a call with these bits reads; made once."""
        value = self._values[number]
        if bits == value.bits or not self._tensors[value.number].dtype.startswith("float"):
            return value.number
        if bits not in value.forms:
            value.forms[bits] = self._formed(number, value, bits)
        return value.forms[bits]

    def _formed(self, number: int, value: _Value, bits: int) -> int:
        inputs = dict(zip(self._old.inputs, self._old.input_names, strict=True))
        makers = {i: c.name for c in self._old.calls for i in c.outputs}
        name = inputs.get(number) or makers[number]
        source = value.number
        if not value.entered:
            source = self._emit(Boundary, source, f"boundary_{name}")
        return self._quantize(source, bits, name) if bits else source

    def _quantize(self, number: int, bits: int, name: str) -> int:
        def make(name: str) -> Any:
            return InputQuantizer(ActivationQuantizer(bits, self._mode), name=name)

        return self._emit(make, number, f"quantize_{name}")

    def _emit(self, make: Any, number: int, name: str) -> int:
        """Adds a call of a new layer on a tensor; returns its output."""
        label, count = name, 0
        while label in self._names:
            count += 1
            label = f"{name}_{count}"
        self._names.add(label)
        old = self._tensors[number]
        self._tensors.append(Tensor(old.shape, old.dtype))
        out = len(self._tensors) - 1
        self._calls.append(Call(make(name=label), label, (Ref(number),), {}, (number,), (out,)))
        return out


def wired(graph: Graph, schemes: dict[str, str], simulation: dict[str, str]) -> Any:
    """The quantize-aware form of a normalised float model, with its weights.

    Args:
        graph: Traced from what `normalise` made.
        schemes: Scheme of each of its layers by name.
        simulation: Fields of `configs.Simulation`, but for the bits.
    """
    place = Placement(graph, schemes)
    made: dict[str, tuple[Any, Any]] = {}

    def make(name: str, layer: Any) -> Any:
        if isinstance(layer, (InputQuantizer, Boundary, Requantize)):
            return layer
        copy = copy_layer(layer, name=name)
        config = place.config(name, layer)
        made[name] = (layer, copy)
        if config is None:
            return copy
        bits = place.weight_bits(name, layer)
        return TfedgeQuantizeWrapper(copy, config.changed(weight_bits=bits, **simulation))

    # Only shapes matter here, which the float path has too: it takes half the time to trace.
    with observe.watching(observe.Silent()):
        result = replay(Wiring(graph, place, simulation["ranges"]).run(), make)
    for old, new in made.values():
        if hasattr(new, "set_weights"):
            new.set_weights(old.get_weights())
    return result

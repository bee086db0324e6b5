"""Rewrites a float network into an equal one whose every layer has an integer kernel.

Each rule of `expansions` turns one layer call into a chain of layers that computes the same: the
outputs of the rewritten float model equal the original's (up to float rounding).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfedge._keras import keras
from tfedge.graph.trace import Call, Graph, Ref, Tensor, copy_layer, map_structure, replay
from tfedge.quant.expansions import EXPANSIONS, FOLD_INTO, Piece, as_is
from tfedge.quant.placement import activation_name, call_counts, consumers


@dataclass
class Normalised:
    """What `normalise` made.

    Attributes:
        model: The rewritten float model.
        notes: Layer name -> what was done to it and why.
    """

    model: Any
    notes: dict[str, str]


def normalise(graph: Graph) -> Normalised:
    """Rewrites a traced tf_keras model; see the module's rules.

    Args:
        graph: Traced from a model whose layers `refusals` found no fault with.

    Returns:
        An independent float model (new layers, copied weights) with the same inputs, outputs and
        names, and the notes.
    """
    return _Normaliser(graph).run()


class _Normaliser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.readers = consumers(graph)
        self.counts = call_counts(graph)
        self.makers = {t: c for c in graph.calls for t in c.outputs}
        self.outputs = set(graph.output_refs())
        self.names = {c.name for c in graph.calls}
        self.notes: dict[str, str] = {}
        self.folded = self._foldable()
        self.chains: dict[str, list[Piece]] = {}

    def run(self) -> Normalised:
        new = Graph(
            name=self.graph.name,
            flavour=self.graph.flavour,
            inputs=list(self.graph.inputs),
            input_names=list(self.graph.input_names),
            tensors=list(self.graph.tensors),
            structured_inputs=self.graph.structured_inputs,
        )
        moved = {i: i for i in range(len(self.graph.tensors))}
        for call in self.graph.calls:
            self._emit(call, new, moved)
        new.outputs = map_structure(lambda r: Ref(moved[r.index]), self.graph.outputs)
        model = replay(new, lambda name, layer: layer)
        for chain in self.chains.values():
            for piece in chain:
                if piece.weights is not None:
                    piece.layer.set_weights(piece.weights)
        return Normalised(model, self.notes)

    def _emit(self, call: Call, new: Graph, moved: dict[int, int]) -> None:
        """Adds the chain of one call; an empty chain hands its input on."""
        if call.name not in self.chains:
            self.chains[call.name] = self._chain(call)
        chain = self.chains[call.name]
        if not chain:
            moved[call.outputs[0]] = moved[call.inputs[0]]
            return

        def move(leaf: Any) -> Any:
            return Ref(moved[leaf.index]) if isinstance(leaf, Ref) else leaf

        args, kwargs = map_structure(move, call.args), map_structure(move, call.kwargs)
        inputs = tuple(moved[i] for i in call.inputs)
        for place, piece in enumerate(chain):
            last = place == len(chain) - 1
            count = len(call.outputs) if last else 1
            numbers = tuple(range(len(new.tensors), len(new.tensors) + count))
            new.tensors.extend([Tensor((), "float32")] * count)
            new.calls.append(Call(piece.layer, piece.layer.name, args, kwargs, inputs, numbers))
            args, kwargs, inputs = (Ref(numbers[0]),), {}, numbers[:1]
        for old, number in zip(call.outputs, numbers, strict=True):
            moved[old] = number

    def name(self, base: str, suffix: str) -> str:
        """A layer name that is not taken."""
        name, n = f"{base}_{suffix}", 1
        while name in self.names:
            name, n = f"{base}_{suffix}_{n}", n + 1
        self.names.add(name)
        return name

    def note(self, layer: Any, text: str) -> None:
        self.notes.setdefault(layer.name, f"{type(layer).__name__} '{layer.name}': {text}")

    def _foldable(self) -> dict[str, Call]:
        """Batch norms that are folded before training, by name of the layer they go into.

        The converter does not fold a batch norm into FULLY_CONNECTED, TRANSPOSE_CONV or a 1-D
        convolution that carries quantizers: MUL and ADD would stay, in float.
        """
        found: dict[str, Call] = {}
        for call in self.graph.calls:
            if type(call.layer) is not keras.layers.BatchNormalization:
                continue
            before = self.sole_maker(call)
            if before is not None and type(before.layer) in FOLD_INTO:
                found[before.name] = call
        return found

    def sole_maker(self, call: Call) -> Call | None:
        """The linear layer call whose only reader is `call`; None where there is no such thing."""
        before = self.makers.get(call.inputs[0])
        if before is None or self.counts[before.name] > 1 or self.counts[call.name] > 1:
            return None
        alone = len(self.readers.get(call.inputs[0], [])) == 1
        linear = activation_name(before.layer) == "linear"
        return before if alone and linear and call.inputs[0] not in self.outputs else None

    def rank(self, call: Call) -> int:
        return len(self.graph.tensors[call.inputs[0]].shape)

    def _chain(self, call: Call) -> list[Piece]:
        chain = EXPANSIONS.get(type(call.layer), as_is)(self, call)
        if not self.outputs.intersection(call.outputs):
            return chain
        if not chain:  # A folded layer whose name is an output's.
            return [Piece(keras.layers.Activation("linear", name=call.name))]
        return self._keep_output_name(chain, call.name)

    def _keep_output_name(self, chain: list[Piece], name: str) -> list[Piece]:
        """The chain with its last layer under the name that the model's output has."""
        if chain[-1].layer.name == name:
            return chain
        inner = self.name(name, "core")
        for piece in chain[:-1]:
            if piece.layer.name == name:
                piece.layer = copy_layer(piece.layer, name=inner)
        chain[-1].layer = copy_layer(chain[-1].layer, name=name)
        return chain

"""Rewriting a traced model: each call becomes a chain of layers that computes the same.

The one engine for the normal form, for batch norm folding and for what quantization needs: a set of
expansions says what a call becomes; the rewriter keeps names unique, hands tensors on and builds
the new model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import library
from tfedge.graph.copying import copy_layer
from tfedge.graph.trace import Call, Graph, Ref, Tensor, map_structure, replay


@dataclass
class Piece:
    """One layer of a chain.

    Attributes:
        layer: A new layer (or any callable on symbolic tensors, under `name`).
        weights: What to set once it is built, in the order of `get_weights`; None for no weights.
        name: The layer's name; set by the rewriter where it is left out.
        takes: What the first layer of a chain is called with: "call" (the call's own arguments),
            "tensor" (the first tensor alone) or "list" (all tensors, as one list).
    """

    layer: Any
    weights: list[np.ndarray] | None = None
    name: str = ""
    takes: str = "call"


Expansion = Callable[["Rewriter", Call], "list[Piece]"]


def as_is(site: Rewriter, call: Call) -> list[Piece]:
    """A copy of the layer with its weights."""
    weights = call.layer.get_weights() if hasattr(call.layer, "get_weights") else None
    return [Piece(copy_layer(call.layer, name=call.name), weights or None, call.name)]


class Rewriter:
    """Rewrites one graph; expansions ask it about the network around a call.

    Args:
        graph: The traced model; its layers are not changed.
        expand: (rewriter, call) -> the chain for a call. The first layer of the chain takes the
            call's arguments, each other one the output of the one before. An empty chain hands the
            call's first input on.

    Attributes:
        notes: Layer name -> what was done to it and why.
        origin: Name of a layer of the new model -> name of the layer it was made of; of a small
            model in a chain, the names of the layers inside.
        renamed: Name that an expansion gave a layer -> the output's name that it bears instead.
    """

    def __init__(self, graph: Graph, expand: Expansion) -> None:
        self.graph, self._expand = graph, expand
        self.readers: dict[int, list[Call]] = {}
        for call in graph.calls:
            for number in call.inputs:
                self.readers.setdefault(number, []).append(call)
        self.makers = {t: c for c in graph.calls for t in c.outputs}
        self.counts = Counter(c.name for c in graph.calls)
        self.outputs = set(graph.output_refs())
        self.names = {c.name for c in graph.calls}
        self.notes: dict[str, str] = {}
        self.origin: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        self._chains: dict[str, list[Piece]] = {}

    def run(self) -> Any:
        """The rewritten model: a new model with the same inputs, outputs and names."""
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
        for chain in self._chains.values():
            for piece in chain:
                if piece.weights is not None:
                    piece.layer.set_weights(piece.weights)
                    if hasattr(piece.layer, "finalize_state"):  # Normalization
                        piece.layer.finalize_state()
        return model

    def _emit(self, call: Call, new: Graph, moved: dict[int, int]) -> None:
        """Adds the chain of one call; an empty chain hands its input on."""
        if call.name not in self._chains:
            self._chains[call.name] = self._chain(call)
            self._note_origin(call.name)
        chain = self._chains[call.name]
        if not chain:
            moved[call.outputs[0]] = moved[call.inputs[0]]
            return

        def move(leaf: Any) -> Any:
            return Ref(moved[leaf.index]) if isinstance(leaf, Ref) else leaf

        args, kwargs = map_structure(move, call.args), map_structure(move, call.kwargs)
        inputs = tuple(moved[i] for i in call.inputs)
        if chain[0].takes != "call":
            refs = [Ref(i) for i in inputs]
            args, kwargs = ((refs[0] if chain[0].takes == "tensor" else refs),), {}
        for place, piece in enumerate(chain):
            count = len(call.outputs) if place == len(chain) - 1 else 1
            numbers = tuple(range(len(new.tensors), len(new.tensors) + count))
            new.tensors.extend([Tensor((), "float32")] * count)
            new.calls.append(Call(piece.layer, piece.name, args, kwargs, inputs, numbers))
            args, kwargs, inputs = (Ref(numbers[0]),), {}, numbers[:1]
        for old, number in zip(call.outputs, numbers, strict=True):
            moved[old] = number

    def _note_origin(self, name: str) -> None:
        for piece in self._chains[name]:
            inner = [x.name for x in getattr(piece.layer, "layers", ())]
            self.origin |= dict.fromkeys(inner or [piece.name], name)

    def _chain(self, call: Call) -> list[Piece]:
        chain = self._expand(self, call)
        for piece in chain:
            piece.name = piece.name or piece.layer.name
        if not self.outputs.intersection(call.outputs):
            return chain
        if not chain:  # a layer that is gone, whose name is an output's
            return [Piece(self.identity(call), None, call.name, "tensor")]
        return self._keep_output_name(chain, call.name)

    def identity(self, call: Call) -> Any:
        """A layer under the call's name that does nothing."""
        return library(self.graph.flavour).layers.Activation("linear", name=call.name)

    def _keep_output_name(self, chain: list[Piece], name: str) -> list[Piece]:
        """The chain with its last layer under the name that the model's output has."""
        if chain[-1].name == name:
            return chain
        inner = self.name(name, "core")
        for piece in chain[:-1]:
            if piece.name == name:
                piece.layer, piece.name = copy_layer(piece.layer, name=inner), inner
        self.renamed[chain[-1].name] = name
        chain[-1].layer, chain[-1].name = copy_layer(chain[-1].layer, name=name), name
        return chain

    def name(self, base: str, suffix: str) -> str:
        """A layer name that is not taken."""
        name, n = f"{base}_{suffix}", 1
        while name in self.names:
            name, n = f"{base}_{suffix}_{n}", n + 1
        self.names.add(name)
        return name

    def note(self, layer: Any, text: str) -> None:
        """Records what was done to a layer; the first note of a layer stays."""
        self.notes.setdefault(layer.name, f"{type(layer).__name__} '{layer.name}': {text}")

    def sole_maker(self, call: Call) -> Call | None:
        """The call before, where it has no activation and `call` is its only reader."""
        before = self.makers.get(call.inputs[0]) if call.inputs else None
        if before is None or self.counts[before.name] > 1 or self.counts[call.name] > 1:
            return None
        alone = len(self.readers.get(call.inputs[0], [])) == 1
        linear = activation_name(before.layer) == "linear"
        return before if alone and linear and call.inputs[0] not in self.outputs else None

    def rank(self, call: Call) -> int:
        """Rank of the call's first input."""
        return len(self.graph.tensors[call.inputs[0]].shape)


def activation_name(layer: Any) -> str:
    """Name of a layer's activation function; "linear" where it has none."""
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear"
    return getattr(function, "__name__", type(function).__name__)

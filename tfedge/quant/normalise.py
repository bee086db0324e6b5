"""Rewrites a float network into an equal one whose every layer has an integer kernel.

Each rule of `expansions` turns one layer call into a chain of layers that computes the same: the
outputs of the rewritten float model equal the original's (up to float rounding).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfedge.graph.folding import find_foldable
from tfedge.graph.rewrite import Piece, Rewriter, as_is
from tfedge.graph.trace import Call, Graph
from tfedge.quant.expansions import EXPANSIONS, FOLD_INTO


@dataclass
class Normalised:
    """What `normalise` made.

    Attributes:
        model: The rewritten float model.
        notes: Layer name -> what was done to it and why.
    """

    model: Any
    notes: dict[str, str]


class Site(Rewriter):
    """The rewriter that knows which batch norms go into the layer before them.

    The converter does not fold a batch norm into FULLY_CONNECTED, TRANSPOSE_CONV or a 1-D
    convolution that carries quantizers: MUL and ADD would stay, in float.

    Attributes:
        folded: Calls of batch norms, by name of the layer they go into.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, _expand)
        self.folded = find_foldable(self, lambda layer: type(layer) in FOLD_INTO)


def _expand(site: Rewriter, call: Call) -> list[Piece]:
    return EXPANSIONS.get(type(call.layer), as_is)(site, call)


def normalise(graph: Graph) -> Normalised:
    """Rewrites a traced tf_keras model; see the module's rules.

    Args:
        graph: Traced from a model whose layers `refusals` found no fault with.

    Returns:
        An independent float model (new layers, copied weights) with the same inputs, outputs and
        names, and the notes.
    """
    site = Site(graph)
    return Normalised(site.run(), site.notes)

"""Rewrites a float network into an equal one whose every layer has an integer kernel.

Each rule of `expansions` turns one layer call into a chain of layers (or a small model, whose
layers then stand in its place) that computes the same: the outputs of the rewritten float model
equal the original's (up to float rounding). Operations become layers first, where there is one;
before that, `composites` writes in simpler layers what no kernel computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tfedge.graph.canonical import unwrap
from tfedge.graph.folding import find_foldable
from tfedge.graph.rewrite import Piece, Rewriter, as_is
from tfedge.graph.trace import Call, Graph
from tfedge.quant.composites import written_out
from tfedge.quant.expansions import EXPANSIONS, FOLD_INTO
from tfedge.quant.placement import FLOAT
from tfedge.quant.treatment import Treatment, explained, overridden, refuse, treatments
from tfedge.schemes import get_scheme


@dataclass
class Normalised:
    """What `normalise` made.

    Attributes:
        model: The rewritten float model.
        schemes: Scheme of each of its layers, by name.
        notes: Layer name -> what was done to it and why.
        refused: One line a layer that does not get the scheme that was asked for.
        caveats: One line a layer that trains otherwise than in the float model.
        origin: Name of each of its layers -> name of the layer that it came from.
    """

    model: Any
    schemes: dict[str, str]
    notes: dict[str, str]
    refused: list[str]
    caveats: list[str]
    origin: dict[str, str]


class Site(Rewriter):
    """The rewriter that knows which batch norms go into the layer before them.

    The converter does not fold a batch norm into FULLY_CONNECTED, TRANSPOSE_CONV or a 1-D
    convolution that carries quantizers: MUL and ADD would stay, in float.

    Attributes:
        treatments: What happens to each layer of the graph.
        folded: Calls of batch norms, by name of the layer they go into.
        floats: Layers of chains that stay float.
        identities: Number of identity convolutions that were made.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, _expand)
        self.treatments: dict[str, Treatment] = {}
        self.folded: dict[str, Call] = {}
        self.floats: set[str] = set()
        self.identities = 0

    def treat(self, scheme: str, given: Mapping[str, str], reasons: Mapping[str, str]) -> None:
        """Decides on every layer (see `treatment.treatments`)."""
        self.treatments = treatments(self, scheme, given, reasons)
        pairs = find_foldable(self, lambda layer: type(layer) in FOLD_INTO)
        self.folded = {n: c for n, c in pairs.items() if self.bits(n) == self.bits(c.name)}

    def scheme(self, name: str) -> str:
        """The scheme that a layer of the graph gets."""
        return self.treatments[name].scheme

    def bits(self, name: str) -> int:
        """Activation bits of a layer of the graph; 0 where it stays float."""
        scheme = self.scheme(name)
        return 0 if scheme == FLOAT else get_scheme(scheme).activation_bits


def _expand(site: Rewriter, call: Call) -> list[Piece]:
    if not isinstance(site, Site) or site.scheme(call.name) == FLOAT:
        return as_is(site, call)
    if type(call.layer) in EXPANSIONS:
        return EXPANSIONS[type(call.layer)](site, call)
    pieces = unwrap(site, call)
    if len(pieces) != 1 or type(pieces[0].layer) not in EXPANSIONS:
        return pieces or as_is(site, call)
    layer = pieces[0].layer
    chain = EXPANSIONS[type(layer)](site, replace(call, layer=layer))
    if chain:
        chain[0].takes = pieces[0].takes
    return chain


def normalise(
    graph: Graph,
    scheme: str = "w8a8",
    overrides: Mapping[str, str] | None = None,
    strict: bool = False,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Normalised:
    """Rewrites a traced tf_keras model; see the module's rules.

    Args:
        graph: Traced from a float model.
        scheme: Scheme of the layers that `overrides` do not name.
        overrides: Scheme by layer name or expression.
        strict: Whether a layer that does not get its scheme is an error.
        bounds: Smallest and largest divisor by name of a call that divides (see `divisors`).

    Returns:
        An independent float model (new layers, copied weights) with the same inputs, outputs and
        names, and what happens to each of its layers.

    Raises:
        InputError: Overrides that do not fit.
        ModelError: With `strict`: the layers that do not get their scheme.
    """
    names = list(dict.fromkeys(c.name for c in graph.calls))
    written = written_out(graph, scheme, overridden(names, overrides or {}), bounds)
    site = Site(written.graph)
    site.treat(scheme, written.schemes, written.reasons)
    refused = explained(site, site.treatments)
    if strict:
        refuse(refused)
    model = site.run()
    schemes = {name: site.scheme(old) for name, old in site.origin.items()}
    schemes |= {site.renamed.get(n, n): FLOAT for n in site.floats}
    caveats = list(written.caveats.values())
    origin = {new: written.origin[old] for new, old in site.origin.items()}
    return Normalised(model, schemes, {**written.notes, **site.notes}, refused, caveats, origin)

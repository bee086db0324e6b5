"""Layers without an integer kernel written in simpler ones that have kernels; which, and how.

Each form computes the same as the layer, in float. The table goes by class, or by the function of
an operation. A form may hold layers that have forms themselves (a bidirectional layer holds two
LSTMs): `written_out` goes on until none is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tfedge.graph.canonical import symbol_of, unwrap
from tfedge.graph.rewrite import Piece, Rewriter, as_is
from tfedge.graph.trace import Call, Graph, trace
from tfedge.quant.composite_activations import ACTIVATION_OPS, ACTIVATIONS
from tfedge.quant.composite_attention import ATTENTIONS
from tfedge.quant.composite_constants import CONSTANT_OPS
from tfedge.quant.composite_division import DIVISION_OPS
from tfedge.quant.composite_norms import NORMS, layer_scale
from tfedge.quant.composite_places import PLACES
from tfedge.quant.composite_products import PRODUCT_OPS, PRODUCTS
from tfedge.quant.composite_recurrent import RECURRENT
from tfedge.quant.composite_shapes import SHAPE_OPS, SHAPES, custom_scale
from tfedge.quant.merging import merged
from tfedge.quant.placement import FLOAT
from tfedge.quant.sketch import NoForm, Sketch
from tfedge.schemes import get_scheme

Form = Callable[[Sketch], "list[Piece]"]


FORMS: dict[type, Form] = {
    **ACTIVATIONS,
    **ATTENTIONS,
    **NORMS,
    **PLACES,
    **PRODUCTS,
    **RECURRENT,
    **SHAPES,
}
"""The form of a layer by exact class; an empty list leaves the layer as it is."""

NAMED_FORMS: dict[str, Form] = {"LayerScale": layer_scale, "CustomScaleLayer": custom_scale}
"""Likewise of the layers that live in the applications modules, by class name."""

OP_FORMS: dict[str, Form] = {
    **ACTIVATION_OPS,
    **CONSTANT_OPS,
    **DIVISION_OPS,
    **PRODUCT_OPS,
    **SHAPE_OPS,
}
"""Likewise of operations, by the name of their function (see `canonical.symbol_of`)."""


@dataclass
class Written:
    """What `written_out` made.

    Attributes:
        graph: The graph with simpler layers.
        schemes: Scheme asked for, by name of a layer in it (where one is asked for by name).
        notes: Layer name -> what was done to it.
        reasons: Layer name -> why it could not be written out.
        caveats: Layer name -> what it does otherwise in training, written out.
        origin: Name of a layer in it -> name of the layer that it came from.
    """

    graph: Graph
    schemes: dict[str, str]
    notes: dict[str, str]
    reasons: dict[str, str]
    caveats: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)


def written_out(
    graph: Graph,
    scheme: str,
    given: Mapping[str, str],
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Written:
    """Writes every layer out that has a form.

    Args:
        graph: Traced from a float model.
        scheme: Scheme of the layers that `given` does not name.
        given: Scheme by layer name.
        bounds: Smallest and largest divisor by name of a call that divides.
    """
    written = Written(graph, dict(given), {}, {})
    written.origin = {c.name: c.name for c in graph.calls}
    for _ in range(_DEPTH):
        if not _round(written, scheme, bounds or {}):
            break
    return written


_DEPTH = 8  # Forms of forms of forms; more would be a circle.


def _round(written: Written, scheme: str, bounds: Mapping[str, tuple[float, float]]) -> bool:
    """Writes out the layers that have forms; False where there are none."""
    chains: dict[str, list[Piece] | None] = {}

    def expand(site: Rewriter, call: Call) -> list[Piece]:
        chain = chains.get(call.name, [])
        return [] if chain is None else chain or as_is(site, call)

    site = Rewriter(written.graph, expand)
    chains |= merged(site, written.schemes)
    for call in written.graph.calls:
        asked = written.schemes.get(call.name, scheme)
        if call.name not in chains and asked != FLOAT and call.name not in written.reasons:
            try:
                bits = get_scheme(asked).activation_bits
                sketch = Sketch(site, _inner(site, call), bits, bounds.get(call.name))
                chains[call.name] = _form(sketch, call)
                if sketch.caveat:
                    kind = type(sketch.layer).__name__
                    written.caveats[call.name] = f"'{call.name}' ({kind}): {sketch.caveat}"
            except NoForm as reason:
                written.reasons[call.name] = str(reason)
    if not any(chain or chain is None for chain in chains.values()):
        return False
    asked_for = written.schemes
    written.graph = trace(site.run())
    written.schemes = {new: asked_for[old] for new, old in site.origin.items() if old in asked_for}
    written.origin = {new: written.origin[old] for new, old in site.origin.items()}
    written.notes |= {k: v for k, v in site.notes.items() if k not in written.notes}
    return True


def _inner(site: Rewriter, call: Call) -> Call:
    """The call with the layer that its operation becomes, where there is one."""
    pieces = unwrap(site, call)
    return replace(call, layer=pieces[0].layer) if len(pieces) == 1 else call


def _form(sketch: Sketch, call: Call) -> list[Piece]:
    """The chain for a call, or an empty one."""
    kind = type(sketch.layer)
    form = FORMS.get(kind) or OP_FORMS.get(symbol_of(call.layer))
    if form is None and kind.__module__.split(".")[0] in ("tf_keras", "tfedge"):
        form = NAMED_FORMS.get(kind.__name__)
    if form is None or not call.inputs:
        return []
    chain = form(sketch)
    if chain:
        is_layer = sketch.call is not call or not symbol_of(call.layer)
        what = kind.__name__ if is_layer else "operation"
        sketch.site.notes.setdefault(
            call.name, f"{what} '{call.name}': written in simpler layers, which have kernels"
        )
    return chain

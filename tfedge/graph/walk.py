"""Runs the rules over the calls of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.errors import TfedgeError
from tfedge.graph.labels import NEVER, Marks, unlabelled
from tfedge.graph.registry import is_own_rule, rule_for
from tfedge.graph.site import Nested, Site, Table
from tfedge.graph.trace import Call, Graph, trace

# What a rule that meets a use of its layer it was not written for may raise.
_FAILURES = (ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError)


def walk(
    table: Table, graph: Graph, known: dict[int, Marks], owner: Call | None = None
) -> dict[int, Marks]:
    """Runs the rule of every call.

    Args:
        table: Where the rules write.
        graph: The traced model.
        known: Marks of the graph's inputs by tensor number; those of all tensors are added.
        owner: The wrapper's call, where the graph is a model inside a wrapper.

    Returns:
        `known`.

    Raises:
        ModelError: A user's rule is wrong.
    """
    for call in graph.calls:
        site = Site(table, graph, call, [known[i] for i in call.inputs])
        site.owner = owner or call
        known.update(zip(call.outputs, _apply(site), strict=True))
    return known


def walk_nested(site: Site) -> list[Marks]:
    """The rules of a model inside a wrapper, whose weights are the wrapper's."""
    key = (site.name, site.prefix.removesuffix(".config."))
    if key not in site.table.nested:
        site.table.nested[key] = Nested(trace(site.layer), site.table.inner())
    nested = site.table.nested[key]
    marks = dict(zip(nested.graph.inputs, site.inputs, strict=True))
    walk(nested.table, nested.graph, marks, site.owner)
    nested.marks |= marks
    return [marks[i] for i in nested.graph.output_refs()]


def _apply(site: Site) -> list[Marks]:
    """One rule's result, checked; a rule that fails blocks what it touched."""
    rule = rule_for(site.layer)
    issued = len(site.table.labels)
    own = is_own_rule(rule)
    try:
        results = checked(site, rule(site))
        _regularized(site, results[0])
        return results
    except (TfedgeError, *_FAILURES) as e:
        if not own and isinstance(e, TfedgeError):
            raise
        text = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
        if not own:
            raise site.wrong(text, "The rule raised this error") from e
        reason = f"is used in a way that its rule does not know ({text})"
        site.block(np.arange(issued, len(site.table.labels)), reason)
        return site.block_inputs(reason)


def _regularized(site: Site, marks: Marks) -> None:
    """Blocks what enters a user's activity regularizer that does not run with fewer channels."""
    function = getattr(site.layer, "activity_regularizer", None)
    own = type(function).__module__.split(".")[0] in ("keras", "tf_keras")
    if function is None or own or not marks.axes:
        return
    shape = [1, *(d or 8 for d in site.out_shapes[0][1:])]
    smaller = [max(1, d - (a in marks.axes)) for a, d in enumerate(shape)]
    try:
        function(tf.zeros(smaller))
    except Exception:  # noqa: BLE001 - whatever a user's function says of a shape
        name = getattr(function, "__name__", type(function).__name__)
        site.block(marks, f"has the activity regularizer '{name}', which wants all its channels")


def checked(site: Site, result: Any) -> list[Marks]:
    """A rule's result as one `Marks` an output.

    Raises:
        ModelError: The result does not fit the outputs.
    """
    results = result if isinstance(result, list) else [result]
    if len(results) != len(site.out_shapes):
        raise site.wrong(f"{len(results)} results for {len(site.out_shapes)} outputs")
    out = []
    for marks, shape in zip(results, site.out_shapes, strict=True):
        if not isinstance(marks, Marks):
            marks = _as_marks(site, marks)
        for plane in marks.planes:
            _check_plane(site, plane, shape)
        out.append(marks if marks.planes else unlabelled(len(shape)))
    return out


def _as_marks(site: Site, labels: Any) -> Marks:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise site.wrong(
            f"a result of type {type(labels).__name__}", "Return the Marks of each output"
        )
    return Marks.of([array], array.ndim)


def _check_plane(site: Site, plane: np.ndarray, shape: tuple[int | None, ...]) -> None:
    fits = plane.ndim == len(shape) and all(
        n == 1 or d is None or n == d for n, d in zip(plane.shape, shape, strict=True)
    )
    if not fits:
        raise site.wrong(
            f"labels of shape {plane.shape} for an output of shape {tuple(shape)}",
            "Return labels that broadcast to the output's shape",
        )
    if plane.max() >= len(site.table.labels) or plane.min() < NEVER:
        raise site.wrong(
            f"label {plane.max()} of {len(site.table.labels)}",
            "Use only labels of site.inputs and site.new()",
        )

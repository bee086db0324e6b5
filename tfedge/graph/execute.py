"""Runs a traced model call by call on concrete tensors, so that what is inside can be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tfedge._keras import tf
from tfedge.errors import InputError
from tfedge.graph.trace import Call, Graph, Ref, flatten, map_structure


def execute(graph: Graph, inputs: Any) -> Iterator[tuple[Call, list[Any], list[Any]]]:
    """Runs the calls of a graph in order, in inference mode.

    Args:
        graph: What `trace` returned; its own layers are run.
        inputs: One array, a list in the order of the model's inputs, or a dict by input name.

    Yields:
        (call, its input tensors, its output tensors); a tensor is dropped after its last use.

    Raises:
        InputError: The inputs are not those of the model.
    """
    values = dict(zip(graph.inputs, feeds(graph, inputs), strict=True))
    last_use = {i: n for n, call in enumerate(graph.calls) for i in call.inputs}
    for number, call in enumerate(graph.calls):
        outputs = call_on(call, values)
        values.update(zip(call.outputs, outputs, strict=True))
        yield call, [values[i] for i in call.inputs], outputs
        for i in {i for i in call.inputs if last_use[i] == number}:
            del values[i]


def feeds(graph: Graph, inputs: Any) -> list[Any]:
    """The model's inputs as tensors of the right dtype, in the order of `graph.inputs`.

    Raises:
        InputError: Names or number of the inputs differ from the model's.
    """
    if isinstance(inputs, Mapping) and set(graph.input_names) <= set(inputs):
        flat = [inputs[n] for n in graph.input_names]
    else:
        flat = flatten(inputs) if isinstance(inputs, (Mapping, list, tuple)) else [inputs]
    if len(flat) != len(graph.inputs):
        raise InputError(
            f"the model has {len(graph.inputs)} inputs ({', '.join(graph.input_names)})",
            f"{len(flat)} of them",
        )
    return [
        tf.cast(tf.convert_to_tensor(value), graph.tensors[i].dtype)
        for value, i in zip(flat, graph.inputs, strict=True)
    ]


def run_on(graph: Graph, values: dict[int, Any], anew: set[int]) -> None:
    """Runs some calls anew, and all that read what they give.

    Args:
        graph: What `trace` returned.
        values: Tensor by number, of a whole run; updated in place.
        anew: Positions of the calls.
    """
    changed: set[int] = set()
    for position in range(min(anew), len(graph.calls)):
        call = graph.calls[position]
        if position in anew or not changed.isdisjoint(call.inputs):
            values.update(zip(call.outputs, call_on(call, values), strict=True))
            changed.update(call.outputs)


def call_on(call: Call, values: Mapping[int, Any]) -> list[Any]:
    """Runs one call.

    Args:
        call: Of a traced model.
        values: Its input tensors by number.

    Returns:
        Its output tensors, flattened.
    """

    def to_tensor(leaf: Any) -> Any:
        return values[leaf.index] if isinstance(leaf, Ref) else leaf

    args, kwargs = map_structure(to_tensor, call.args), map_structure(to_tensor, call.kwargs)
    kwargs = {k: v for k, v in kwargs.items() if v is not None or k != "training"}
    return flatten(call.layer(*args, **kwargs))

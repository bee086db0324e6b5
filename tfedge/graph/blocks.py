"""Residual blocks: parts of a graph that can go as a whole, because a shortcut goes around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tfedge.errors import ModelError, did_you_mean
from tfedge.graph.trace import Call, Graph, Ref, flatten, map_structure

_SUMS = frozenset({"math.add", "__operators__.add"})


@dataclass(frozen=True)
class ResidualBlock:
    """A branch that is added to its own input: y = x + f(x). Without it, y = x.

    Attributes:
        name: Name of the layer (or operation) that adds.
        layers: Names of the layers of f, in execution order.
        shortcut: Tensor number of x.
        output: Tensor number of y.
    """

    name: str
    layers: tuple[str, ...]
    shortcut: int
    output: int

    def __str__(self) -> str:
        """One line."""
        return f"{self.name}: {' '.join(self.layers)}"


def residual_blocks(graph: Graph) -> list[ResidualBlock]:
    """Finds every sum of a tensor and a branch that depends on that tensor alone.

    Shapes and dtypes of x and y agree, and nothing outside the block reads what is inside it. A
    block may lie inside a larger one. Sums by one shared Add layer are left out: a name would not
    say which of them is meant.

    Args:
        graph: A traced model.

    Returns:
        The blocks in execution order.
    """
    calls_of = Counter(c.name for c in graph.calls)
    makers = {t: c for c in graph.calls for t in c.outputs}
    readers: dict[int, list[Call]] = {}
    for call in graph.calls:
        for i in set(call.inputs):
            readers.setdefault(i, []).append(call)
    outputs = set(graph.output_refs())
    found = []
    for total in graph.calls:
        if not _is_sum(total) or calls_of[total.name] > 1:
            continue
        for shortcut in dict.fromkeys(total.inputs):
            branch = _branch(total, shortcut, makers)
            inside = {t for c in branch for t in c.outputs}
            last = {*(id(c) for c in branch), id(total)}
            private = not inside & outputs and all(
                id(r) in last for t in inside for r in readers.get(t, [])
            )
            if branch and private and graph.tensors[shortcut] == graph.tensors[total.outputs[0]]:
                order = [c.name for c in graph.calls if any(c is b for b in branch)]
                names = tuple(dict.fromkeys(order))
                found.append(ResidualBlock(total.name, names, shortcut, total.outputs[0]))
                break
    return found


def _is_sum(call: Call) -> bool:
    """True for a sum of exactly two tensors, in any of its spellings."""
    layer = call.layer
    if len(call.inputs) != 2 or len(call.outputs) != 1:
        return False
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return layer.get_config()["function"] in _SUMS
    return type(layer).__name__ == "Add"


def _branch(total: Call, shortcut: int, makers: dict[int, Call]) -> list[Call]:
    """The calls between a shortcut and a sum; empty where something else enters the branch."""
    if total.inputs.count(shortcut) != 1:
        return []
    found: list[Call] = []
    todo = [i for i in total.inputs if i != shortcut]
    seen = {shortcut}
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        call = makers.get(number)
        if call is None or not call.inputs:  # a model input, or a source of its own
            return []
        if not any(call is c for c in found):
            found.append(call)
        todo.extend(call.inputs)
    return found


def without_blocks(graph: Graph, names: list[str]) -> Graph:
    """The graph in which the named residual blocks do not exist.

    Args:
        graph: A traced model.
        names: Names of the sums (`ResidualBlock.name`).

    Raises:
        ModelError: No block of that name, or one whose sum is an output of the model.
    """
    blocks = {b.name: b for b in residual_blocks(graph)}
    for name in names:
        if name not in blocks:
            raise ModelError(
                "the model has no residual block of this name", f"'{name}'",
                did_you_mean(name, blocks) if blocks else "It has no residual block at all",
            )  # fmt: skip
    moved = {blocks[n].output: blocks[n].shortcut for n in names}
    outputs = set(graph.output_refs())

    def source(i: int) -> int:
        while i in moved:
            i = moved[i]
        return i

    def move(leaf: Any) -> Any:
        return Ref(source(leaf.index)) if isinstance(leaf, Ref) else leaf

    kept = replace(
        graph,
        calls=[
            replace(
                c,
                args=map_structure(move, c.args),
                kwargs=map_structure(move, c.kwargs),
                inputs=tuple(source(i) for i in c.inputs),
            )
            for c in graph.calls
            if c.outputs[0] not in moved
        ],
        outputs=map_structure(move, graph.outputs),
    )
    lost = outputs & set(moved)
    if lost:
        raise ModelError(
            "a residual block whose sum is an output of the model cannot go",
            ", ".join(n for n in names if blocks[n].output in lost),
            "The output would be another layer's",
        )
    return replace(kept, calls=list(_alive(kept)))


def _alive(graph: Graph) -> Iterator[Call]:
    """The calls that an output of the model depends on."""
    needed = {r.index for r in flatten(graph.outputs)}
    kept = []
    for call in reversed(graph.calls):
        if needed & set(call.outputs):
            needed |= set(call.inputs)
            kept.append(call)
    return reversed(kept)

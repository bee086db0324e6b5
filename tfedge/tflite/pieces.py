"""What a fix touches: which ops, and the file of those ops alone, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.tflite import flatbuffer
from tfedge.tflite.editing import Only
from tfedge.tflite.fixes import Fix
from tfedge.tflite.rewrite import compact


@dataclass(frozen=True)
class Change:
    """A fix tried on a file.

    Attributes:
        places: How many places the fix says it changed.
        old: Positions of the ops that it dropped or changed, in the file before.
        new: Positions of the ops that it made or changed, in the file after.
        data: The file after; its tensors bear the numbers of the file before.
    """

    places: int
    old: tuple[int, ...] = ()
    new: tuple[int, ...] = ()
    data: bytes = b""


def attempt(data: bytes, fix: Fix, only: Only = None, *, keep: bool = True) -> Change:
    """Applies a fix to a copy of a file.

    Args:
        data: The whole file.
        fix: One of `fixes.FIXES`.
        only: Positions of the ops that it may rewrite; None for all.
        keep: False leaves the new file out, where only the places are wanted.
    """
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    before = list(graph.operators or [])
    looks = [_look(op) for op in before]
    places = fix(model, only)
    if not places:
        return Change(0)
    after = {id(op): i for i, op in enumerate(graph.operators)}
    changed = {id(op) for op, look in zip(before, looks, strict=True) if _look(op) != look}
    old = [i for i, op in enumerate(before) if id(op) not in after or id(op) in changed]
    kept = {id(op) for op in before} - changed
    new = [i for i, op in enumerate(graph.operators) if id(op) not in kept]
    return Change(places, tuple(old), tuple(new), flatbuffer.write(model) if keep else b"")


def _look(op: Any) -> tuple[Any, ...]:
    options = None if op.builtinOptions is None else repr(sorted(vars(op.builtinOptions).items()))
    return (_numbers(op.inputs), _numbers(op.outputs), options)


def pieces(before: bytes, change: Change) -> tuple[bytes, bytes]:
    """The touched ops alone, as two files with the same inputs and outputs.

    Args:
        before: The file before.
        change: What `attempt` gave for it.

    Returns:
        (before, after). Their inputs are the tensors that either reads and does not make, their
        outputs those that both make.
    """
    models = [flatbuffer.read(before), flatbuffer.read(change.data)]
    made, read = [], []
    for model, places in zip(models, (change.old, change.new), strict=True):
        graph = model.subgraphs[0]
        graph.operators = [graph.operators[i] for i in places]
        made.append({t for op in graph.operators for t in _numbers(op.outputs) if t >= 0})
        inner = {t for op in graph.operators for t in _numbers(op.inputs) if t >= 0} - made[-1]
        read.append({t for t in inner if not _constant(model, graph.tensors[t])})
    inputs, outputs = sorted(read[0] | read[1]), sorted(made[0] & made[1])
    files = [_cut(model, inputs, outputs) for model in models]
    return files[0], files[1]


def _cut(model: Any, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = list(inputs), list(outputs)
    model.signatureDefs = None
    compact(model)
    return flatbuffer.write(model)


def _constant(model: Any, tensor: Any) -> bool:
    raw = model.buffers[tensor.buffer].data
    return (raw is not None and len(raw) > 0) or bool(tensor.isVariable)


def _numbers(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(int(v) for v in np.ravel(values))

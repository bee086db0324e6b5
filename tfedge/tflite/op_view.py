"""One op of a file with what the rules about it look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.errors import InputError
from tfedge.tflite import flatbuffer

_SMALL = 32


class NoOptions:
    """Options of an op that bears none: the schema's defaults, which are 0."""

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0


@dataclass(frozen=True)
class OpView:
    """One op with what the rules look at.

    Attributes:
        name: Builtin operator name, or a custom op's own.
        inputs: Input tensors; None where an optional one is absent.
        outputs: Output tensors.
        options: The op's builtin options; None or `NoOptions` where it has none.
        static: For each input, True where it is absent or its value is fixed: constant data, or
            constants that a DEQUANTIZE or DENSIFY unpacks.
        small: For each input, its value where it is a constant of at most 32 integers, else None.
        custom: True for an op that is none of the runtime's builtin ones.
    """

    name: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    options: Any
    static: tuple[bool, ...]
    small: tuple[np.ndarray | None, ...] = ()
    custom: bool = False

    def fixed(self, position: int) -> bool:
        """True where an input is absent or its value is fixed."""
        return position >= len(self.static) or self.static[position]

    def dtype(self, position: int) -> str:
        """Dtype name of an input, or "" where it is absent."""
        tensor = self.inputs[position] if position < len(self.inputs) else None
        return "" if tensor is None else flatbuffer.tensor_dtype(tensor)

    def value(self, position: int) -> np.ndarray | None:
        """A small integer constant, or None."""
        return self.small[position] if position < len(self.small) else None

    @property
    def activations(self) -> list[str]:
        """Dtypes of the outputs and of the inputs that are not constant."""
        moving = [t for t, static in zip(self.inputs, self.static, strict=True) if not static]
        return [flatbuffer.tensor_dtype(t) for t in (*moving, *self.outputs)]


def views(model: Any) -> Iterator[OpView]:
    """Gathers what the rules look at, for the main subgraph's ops in execution order.

    Args:
        model: What `flatbuffer.read` gave.
    """
    graph = model.subgraphs[0]
    fixed = {-1}
    for t, tensor in enumerate(graph.tensors or []):
        raw = model.buffers[tensor.buffer].data
        if raw is not None and len(raw):
            fixed.add(t)
    for op in graph.operators or []:
        found = _view(model, graph, op, fixed)
        if found.name in ("DEQUANTIZE", "DENSIFY") and all(found.static):
            fixed.update(int(t) for t in op.outputs)
        yield found


def _view(model: Any, graph: Any, op: Any, fixed: set[int]) -> OpView:
    inputs = [] if op.inputs is None else [int(t) for t in op.inputs]
    outputs = [] if op.outputs is None else [int(t) for t in op.outputs]
    return OpView(
        name=flatbuffer.op_name(model, op),
        inputs=tuple(graph.tensors[t] if t >= 0 else None for t in inputs),
        outputs=tuple(graph.tensors[t] for t in outputs if t >= 0),
        options=NoOptions() if op.builtinOptions is None else op.builtinOptions,
        static=tuple(t in fixed for t in inputs),
        small=tuple(_small(model, graph.tensors[t]) if t >= 0 else None for t in inputs),
        custom=bool(flatbuffer.text(model.operatorCodes[op.opcodeIndex].customCode)),
    )


def _small(model: Any, tensor: Any) -> np.ndarray | None:
    if flatbuffer.tensor_dtype(tensor) not in ("int32", "int64"):
        return None
    try:
        found = flatbuffer.tensor_data(model, tensor)
    except InputError:  # A constant whose size does not fit its shape says nothing.
        return None
    return found if found is not None and found.size <= _SMALL else None

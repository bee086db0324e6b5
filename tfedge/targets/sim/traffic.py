"""Bytes that each op of a file has to fetch from memory, or to write there.

Caches are taken as ideal: what fits stays. Where the whole file's weights and the largest op's
activations fit into the last cache, nothing is fetched. Else the weights of each op come from
memory in every inference, for the others have driven them out; its activations do so only where
they do not fit into the cache together with the op's weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.tflite import flatbuffer


def op_traffic(data: bytes, cache_bytes: int) -> dict[int, int]:
    """Bytes to and from memory by the op's position in the main subgraph.

    Args:
        data: The whole file. Free axes count as the file stores them.
        cache_bytes: Size of the last cache.

    Returns:
        All ops; those in loops are not looked into.

    Raises:
        InputError: It is no TFLite file.
    """
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    weights, sizes = _fixed(model, graph), [_size(model, t) for t in graph.tensors]
    rows: list[tuple[int, int]] = []
    for op in graph.operators or []:
        used = {int(i) for i in (*_list(op.inputs), *_list(op.outputs)) if i >= 0}
        own = sum(sizes[i] for i in used & weights)
        rows.append((own, sum(sizes[i] for i in used - weights)))
    whole = sum(sizes[i] for i in weights) + max((moved for _, moved in rows), default=0)
    if whole <= cache_bytes:
        return dict.fromkeys(range(len(rows)), 0)
    return {
        i: own + (moved if own + moved > cache_bytes else 0) for i, (own, moved) in enumerate(rows)
    }


def _fixed(model: Any, graph: Any) -> set[int]:
    """Tensors that are the same in every inference: stored, or made of stored ones only."""
    found = {i for i, tensor in enumerate(graph.tensors) if _stored(model, tensor)}
    for op in graph.operators or []:
        inputs = [int(i) for i in _list(op.inputs) if i >= 0]
        if inputs and all(i in found for i in inputs):
            found |= {int(i) for i in _list(op.outputs)}
    return found


def _stored(model: Any, tensor: Any) -> int:
    """Bytes that the file stores of a tensor."""
    raw = model.buffers[tensor.buffer].data
    return 0 if raw is None else len(raw)


def _size(model: Any, tensor: Any) -> int:
    """Bytes of a tensor; 0 for what has no fixed size (text, resources)."""
    if stored := _stored(model, tensor):
        return stored
    try:
        width = np.dtype(flatbuffer.tensor_dtype(tensor)).itemsize
    except TypeError:
        return 0
    return width * int(np.prod([max(1, int(n)) for n in _list(tensor.shape)], dtype=np.int64))


def _list(values: Any) -> list[int]:
    return [] if values is None else list(values)

"""Layer pruning: whole residual blocks go, because their shortcut goes around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.errors import InputError
from tfedge.graph import Graph, ResidualBlock, rebuild, trace, without_blocks
from tfedge.graph import residual_blocks as _find
from tfedge.graph.execute import execute
from tfedge.prune.measured import batches_of


def residual_blocks(model: Any) -> list[ResidualBlock]:
    """Lists the residual blocks of a model that can be removed, in execution order.

    Args:
        model: A built functional or sequential model of either Keras.

    Raises:
        ModelError: The model cannot be traced.
    """
    return _find(trace(model))


def remove_blocks(
    model: Any, blocks: Sequence[str] | int, data: Any = None, batches: int = 8
) -> Any:
    """Removes whole residual blocks: y = x + f(x) becomes y = x.

    Args:
        model: A built functional or sequential model of either Keras; it is not changed.
        blocks: Names of blocks (the layers that add, see `residual_blocks`), or how many go: those
            of the smallest `block_influence` on `data`.
        data: Inputs, where a number is given: arrays, (x, y), or batches.
        batches: How many batches of `data` are used at most.

    Returns:
        A new model of the same Keras, not compiled; all other layers keep name and weights.

    Raises:
        ModelError: A block that does not exist.
        InputError: More blocks than there are, or a number without data.
    """
    names = choose_blocks(model, blocks, data, batches)
    return rebuild(without_blocks(trace(model), names))


def choose_blocks(
    model: Any, blocks: Sequence[str] | int, data: Any = None, batches: int = 8
) -> list[str]:
    """The names of the blocks that `remove_blocks` would remove, with the same arguments."""
    if not isinstance(blocks, int):
        return [blocks] if isinstance(blocks, str) else list(blocks)
    graph = trace(model)
    outputs = set(graph.output_refs())
    free = [b for b in _find(graph) if b.output not in outputs]
    if not 0 <= blocks <= len(free):
        raise InputError(
            f"the model has {len(free)} residual blocks that can go", f"{blocks} were asked for"
        )
    if data is None:
        raise InputError("choosing blocks needs data", fix="Pass data, or the names of blocks")
    scores = _influence(graph, free, data, batches)
    return sorted(scores, key=lambda name: scores[name])[:blocks]


def block_influence(model: Any, data: Any, batches: int = 8) -> dict[str, float]:
    """How much each residual block changes what passes it: 1 - cos(x, x + f(x)).

    The cosine is taken per sample over the flattened tensors and averaged (Men et al. 2024,
    "ShortGPT", there per token). 0: the block changes nothing but the scale.

    Args:
        model: A built functional or sequential model of either Keras.
        data: Inputs: arrays, (x, y), or batches.
        batches: How many batches are used at most.

    Returns:
        Influence, 0 to 2, by block name.
    """
    graph = trace(model)
    return _influence(graph, _find(graph), data, batches)


def _influence(
    graph: Graph, blocks: list[ResidualBlock], data: Any, batches: int
) -> dict[str, float]:
    ends = {b.output: b for b in blocks}
    scores: dict[str, list[np.ndarray]] = {b.name: [] for b in blocks}
    for batch in batches_of(data, 16, batches):
        for call, inputs, outputs in execute(graph, batch[0]):
            block = ends.get(call.outputs[0])
            if block is not None:
                shortcut = inputs[call.inputs.index(block.shortcut)]
                scores[block.name].append(1.0 - _cosine(shortcut, outputs[0]))
    return {name: float(np.concatenate(rows).mean()) for name, rows in scores.items()}


def _cosine(a: Any, b: Any) -> np.ndarray:
    """Cosine of two tensors per sample, [batch]."""
    flat = [tf.reshape(tf.cast(t, tf.float32), (tf.shape(t)[0], -1)) for t in (a, b)]
    unit = [tf.math.l2_normalize(t, axis=1) for t in flat]
    return np.asarray(tf.reduce_sum(unit[0] * unit[1], axis=1), np.float64)

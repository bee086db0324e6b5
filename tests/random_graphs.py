"""Random small models of all the rules, drawn by hypothesis.

A model grows from a pool of tensors: each step draws an operation, gives it tensors of the pool and
puts the results back. What nothing used in the end goes to a head of its own or into the output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.architectures import Kit
from tests.random_layers import (
    activation,
    concatenate,
    concatenate_steps,
    constant,
    conv,
    conv1d,
    copies,
    dense,
    depthwise,
    dot,
    einsum_dense,
    gather,
    more_conv1d,
    norm,
    pad,
    pooling,
    residual,
    separable,
    slices,
    spatial_gate,
    split,
    squeeze_excite,
    steps,
    transposed,
    two_alike,
)
from tests.random_shapes import (
    attention,
    channel_shuffle,
    flatten,
    global_pool,
    mix_tokens,
    own_attention,
    permute,
    pixel_shuffle,
    plain_attention,
    products,
    recurrent,
    recurrent_states,
    reduce,
    repeat_vector,
    shared,
    split_channels,
    time_distributed,
    to_image,
    to_sequence,
)

EVEN = (4, 6, 8)


@dataclass
class Grower:
    """A model that grows.

    Attributes:
        kit: Layers and operations of one flavour.
        draw: Hypothesis's draw function.
        pool: Tensors that operations may take.
        unused: Numbers in the pool of tensors that no operation took.
        trail: Names of the operations, for people.
    """

    kit: Kit
    draw: Any
    pool: list[Any] = field(default_factory=list)
    unused: set[int] = field(default_factory=set)
    trail: list[str] = field(default_factory=list)

    def choose(self, options):
        return self.draw(st.sampled_from(list(options)))

    def flag(self):
        return self.draw(st.booleans())

    def width(self):
        return self.choose(EVEN)

    def put(self, *tensors):
        for t in tensors:
            self.unused.add(len(self.pool))
            self.pool.append(t)

    def take(self, rank=None, like=None):
        """A tensor of the pool, lately made ones first; None where none fits."""
        fits = [
            i
            for i, t in enumerate(self.pool)
            if (rank is None or len(t.shape) in (rank if isinstance(rank, tuple) else (rank,)))
            and (like is None or tuple(t.shape) == tuple(like.shape))
        ]
        if not fits:
            return None
        i = self.choose(fits[::-1])
        self.unused.discard(i)
        return self.pool[i]


STEPS = [
    conv, conv, depthwise, separable, transposed, conv1d, more_conv1d, dense, einsum_dense, pooling,
    norm, norm, activation, two_alike, two_alike, residual, squeeze_excite, spatial_gate,
    concatenate, concatenate_steps, dot, constant, split, split, slices, slices, steps, gather,
    copies, pad, channel_shuffle, pixel_shuffle, flatten, to_sequence, to_image, split_channels,
    permute, reduce, global_pool, repeat_vector, recurrent, recurrent_states, attention,
    plain_attention, own_attention, products, mix_tokens, time_distributed, shared,
]  # fmt: skip
RANKS = {
    4: (conv, depthwise, separable, transposed, pooling, channel_shuffle, pixel_shuffle,
        to_sequence),
    3: (conv1d, more_conv1d, einsum_dense, dot, steps, recurrent, recurrent_states, attention,
        plain_attention, own_attention, products, mix_tokens),
    2: (to_image, repeat_vector),
}  # fmt: skip


def applicable(g):
    """Steps whose rank is in the pool."""
    ranks = {len(t.shape) for t in g.pool if len(t.shape) <= 4}
    barred = {f for r, steps in RANKS.items() if r not in ranks for f in steps}
    if not ranks & {3, 4}:
        barred |= {squeeze_excite, spatial_gate, concatenate_steps, flatten, permute, reduce,
                   global_pool, time_distributed}  # fmt: skip
    if not ranks & {2, 3}:
        barred.add(split_channels)
    return [f for f in STEPS if f not in barred]


def grow(kit: Kit, draw, steps: int):
    """A random model; returns it with the names of its operations."""
    g = Grower(kit, draw)
    inputs = [kit.Input((4, 4, 3), name="image")]
    if g.flag():
        inputs.append(kit.Input((4, 3), name="steps"))
    if g.flag():
        inputs.append(kit.Input((3,), dtype="int32", name="words"))
    g.put(*(i for i in inputs if i.name.split(":")[0] != "words"))
    if inputs[-1].name.split(":")[0] == "words":
        g.put(kit.L.Embedding(10, g.width())(inputs[-1]))
    g.put(kit.L.Conv2D(g.width(), 3, padding="same")(inputs[0]))
    for _ in range(steps):
        step = g.choose(applicable(g))
        result = step(g)
        g.trail.append(step.__name__)
        g.put(*(result if isinstance(result, list) else [result]))
    return kit.Model(inputs, _outputs(g)), g.trail


def _outputs(g):
    outputs = []
    for i in sorted(g.unused):
        x = g.pool[i]
        if len(x.shape) == 4 and g.flag():
            outputs.append(g.kit.L.Conv2D(2, 1)(x))
        elif len(x.shape) > 2 and np.prod(x.shape[1:]) > 400:
            outputs.append(g.kit.L.Dense(2)(x))
        else:
            flat = g.kit.L.Flatten()(x) if len(x.shape) > 2 else x
            outputs.append(g.kit.L.Dense(2)(flat))
    return outputs or [g.kit.L.Dense(2)(g.pool[-1])]

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

EVEN = (4, 6, 8)
WIDEST = 24


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


def channels(x):
    return x.shape[-1]


# One channel layer after another.


def conv(g):
    x = g.take(4)
    groups = g.choose([1, 1, 1, 2, channels(x)])
    if channels(x) % groups:
        groups = 1
    n = groups * g.choose([1, 2]) if groups > 2 else g.width()
    size, strides = g.choose([1, 3]), g.choose([1, 1, 2])
    kind = g.choose(["relu", "tanh", None, "softmax"])
    return g.kit.L.Conv2D(n, size, strides, "same", groups=groups, activation=kind)(x)


def depthwise(g):
    layer = g.kit.L.DepthwiseConv2D(3, padding="same", depth_multiplier=g.choose([1, 2]))
    return layer(g.take(4))


def separable(g):
    return g.kit.L.SeparableConv2D(g.width(), 3, padding="same", depth_multiplier=2)(g.take(4))


def transposed(g):
    return g.kit.L.Conv2DTranspose(g.width(), 3, g.choose([1, 2]), "same")(g.take(4))


def conv1d(g):
    kind = g.choose(["causal", "same"])
    return g.kit.L.Conv1D(g.width(), g.choose([1, 2]), padding=kind)(g.take(3))


def more_conv1d(g):
    x, n = g.take(3), g.width()
    L = g.kit.L
    options = [L.SeparableConv1D(n, 2, padding="same"), L.Conv1DTranspose(n, 2),
               L.DepthwiseConv1D(2, padding="same", depth_multiplier=2)]  # fmt: skip
    return g.choose(options)(x)


def dense(g):
    kind = g.choose(["relu", "sigmoid", "softmax", None])
    return g.kit.L.Dense(g.width(), kind)(g.take())


def einsum_dense(g):
    x = g.take(3)
    if g.flag():
        return g.kit.L.EinsumDense(
            "btc,chd->bthd", output_shape=(x.shape[1], 2, 4), bias_axes="hd"
        )(x)
    return g.kit.L.EinsumDense("...c,cd->...d", output_shape=g.width(), bias_axes="d")(x)


def pooling(g):
    x = g.take(4)
    L = g.kit.L
    options = [L.MaxPooling2D(2, 1), L.AveragePooling2D(2, padding="same"), L.UpSampling2D(2),
               L.ZeroPadding2D(1), L.Dropout(0.2)]  # fmt: skip
    return x if min(x.shape[1:3]) < 2 else g.choose(options)(x)


def norm(g):
    x = g.take()
    rank, c = len(x.shape), channels(x)
    L = g.kit.L
    axes = g.draw(st.sets(st.integers(1, rank - 1), min_size=1))
    axes = sorted(axes)
    options = [L.BatchNormalization(), L.LayerNormalization(), L.LayerNormalization(axis=axes),
               L.UnitNormalization(axis=axes)]  # fmt: skip
    if rank > 2 and c % 2 == 0:
        options += [L.GroupNormalization(2), L.GroupNormalization(-1)]
    if g.kit.flavour == "keras3":
        options.append(L.RMSNormalization())
    return g.choose(options)(x)


def activation(g):
    x = g.take()
    rank = len(x.shape)
    L = g.kit.L
    shared = sorted(g.draw(st.sets(st.integers(1, rank - 1))))
    axis = g.draw(st.integers(1, rank - 1))
    options = [L.ReLU(), L.Activation("sigmoid"), L.PReLU(shared_axes=shared or None),
               L.Softmax(axis=axis), L.Activation("softmax")]  # fmt: skip
    return g.choose(options)(x)


# Joins.


def two_alike(g):
    x = g.take()
    y = g.take(like=x)
    L = g.kit.L
    kind = g.choose([L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum])
    return kind()([x, y])


def residual(g):
    x = g.take()
    y = g.kit.L.Dense(channels(x))(g.kit.L.Dense(g.width(), "tanh")(x))
    return x + y if g.flag() else g.kit.L.Add()([y, x])


def squeeze_excite(g):
    x = g.take((3, 4))
    axes = tuple(range(1, len(x.shape) - 1))
    s = g.kit.L.Dense(channels(x), "sigmoid")(g.kit.ops.mean(x, axes, True))
    return x * s


def spatial_gate(g):
    x = g.take((3, 4))
    pick = g.choose([g.kit.ops.mean, g.kit.ops.max, g.kit.ops.sum, g.kit.ops.var])
    return x * g.kit.ops.sigmoid(pick(x, -1, True))


def concatenate(g):
    x = g.take()
    fits = [t for t in g.pool if tuple(t.shape[:-1]) == tuple(x.shape[:-1])]
    y = g.choose([x, *fits])
    if channels(x) * 2 + channels(y) > WIDEST * 2:
        return x
    parts = [x, y, x] if g.flag() else [x, y]
    if g.flag():
        return g.kit.L.Concatenate()(parts)
    return g.kit.ops.concatenate(parts, -1)


def concatenate_steps(g):
    x = g.take((3, 4))
    y = g.take(like=x)
    return g.kit.L.Concatenate(axis=1)([x, y]) if x.shape[1] < 8 else x


def dot(g):
    x = g.take(3)
    y = g.take(like=x)
    return g.kit.L.Dot(axes=g.choose([1, 2]), normalize=g.flag())([x, y])


def constant(g):
    x = g.take()
    values = np.linspace(0.5, 1.5, channels(x)).astype(g.kit.dtype)
    return x * values if g.flag() else x - values


# Pieces.


def split(g):
    x = g.take()
    c = channels(x)
    parts = 2 if c % 2 == 0 and g.flag() else [c - 1, 1] if c < 4 else [2, c - 2]
    if c < 2:
        return x
    pieces = g.kit.ops.split(x, parts, axis=-1)
    return list(pieces)


def slices(g):
    x = g.take()
    c = channels(x)
    if c < 4:
        return x
    kind = g.choose(["range", "head", "stride", "other", "turned", "one"])
    if kind == "range":
        return x[..., 1:-1]
    if kind == "head":
        return x[..., : c // 2]
    if kind == "stride":
        return x[..., ::2]
    if kind == "other":
        return x[..., 1::2]
    if kind == "turned":
        return g.kit.ops.flip(x, -1)
    return g.kit.ops.expand_dims(x[..., 2], -1) if len(x.shape) > 2 else x[..., 2:3]


def steps(g):
    x = g.take(3)
    return x[:, -1] if g.flag() else x[:, :1] if x.shape[1] > 1 else x


def gather(g):
    x = g.take()
    order = g.draw(st.permutations(range(channels(x))))
    return g.kit.ops.take(x, order, -1)


def copies(g):
    x = g.take()
    if channels(x) > WIDEST // 2:
        return x
    if g.flag():
        return g.kit.ops.repeat(x, 2, -1)
    return g.kit.ops.tile(x, (1,) * (len(x.shape) - 1) + (2,))


def pad(g):
    x = g.take()
    widths = [[0, 0]] * (len(x.shape) - 1) + [[1, 2]]
    return g.kit.ops.pad(x, widths)


# Shapes.


def channel_shuffle(g):
    x = g.take(4)
    h, w, c = x.shape[1:]
    if c % 2:
        return x
    if g.flag():
        x = g.kit.L.Permute((1, 2, 4, 3))(g.kit.L.Reshape((h, w, 2, c // 2))(x))
        return g.kit.L.Reshape((h, w, c))(x)
    x = g.kit.ops.transpose(g.kit.ops.reshape(x, (-1, h, w, 2, c // 2)), (0, 1, 2, 4, 3))
    return g.kit.ops.reshape(x, (-1, h, w, c))


def pixel_shuffle(g):
    x = g.take(4)
    h, w, c = x.shape[1:]
    if c % 4 or h > 8:
        return x
    kind = g.choose(["op", "depth first", "channel first", "back"])
    if kind == "op":
        return g.kit.ops.depth_to_space(x, 2)
    if kind == "back":
        return g.kit.ops.space_to_depth(x, 2) if h % 2 == w % 2 == 0 and c < 8 else x
    if kind == "depth first":
        x = g.kit.ops.reshape(x, (-1, h, w, 2, 2, c // 4))
        x = g.kit.ops.transpose(x, (0, 1, 3, 2, 4, 5))
    else:
        x = g.kit.ops.reshape(x, (-1, h, w, c // 4, 2, 2))
        x = g.kit.ops.transpose(x, (0, 1, 4, 2, 5, 3))
    return g.kit.ops.reshape(x, (-1, 2 * h, 2 * w, c // 4))


def flatten(g):
    x = g.take((3, 4))
    return g.kit.L.Flatten()(x) if np.prod(x.shape[1:]) < 400 else x


def to_sequence(g):
    x = g.take(4)
    h, w, c = x.shape[1:]
    shape = g.choose([(h * w, c), (h, w * c)])
    if g.flag():
        return g.kit.L.Reshape(shape)(x)
    return g.kit.ops.reshape(x, (-1, *shape))


def to_image(g):
    x = g.take(2)
    c = channels(x)
    if c % 4 or c > 64:
        return g.kit.L.Reshape((1, c) if g.flag() else (c, 1))(x)
    return g.kit.L.Reshape(g.choose([(2, 2, c // 4), (2, c // 2), (c // 4, 4)]))(x)


def split_channels(g):
    """[..., c] -> [..., 2, c/2], reduced over one of the two (maxout)."""
    x = g.take((2, 3))
    c = channels(x)
    if c % 2:
        return x
    shape = g.choose([(2, c // 2), (c // 2, 2)])
    x = g.kit.L.Reshape((*x.shape[1:-1], *shape))(x)
    return g.kit.ops.max(x, g.choose([-1, -2]))


def permute(g):
    x = g.take((3, 4))
    order = g.draw(st.permutations(range(1, len(x.shape))))
    if g.flag():
        return g.kit.L.Permute(tuple(order))(x)
    return g.kit.ops.transpose(x, (0, *order))


def reduce(g):
    x = g.take((3, 4))
    rank = len(x.shape)
    axes = sorted(g.draw(st.sets(st.integers(1, rank - 1), min_size=1, max_size=rank - 2)))
    pick = g.choose([g.kit.ops.mean, g.kit.ops.max, g.kit.ops.sum])
    return pick(x, tuple(axes), g.flag())


def global_pool(g):
    x = g.take((3, 4))
    L = g.kit.L
    flat = [L.GlobalAveragePooling1D, L.GlobalMaxPooling1D]
    deep = [L.GlobalAveragePooling2D, L.GlobalMaxPooling2D]
    return g.choose(flat if len(x.shape) == 3 else deep)(keepdims=g.flag())(x)


def repeat_vector(g):
    x = g.take(2)
    return g.kit.L.RepeatVector(g.choose([3, 4]))(x) if channels(x) < 30 else x


# Sequences.


def recurrent(g):
    L = g.kit.L
    kind = g.choose([L.LSTM, L.GRU, L.SimpleRNN])
    layer = kind(g.choose([3, 4]), return_sequences=g.flag())
    if g.flag():
        layer = L.Bidirectional(layer, merge_mode=g.choose(["concat", "sum", "mul"]))
    return layer(short(g))


def recurrent_states(g):
    x = short(g)
    _, h, c = g.kit.L.LSTM(4, return_state=True)(x)
    return g.kit.L.LSTM(4, return_sequences=True)(x, initial_state=[h, c])


def short(g):
    """A sequence of few steps."""
    x = g.take(3)
    return x[:, :4] if x.shape[1] > 4 else x


def attention(g):
    x = short(g)
    heads, size, value = g.choose([2, 3]), g.choose([2, 4]), g.choose([None, 3])
    layer = g.kit.L.MultiHeadAttention(heads, size, value_dim=value, use_bias=g.flag(),
                                       output_shape=g.choose([None, 6]))  # fmt: skip
    other = g.choose([x, *(t for t in g.pool if len(t.shape) == 3 and t.shape[1] < 9)])
    if g.flag():
        y, scores = layer(x, other, return_attention_scores=True)
        return [y, g.kit.ops.mean(scores, 1)]
    return layer(x, other)


def plain_attention(g):
    x = short(g)
    L = g.kit.L
    return L.Attention()([x, x]) if g.flag() else L.AdditiveAttention()([x, x])


def own_attention(g):
    x = short(g)
    ops, t = g.kit.ops, x.shape[1]
    q, key, v = (ops.reshape(g.kit.L.Dense(8)(x), (-1, t, 2, 4)) for _ in range(3))
    if g.flag():
        s = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, key), -1)
        return ops.reshape(ops.einsum("bhqk,bkhd->bqhd", s, v), (-1, t, 8))
    q, key, v = (ops.transpose(y, (0, 2, 1, 3)) for y in (q, key, v))
    s = ops.softmax(ops.matmul(q, ops.transpose(key, (0, 1, 3, 2))), -1)
    return ops.reshape(ops.transpose(ops.matmul(s, v), (0, 2, 1, 3)), (-1, t, 8))


def products(g):
    x = short(g)
    y = g.kit.L.Dense(g.width())(x)
    gram = g.kit.ops.matmul(g.kit.ops.transpose(x, (0, 2, 1)), y)
    return gram if g.flag() else g.kit.ops.matmul(x, gram)


def mix_tokens(g):
    x = g.take(3)
    y = g.kit.L.Permute((2, 1))(x)
    y = g.kit.L.Dense(x.shape[1])(g.kit.L.Dense(g.width(), "relu")(y))
    return x + g.kit.L.Permute((2, 1))(y)


def time_distributed(g):
    x = g.take((3, 4))
    x = x[:, :3] if x.shape[1] > 3 else x
    L = g.kit.L
    if len(x.shape) == 3:
        inner = [
            L.Dense(4),
            g.kit.Sequential([g.kit.Input((channels(x),)), L.Dense(6, "relu"), L.Dense(4)]),
        ]
    else:
        inner = [L.Conv1D(4, 1), L.Flatten(), L.LayerNormalization()]
    return L.TimeDistributed(g.choose(inner))(x)


# Layers and models used more than once.


def shared(g):
    x = g.take()
    fits = [t for t in g.pool if len(t.shape) == len(x.shape) and channels(t) == channels(x)]
    y = g.choose([x, *fits])
    if g.flag():
        layer = g.kit.L.Dense(g.width(), "tanh")
    else:
        inner = g.kit.Input((None,) * (len(x.shape) - 2) + (channels(x),))
        h = g.kit.L.Dense(g.width(), "relu")(inner)
        layer = g.kit.Model(inner, g.kit.L.Concatenate()([h, g.kit.L.Dense(4)(h)]))
    return [layer(x), layer(y)]


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

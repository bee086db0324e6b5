"""Steps of random graphs: reshapes, sequences, attention, layers used more than once."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.random_layers import channels

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

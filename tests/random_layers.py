"""Steps of random graphs: one layer or join after another, and pieces of tensors."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

WIDEST = 24


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

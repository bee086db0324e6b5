"""Heads, gates, towers and single operations that models are made of."""

from __future__ import annotations

import numpy as np

from tests.architectures.blocks import cbr, head


def vae(k):
    i = k.Input((10,))
    h = k.L.Dense(8, "relu")(i)
    mean, log_var = k.L.Dense(4)(h), k.L.Dense(4)(h)
    z = mean + k.ops.exp(0.5 * log_var) * np.float32(0.1)
    x = k.L.Dense(10)(k.L.Dense(8, "relu")(z))
    kl = k.ops.sum(1.0 + log_var - mean * mean - k.ops.exp(log_var), -1)
    return k.Model(i, [x, kl])


def siamese(k):
    base = k.Sequential([k.Input((8, 8, 1)), k.L.Conv2D(6, 3, activation="relu"),
                         k.L.Flatten(), k.L.Dense(8)], name="tower")  # fmt: skip
    a, b = k.Input((8, 8, 1), name="a"), k.Input((8, 8, 1), name="b")
    u, v = base(a), base(b)
    d = k.ops.abs(u - v)
    e = k.L.Dot(1, normalize=True)([u, v])
    return k.Model([a, b], k.L.Dense(1)(k.L.Concatenate()([d, e])))


def siamese_distance(k):
    base = k.Sequential([k.Input((6,)), k.L.Dense(8, "relu"), k.L.Dense(5)])
    a, b = k.Input((6,), name="a"), k.Input((6,), name="b")
    d = base(a) - base(b)
    return k.Model([a, b], k.ops.sqrt(k.ops.sum(d * d, 1, True) + 1e-6))


def two_tower(k):
    a, b = k.Input((1,), dtype="int32", name="user"), k.Input((3,), dtype="int32", name="item")
    u = k.L.Dense(6)(k.L.Flatten()(k.L.Embedding(10, 8)(a)))
    v = k.L.Dense(6)(k.L.GlobalAveragePooling1D()(k.L.Embedding(10, 8)(b)))
    return k.Model([a, b], k.L.Activation("sigmoid")(k.L.Dot(axes=(1, 1), normalize=True)([u, v])))


def multi_task(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    heads = {n: k.L.Dense(d, name=n)(k.L.Dense(6, "relu")(k.L.Flatten()(cbr(k, x, 4))))
             for n, d in (("age", 1), ("kind", 3))}  # fmt: skip
    return k.Model(i, heads)


def maxout(k):
    i = k.Input((6,))
    x = k.ops.max(k.L.Reshape((5, 3))(k.L.Dense(15)(i)), -1)
    x = k.ops.max(k.ops.reshape(k.L.Dense(12)(x), (-1, 2, 6)), 1)
    a, b = k.L.Dense(6)(x), k.L.Dense(6)(x)
    return k.Model(i, k.L.Dense(2)(k.L.Maximum()([a, b])))


def glu(k):
    i = k.Input((6, 4))
    a, b = k.ops.split(k.L.Conv1D(12, 3, padding="same")(i), 2, axis=-1)
    x = a * k.ops.sigmoid(b)
    g = k.L.Dense(8)(x)
    x = k.L.Dense(8)(x) * k.L.Activation("swish")(g)
    return k.Model(i, k.L.Dense(2)(k.L.GlobalMaxPooling1D()(x)))


def highway(k):
    i = k.Input((6,))
    x = k.L.Dense(8)(i)
    for _ in range(2):
        t = k.L.Dense(8, "sigmoid")(x)
        x = t * k.L.Dense(8, "relu")(x) + (1.0 - t) * x
    return k.Model(i, k.L.Dense(2)(x))


def mixture_of_experts(k):
    i = k.Input((6,))
    gate = k.L.Dense(3, "softmax", name="gate")(i)
    experts = k.ops.stack([k.L.Dense(8, "relu")(i) for _ in range(3)], 1)
    x = k.ops.sum(k.ops.expand_dims(gate, -1) * experts, 1)
    return k.Model(i, k.L.Dense(2)(x))


def mixture_layers(k):
    i = k.Input((6,))
    gate = k.L.Dense(2, "softmax")(i)
    parts = [k.L.Multiply()([gate[:, n : n + 1], k.L.Dense(8, "relu")(i)]) for n in range(2)]
    return k.Model(i, k.L.Dense(2)(k.L.Add()(parts)))


def softmax_inside(k):
    i = k.Input((5, 6))
    x = k.L.Dense(8, "softmax")(i)
    x = k.L.Conv1D(6, 1, activation="softmax")(x)
    x = k.L.Softmax(axis=[1, 2])(x)
    return k.Model(i, k.L.Dense(2)(k.L.GlobalAveragePooling1D()(x)))


def lambda_in_the_middle(k):
    i = k.Input((6,))
    x = k.L.Dense(8)(i)
    x = k.L.Lambda(lambda t: t * 2.0, name="twice")(x)
    return k.Model(i, k.L.Dense(2)(k.L.Dense(6)(x)))


def even_odd_channels(k):
    i = k.Input((6, 6, 3))
    x = cbr(k, i, 8)
    a, b = x[..., ::2], x[..., 1::2]
    x = k.ops.concatenate([a * b, k.ops.flip(a, -1)], -1)
    return k.Model(i, head(k, cbr(k, x, 6)))


def gathered_channels(k):
    i = k.Input((6, 6, 3))
    x = cbr(k, i, 8)
    x = k.ops.take(x, [0, 4, 1, 5, 2, 6, 3, 7], -1)
    x = k.L.Conv2D(6, 1)(x)
    y = k.ops.repeat(k.ops.tile(x, (1, 1, 1, 2)), 2, -1)
    return k.Model(i, head(k, k.ops.concatenate([y, x[..., 2:3]], -1)))


def broadcasts(k):
    i, j = k.Input((5, 4)), k.Input((3,), name="other")
    x = k.L.Dense(6)(i)
    y = k.L.Add()([x, k.L.Dense(6)(j)])  # ranks 3 and 2
    z = k.ops.cumsum(y, -1)
    w = k.ops.where(x > 0, x, y * np.arange(6).astype("float32"))
    return k.Model([i, j], k.L.Dense(2)(k.L.Flatten()(k.L.Concatenate()([z, w, y]))))


def repeats(k):
    """One value repeated over the channels, in every way."""
    i = k.Input((5, 4))
    x = k.L.Dense(6)(i)
    s = k.ops.sum(x, -1, True)
    x = x * k.ops.tile(s, (1, 1, 6)) + k.ops.repeat(s, 6, -1)
    y = k.L.RepeatVector(3)(k.ops.mean(x, 1))
    y = k.L.Conv1D(4, 2)(k.L.Dense(5)(y))
    return k.Model(
        i, k.L.Dense(2)(k.L.Flatten()(k.L.Add()([y, k.L.RepeatVector(2)(k.L.Dense(4)(s[:, 0]))])))
    )


def tabular(k):
    a, b = k.Input((3,), name="numbers"), k.Input((1,), dtype="int32", name="kind")
    c = k.L.Discretization(bin_boundaries=[-0.5, 0.5])(a)
    c = k.L.CategoryEncoding(num_tokens=3, output_mode="multi_hot")(c)
    e = k.L.Flatten()(k.L.Embedding(10, 4)(b))
    one = k.L.CategoryEncoding(num_tokens=10, output_mode="one_hot")(b)
    x = k.L.Dense(8, "relu")(k.L.Concatenate()([a, c, e, one]))
    cross = k.L.Dense(8)(x) * x + x  # DCN
    return k.Model([a, b], k.L.Dense(1)(cross))


def wide_normalizations(k):
    i = k.Input((4, 4, 3))
    x = k.L.LayerNormalization(axis=[1, 2, 3])(k.L.Conv2D(8, 1)(i))
    x = k.L.GroupNormalization(4)(k.L.Conv2D(8, 1)(x))
    x = k.L.UnitNormalization(axis=[1, 2])(k.L.GroupNormalization(-1)(x))
    x = k.L.LayerNormalization(axis=1, scale=False)(k.L.PReLU()(x))
    x = k.L.Softmax(axis=-1)(k.L.GroupNormalization(1)(x))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def shared_stages(k):
    """A model used three times, its inner activations read again outside."""
    inner_in = k.Input((6, 6, 3))
    h = k.L.Conv2D(6, 3, padding="same", activation="relu")(inner_in)
    inner = k.Model(inner_in, [h, k.L.Conv2D(3, 3, padding="same")(h)], name="stage")
    i = k.Input((6, 6, 3))
    h1, x = inner(i)
    h2, y = inner(x + i)
    h3, z = inner(y)
    return k.Model(i, head(k, k.L.Concatenate()([h1, h2 + h3, z])))

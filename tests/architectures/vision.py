"""Vision transformers, generators and other image models."""

from __future__ import annotations

import numpy as np

from tests.architectures.blocks import cbr, head, mlp
from tfedge._keras import tf


def vit(k):
    """Patches by a convolution, position embedding by a constant, MultiHeadAttention."""
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(12, 2, 2)(i)
    x = k.L.Reshape((16, 12))(x)
    x = x + np.random.default_rng(0).normal(size=(1, 16, 12)).astype("float32")
    for _ in range(2):
        y = k.L.LayerNormalization()(x)
        x = k.L.Add()([k.L.MultiHeadAttention(3, 4)(y, y), x])
        x = k.L.Add()([mlp(k, k.L.LayerNormalization()(x), 16, 12), x])
    x = k.L.GlobalAveragePooling1D()(k.L.LayerNormalization()(x))
    return k.Model(i, k.L.Dense(3)(x))


def vit_class_token(k):
    """A class token in front, read again by its number."""
    i = k.Input((8, 8, 3))
    x = k.ops.reshape(k.L.Conv2D(12, 2, 2)(i), (-1, 16, 12))
    token = k.L.Dense(12, name="token")(k.ops.mean(i, (1, 2)))
    x = k.ops.concatenate([k.ops.expand_dims(token, 1), x], 1)
    y = k.L.LayerNormalization()(x)
    x = x + k.L.MultiHeadAttention(2, 6)(y, y)
    x = x + mlp(k, k.L.LayerNormalization()(x), 16, 12)
    return k.Model(i, k.L.Dense(3)(x[:, 0]))


def mobilevit(k):
    """Unfold into patches, attend, fold back, join with the input."""
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    y = k.L.Conv2D(12, 1)(k.L.Conv2D(8, 3, padding="same", activation="swish")(x))
    y = k.ops.reshape(y, (-1, 4, 2, 4, 2, 12))
    y = k.ops.transpose(y, (0, 2, 4, 1, 3, 5))
    y = k.ops.reshape(y, (-1, 4, 16, 12))
    z = k.L.LayerNormalization()(y)
    y = y + k.L.MultiHeadAttention(2, 6, attention_axes=(2,))(z, z)
    y = y + mlp(k, k.L.LayerNormalization()(y), 16, 12)
    y = k.ops.reshape(y, (-1, 2, 2, 4, 4, 12))
    y = k.ops.transpose(y, (0, 3, 1, 4, 2, 5))
    y = k.ops.reshape(y, (-1, 8, 8, 12))
    x = k.ops.concatenate([x, k.L.Conv2D(8, 1)(y)], -1)
    return k.Model(i, head(k, cbr(k, x, 6)))


def swin(k):
    """Windows by reshape and transpose, moved into the batch, shifted by a roll."""
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(12, 1)(i)
    for shift in (0, 2):
        y = k.L.LayerNormalization()(x)
        y = k.ops.roll(y, (-shift, -shift), (1, 2)) if shift else y
        y = k.ops.reshape(y, (-1, 2, 4, 2, 4, 12))
        y = k.ops.transpose(y, (0, 1, 3, 2, 4, 5))
        y = k.ops.reshape(y, (-1, 16, 12))
        y = k.L.MultiHeadAttention(2, 6)(y, y)
        y = k.ops.reshape(y, (-1, 2, 2, 4, 4, 12))
        y = k.ops.transpose(y, (0, 1, 3, 2, 4, 5))
        y = k.ops.reshape(y, (-1, 8, 8, 12))
        x = x + (k.ops.roll(y, (shift, shift), (1, 2)) if shift else y)
        x = x + mlp(k, k.L.LayerNormalization()(x), 20, 12)
    x = k.ops.concatenate([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1)
    x = k.L.Dense(10, use_bias=False)(k.L.LayerNormalization()(x))
    return k.Model(i, head(k, x))


def mlp_mixer(k):
    i = k.Input((8, 8, 3))
    x = k.L.Reshape((16, 10))(k.L.Conv2D(10, 2, 2)(i))
    for _ in range(2):
        y = k.L.Permute((2, 1))(k.L.LayerNormalization()(x))
        y = k.L.Dense(16)(k.L.Dense(12, "gelu")(y))
        x = k.L.Add()([x, k.L.Permute((2, 1))(y)])
        x = k.L.Add()([x, mlp(k, k.L.LayerNormalization()(x), 14, 10)])
    return k.Model(i, k.L.Dense(3)(k.L.GlobalAveragePooling1D()(x)))


def non_local(k):
    i = k.Input((4, 4, 3))
    x = cbr(k, i, 8)
    flat = [k.ops.reshape(k.L.Conv2D(6, 1)(x), (-1, 16, 6)) for _ in range(3)]
    s = k.ops.softmax(k.ops.matmul(flat[0], k.ops.transpose(flat[1], (0, 2, 1))), -1)
    y = k.ops.reshape(k.ops.matmul(s, flat[2]), (-1, 4, 4, 6))
    return k.Model(i, head(k, x + k.L.Conv2D(8, 1)(y)))


def channel_self_attention(k):
    """Attention between channels (DANet, XCiT): two labelled axes at once."""
    i = k.Input((4, 4, 3))
    x = cbr(k, i, 8)
    f = k.L.Reshape((16, 8))(x)
    q = k.ops.normalize(k.L.Permute((2, 1))(f), -1)
    s = k.ops.softmax(k.ops.matmul(q, f), -1)
    y = k.ops.transpose(k.ops.matmul(s, k.ops.transpose(f, (0, 2, 1))), (0, 2, 1))
    return k.Model(i, head(k, x + k.ops.reshape(y, (-1, 4, 4, 8))))


def autoencoder(k):
    i = k.Input((8, 8, 1))
    x = k.L.Conv2D(6, 3, 2, "same", activation="relu")(i)
    x = k.L.Dense(5, name="code")(k.L.Flatten()(x))
    x = k.L.Dense(4 * 4 * 6, "relu")(x)
    x = k.L.Reshape((4, 4, 6))(x)
    x = k.L.Conv2DTranspose(6, 3, 2, "same", activation="relu")(x)
    return k.Model(i, k.L.Conv2D(1, 3, padding="same", activation="sigmoid")(x))


def edsr(k):
    i = k.Input((6, 6, 3))
    x = a = k.L.Conv2D(8, 3, padding="same")(i)
    for _ in range(2):
        y = k.L.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = x + k.L.Conv2D(8, 3, padding="same")(y) * 0.1
    x = k.ops.depth_to_space(k.L.Conv2D(24, 3, padding="same")(x + a), 2)
    return k.Model(i, k.L.Conv2D(3, 3, padding="same")(x))


def _pixel_shuffle(k, channel_major):
    i = k.Input((4, 4, 3))
    x = k.L.Conv2D(24, 3, padding="same")(i)
    if channel_major:
        x = k.ops.transpose(k.ops.reshape(x, (-1, 4, 4, 6, 2, 2)), (0, 1, 4, 2, 5, 3))
    else:
        x = k.ops.transpose(k.ops.reshape(x, (-1, 4, 4, 2, 2, 6)), (0, 1, 3, 2, 4, 5))
    x = k.ops.relu(k.ops.reshape(x, (-1, 8, 8, 6)))
    return k.Model(i, k.L.Conv2D(3, 3, padding="same")(x))


def pixel_shuffle(k):
    return _pixel_shuffle(k, False)


def pixel_shuffle_channel_major(k):
    """The order of other frameworks: a channel's sub-pixels stand together."""
    return _pixel_shuffle(k, True)


def space_to_depth(k):
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(6, 3, padding="same", activation="relu")(i)
    x = k.L.Conv2D(8, 1)(k.ops.space_to_depth(x, 2))
    return k.Model(i, head(k, x))


def generator(k):
    i = k.Input((6,))
    x = k.L.Dense(2 * 2 * 10, use_bias=False)(i)
    x = k.L.LeakyReLU()(k.L.BatchNormalization()(x))
    x = k.L.Reshape((2, 2, 10))(x)
    for n in (8, 6):
        x = k.L.Conv2DTranspose(n, 4, 2, "same")(x)
        x = k.L.LeakyReLU()(k.L.BatchNormalization()(x))
    return k.Model(i, k.L.Conv2D(3, 3, padding="same", activation="tanh")(x))


def style_modulation(k):
    """AdaIN: instance statistics over space, scale and shift from a style."""
    i, s = k.Input((4, 4, 3)), k.Input((5,), name="style")
    x = k.L.Conv2D(8, 3, padding="same")(i)
    mean, var = k.ops.mean(x, (1, 2), True), k.ops.var(x, (1, 2), True)
    x = (x - mean) / k.ops.sqrt(var + 1e-5)
    w = k.L.Dense(16)(s)
    scale, shift = (k.L.Reshape((1, 1, 8))(t) for t in k.ops.split(w, 2, axis=-1))
    return k.Model([i, s], k.L.Conv2D(3, 1)(x * (1.0 + scale) + shift))


def film(k):
    i, c = k.Input((8, 8, 3)), k.Input((4,), name="condition")
    x = cbr(k, i, 8)
    scale = k.L.Reshape((1, 1, 8))(k.L.Dense(8)(c))
    shift = k.L.Reshape((1, 1, 8))(k.L.Dense(8)(c))
    x = k.L.ReLU()(k.L.Add()([k.L.Multiply()([x, scale]), shift]))
    return k.Model([i, c], head(k, x))


def pointnet(k):
    i = k.Input((10, 3))
    t = k.L.GlobalMaxPooling1D()(k.L.Conv1D(8, 1, activation="relu")(i))
    t = k.L.Reshape((3, 3))(k.L.Dense(9)(t))
    x = k.L.Conv1D(8, 1, activation="relu")(k.L.Dot(axes=(2, 1))([i, t]))
    f = k.L.Dense(64, name="feature_transform")(k.L.GlobalMaxPooling1D()(x))
    x = k.ops.matmul(x, k.ops.reshape(f, (-1, 8, 8)))
    x = k.L.BatchNormalization()(k.L.Conv1D(10, 1, activation="relu")(x))
    g = k.L.GlobalMaxPooling1D()(x)
    wide = k.L.Concatenate()([x, k.L.RepeatVector(10)(g)])
    return k.Model(i, [k.L.Dense(3)(g), k.L.Conv1D(2, 1)(wide)])


def capsules(k):
    """Primary capsules with a squash, votes by an einsum with the next layer's predictions."""
    i = k.Input((6, 6, 1))
    x = k.L.Conv2D(16, 3, 2, activation="relu")(i)
    u = k.L.Reshape((16, 4))(x)
    n = k.ops.sum(u * u, -1, True)
    u = u * (n / (1.0 + n) / k.ops.sqrt(n + 1e-7))
    v = k.L.EinsumDense("bni,iko->bnko", output_shape=(None, 3, 5))(u)
    c = k.ops.softmax(k.ops.sum(v, -1), -1)
    s = k.ops.einsum("bnk,bnko->bko", c, v)
    return k.Model(i, k.ops.sqrt(k.ops.sum(s * s, -1) + 1e-7))


def netvlad(k):
    i = k.Input((4, 4, 3))
    x = k.L.Reshape((16, 6))(k.L.Conv2D(6, 3, padding="same")(i))
    a = k.L.Dense(4, "softmax")(x)
    v = k.ops.matmul(k.ops.transpose(a, (0, 2, 1)), x)
    v = k.ops.normalize(v, -1)
    return k.Model(i, k.L.Dense(2)(k.ops.reshape(v, (-1, 24))))


def bilinear_pooling(k):
    i = k.Input((4, 4, 3))
    a = k.L.Reshape((16, 5))(k.L.Conv2D(5, 1)(i))
    b = k.L.Reshape((16, 4))(k.L.Conv2D(4, 1)(i))
    x = k.L.Flatten()(k.ops.matmul(k.ops.transpose(a, (0, 2, 1)), b))
    return k.Model(i, k.L.Dense(2)(x))


def spectral(k):
    i = k.Input((8, 8, 3))
    x = k.L.SpectralNormalization(k.L.Conv2D(8, 3, padding="same"))(i)
    x = k.L.SpectralNormalization(k.L.Conv2DTranspose(6, 3, 2))(k.L.LeakyReLU()(x))
    return k.Model(i, k.L.SpectralNormalization(k.L.Dense(2))(k.L.GlobalMaxPooling2D()(x)))


def blur_pool(k):
    kernel = np.outer([1, 2, 1], [1, 2, 1])[..., None, None] / 16.0
    kernel = np.tile(kernel, (1, 1, 6, 1)).astype("float32")
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 6)
    x = tf.nn.depthwise_conv2d(x, kernel, (1, 2, 2, 1), "SAME")
    return k.Model(i, head(k, tf.nn.bias_add(x, np.arange(6).astype("float32"))))


def channels_first(k):
    i = k.Input((3, 8, 8))
    x = k.L.Conv2D(6, 3, data_format="channels_first")(i)
    x = k.L.ReLU()(k.L.BatchNormalization(axis=1)(x))
    x = k.L.MaxPooling2D(data_format="channels_first")(x)
    x = k.L.Conv2D(8, 1, data_format="channels_first")(x)
    s = k.L.GlobalAveragePooling2D(data_format="channels_first", keepdims=True)(x)
    x = k.L.Multiply()([x, k.L.Conv2D(8, 1, data_format="channels_first")(s)])
    x = k.L.Concatenate(axis=1)([x, x])
    x = k.L.Flatten(data_format="channels_first")(x)
    return k.Model(i, k.L.Dense(2)(x))


def locally_connected(k):
    i = k.Input((6, 6, 2))
    x = k.L.LocallyConnected2D(5, 3, activation="relu")(k.L.Conv2D(6, 1)(i))
    x = k.L.LocallyConnected1D(4, 3)(k.L.Reshape((16, 5))(x))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def adaptive_pools(k):
    i = k.Input((8, 8, 3))
    x = k.L.AdaptiveAveragePooling2D((4, 4))(cbr(k, i, 6))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(k.L.AdaptiveMaxPooling2D((2, 2))(x))))


def preprocessing(k):
    i = k.Input((8, 8, 3))
    norm = k.L.Normalization()
    norm.adapt(np.random.default_rng(0).normal(1, 2, (16, 8, 8, 3)).astype("float32"))
    x = norm(k.L.Rescaling(1 / 255.0)(i))
    x = k.L.RandomFlip()(k.L.RandomRotation(0.1)(k.L.Resizing(8, 8)(x)))
    x = k.L.RandomZoom(0.1)(cbr(k, k.L.CenterCrop(8, 8)(x), 6))
    return k.Model(i, head(k, x))

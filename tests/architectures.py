"""Small builders of real architectures, in both Kerases.

A builder takes a `Kit` (layers and operations of one flavour) and returns a model. They are written
the way their authors write them: with layers, with operations on tensors, or with both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tfedge._keras import library, tf


@dataclass(frozen=True)
class Kit:
    """One flavour: its layers `L`, `Input`, `Model`, and operations under keras.ops names."""

    flavour: str
    L: Any
    ops: Any
    Input: Callable
    Model: Callable
    Sequential: Callable
    dtype: str = "float32"


def _tf_ops() -> Any:
    """TensorFlow functions under the names that keras.ops gives them."""
    return SimpleNamespace(
        reshape=tf.reshape,
        transpose=lambda x, axes: tf.transpose(x, axes),
        concatenate=lambda xs, axis=-1: tf.concat(xs, axis),
        split=lambda x, parts, axis: tf.split(x, parts, axis=axis),
        stack=lambda xs, axis: tf.stack(xs, axis),
        matmul=tf.matmul,
        einsum=tf.einsum,
        softmax=lambda x, axis=-1: tf.nn.softmax(x, axis),
        mean=lambda x, axis, keepdims=False: tf.reduce_mean(x, axis, keepdims),
        max=lambda x, axis, keepdims=False: tf.reduce_max(x, axis, keepdims),
        sum=lambda x, axis, keepdims=False: tf.reduce_sum(x, axis, keepdims),
        var=lambda x, axis, keepdims=False: tf.math.reduce_variance(x, axis, keepdims),
        abs=tf.abs,
        exp=tf.exp,
        sqrt=tf.sqrt,
        tanh=tf.tanh,
        sigmoid=tf.sigmoid,
        relu=tf.nn.relu,
        gelu=tf.nn.gelu,
        multiply=tf.multiply,
        add=tf.add,
        maximum=tf.maximum,
        where=tf.where,
        expand_dims=tf.expand_dims,
        squeeze=tf.squeeze,
        tile=tf.tile,
        repeat=lambda x, n, axis: tf.repeat(x, n, axis),
        flip=lambda x, axis: tf.reverse(x, [axis]),
        roll=lambda x, shift, axis: tf.roll(x, shift, axis),
        take=lambda x, indices, axis: tf.gather(x, indices, axis=axis),
        pad=lambda x, widths: tf.pad(x, widths),
        broadcast_to=tf.broadcast_to,
        cumsum=lambda x, axis: tf.cumsum(x, axis),
        resize=lambda x, size: tf.image.resize(x, size),
        depth_to_space=tf.nn.depth_to_space,
        space_to_depth=tf.nn.space_to_depth,
        normalize=lambda x, axis: tf.math.l2_normalize(x, axis),
        cast=lambda x, dtype: tf.cast(x, dtype),
    )


def _keras_ops() -> Any:
    ops = library("keras3").ops
    names = [n for n in dir(ops) if not n.startswith("_")]
    own = {n: getattr(ops, n) for n in names}
    # Keras splits at indices where a list is given, TensorFlow by sizes: here, by sizes.
    own["split"] = lambda x, parts, axis: ops.split(
        x, parts if isinstance(parts, int) else np.cumsum(parts)[:-1].tolist(), axis=axis
    )
    own["resize"] = lambda x, size: ops.image.resize(x, size)
    own["depth_to_space"] = ops.nn.depth_to_space
    own["space_to_depth"] = ops.nn.space_to_depth
    return SimpleNamespace(**own)


def kit(flavour: str) -> Kit:
    """The kit of a flavour."""
    lib = library(flavour)
    ops = _keras_ops() if flavour == "keras3" else _tf_ops()
    return Kit(flavour, lib.layers, ops, lib.Input, lib.Model, lib.Sequential)


def _cbr(k, x, n, size=3, strides=1, groups=1, act="relu"):
    """Convolution, batch norm, activation."""
    x = k.L.Conv2D(n, size, strides, padding="same", use_bias=False, groups=groups)(x)
    x = k.L.BatchNormalization()(x)
    return k.L.Activation(act)(x) if act else x


def _head(k, x, n=3):
    return k.L.Dense(n)(k.L.GlobalAveragePooling2D()(x))


def unet(k):
    i = k.Input((8, 8, 3))
    a = _cbr(k, i, 6)
    b = _cbr(k, k.L.MaxPooling2D()(a), 8)
    c = _cbr(k, k.L.MaxPooling2D()(b), 10)
    x = k.L.Conv2DTranspose(8, 2, 2)(c)
    x = _cbr(k, k.L.Concatenate()([b, x]), 8)
    x = k.L.UpSampling2D(interpolation="bilinear")(x)
    x = _cbr(k, k.L.Concatenate()([x, a]), 6)
    return k.Model(i, k.L.Conv2D(2, 1, activation="softmax")(x))


def unet_valid(k):
    """The first U-Net: unpadded convolutions, the skip cropped."""
    i = k.Input((16, 16, 1))
    a = k.L.Conv2D(6, 3, activation="relu")(i)
    x = k.L.Conv2D(8, 3, activation="relu")(k.L.MaxPooling2D()(a))
    x = k.L.Conv2DTranspose(6, 2, 2)(x)
    x = k.L.Concatenate()([k.L.Cropping2D(2)(a), x])
    return k.Model(i, k.L.Conv2D(2, 3)(x))


def fpn(k):
    i = k.Input((16, 16, 3))
    c1 = _cbr(k, i, 6, strides=2)
    c2 = _cbr(k, c1, 8, strides=2)
    c3 = _cbr(k, c2, 10, strides=2)
    p3 = k.L.Conv2D(6, 1)(c3)
    p2 = k.L.Add()([k.L.Conv2D(6, 1)(c2), k.L.UpSampling2D()(p3)])
    p1 = k.L.Add()([k.L.Conv2D(6, 1)(c1), k.L.UpSampling2D()(p2)])
    head = k.L.Conv2D(4, 3, padding="same", name="shared_head")
    return k.Model(i, [head(p) for p in (p1, p2, p3)])


def yolo(k):
    """Focus by strided slices, CSP split by slices, SPPF, PANet, three-axis head."""
    i = k.Input((16, 16, 3))
    x = k.ops.concatenate(
        [i[:, ::2, ::2, :], i[:, 1::2, ::2, :], i[:, ::2, 1::2, :], i[:, 1::2, 1::2, :]], -1
    )
    x = _cbr(k, x, 8, act="swish")
    a, b = x[..., :4], x[..., 4:]
    y = b + _cbr(k, _cbr(k, b, 4, 1), 4, act="swish")
    x = s = _cbr(k, k.L.Concatenate()([a, y, b]), 8, 1)
    x = _cbr(k, x, 8, strides=2)
    p = _cbr(k, x, 4, 1)
    pools = [p]
    for _ in range(3):
        pools.append(k.L.MaxPooling2D(5, 1, "same")(pools[-1]))
    x = _cbr(k, k.L.Concatenate()(pools), 8, 1)
    up = k.L.Concatenate()([k.L.UpSampling2D()(x), s])
    up = _cbr(k, up, 6)
    down = k.L.Concatenate()([_cbr(k, up, 6, strides=2), x])
    outs = [k.L.Conv2D(2 * 7, 1)(t) for t in (up, down)]
    outs = [k.L.Reshape((n * n, 2, 7))(o) for o, n in zip(outs, (8, 4), strict=True)]
    return k.Model(i, k.L.Concatenate(axis=1)(outs))


def _shuffle(k, x, groups):
    h, w, c = x.shape[1:]
    x = k.ops.reshape(x, (-1, h, w, groups, c // groups))
    x = k.ops.transpose(x, (0, 1, 2, 4, 3))
    return k.ops.reshape(x, (-1, h, w, c))


def shufflenet_v2(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 12)
    for _ in range(2):
        a, b = k.ops.split(x, 2, axis=-1)
        b = _cbr(k, b, 6, 1)
        b = k.L.DepthwiseConv2D(3, padding="same", use_bias=False)(b)
        b = _cbr(k, k.L.BatchNormalization()(b), 6, 1)
        x = _shuffle(k, k.ops.concatenate([a, b], -1), 2)
    return k.Model(i, _head(k, _cbr(k, x, 8, 1)))


def _shufflenet_v1(k, groups):
    i = k.Input((8, 8, 3))
    x = a = _cbr(k, i, 12)
    x = _cbr(k, x, 12, 1, groups=groups)
    x = k.L.Reshape((8, 8, groups, 12 // groups))(x)
    x = k.L.Permute((1, 2, 4, 3))(x)
    x = k.L.Reshape((8, 8, 12))(x)
    x = k.L.DepthwiseConv2D(3, padding="same")(x)
    x = k.L.Conv2D(12, 1, groups=groups)(x)
    return k.Model(i, _head(k, k.L.ReLU()(k.L.Add()([x, a]))))


def shufflenet_v1(k):
    """Grouped 1x1 convolutions, shuffle by layers."""
    return _shufflenet_v1(k, 2)


def shufflenet_odd(k):
    """Three groups of four: shuffled, no two positions agree on what may go."""
    return _shufflenet_v1(k, 3)


def ghostnet(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    for n in (6, 8):
        p = _cbr(k, x, n, 1)
        g = k.L.ReLU()(k.L.DepthwiseConv2D(3, padding="same")(p))
        x = k.L.Concatenate()([p, g])
    return k.Model(i, _head(k, x))


def squeeze_excite(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    s = k.L.GlobalAveragePooling2D()(x)
    s = k.L.Dense(4, "relu")(s)
    s = k.L.Reshape((1, 1, 8))(k.L.Dense(8, "sigmoid")(s))
    x = x * s
    s = k.ops.mean(x, (1, 2), True)
    s = k.L.Conv2D(3, 1, activation="swish")(s)
    x = k.ops.multiply(k.L.Conv2D(8, 1, activation="hard_sigmoid")(s), x)
    return k.Model(i, _head(k, x))


def eca(k):
    """A convolution over the channels: their order matters, so they stay."""
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    s = k.L.Reshape((8, 1))(k.L.GlobalAveragePooling2D()(x))
    s = k.L.Conv1D(1, 3, padding="same", use_bias=False)(s)
    s = k.L.Reshape((1, 1, 8))(k.L.Activation("sigmoid")(s))
    x = _cbr(k, k.L.Multiply()([x, s]), 6)
    return k.Model(i, _head(k, x))


def cbam(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    squeeze, excite = k.L.Dense(4, "relu"), k.L.Dense(8)
    pools = [k.L.GlobalAveragePooling2D()(x), k.L.GlobalMaxPooling2D()(x)]
    s = k.L.Add()([excite(squeeze(p)) for p in pools])
    x = k.L.Multiply()([x, k.L.Reshape((1, 1, 8))(k.L.Activation("sigmoid")(s))])
    m = [k.ops.mean(x, -1, True), k.ops.max(x, -1, True)]
    m = k.L.Conv2D(1, 7, padding="same", activation="sigmoid")(k.ops.concatenate(m, -1))
    return k.Model(i, _head(k, _cbr(k, x * m, 6)))


def coordinate_attention(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    h = k.ops.mean(x, 2, True)
    w = k.ops.transpose(k.ops.mean(x, 1, True), (0, 2, 1, 3))
    y = _cbr(k, k.ops.concatenate([h, w], 1), 6, 1)
    h, w = k.ops.split(y, 2, axis=1)
    h = k.L.Conv2D(8, 1, activation="sigmoid")(h)
    w = k.L.Conv2D(8, 1, activation="sigmoid")(k.ops.transpose(w, (0, 2, 1, 3)))
    return k.Model(i, _head(k, x * h * w))


def _mlp(k, x, wide, out):
    return k.L.Dense(out)(k.L.Dense(wide, "gelu")(x))


def vit(k):
    """Patches by a convolution, position embedding by a constant, MultiHeadAttention."""
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(12, 2, 2)(i)
    x = k.L.Reshape((16, 12))(x)
    x = x + np.random.default_rng(0).normal(size=(1, 16, 12)).astype("float32")
    for _ in range(2):
        y = k.L.LayerNormalization()(x)
        x = k.L.Add()([k.L.MultiHeadAttention(3, 4)(y, y), x])
        x = k.L.Add()([_mlp(k, k.L.LayerNormalization()(x), 16, 12), x])
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
    x = x + _mlp(k, k.L.LayerNormalization()(x), 16, 12)
    return k.Model(i, k.L.Dense(3)(x[:, 0]))


def mobilevit(k):
    """Unfold into patches, attend, fold back, join with the input."""
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    y = k.L.Conv2D(12, 1)(k.L.Conv2D(8, 3, padding="same", activation="swish")(x))
    y = k.ops.reshape(y, (-1, 4, 2, 4, 2, 12))
    y = k.ops.transpose(y, (0, 2, 4, 1, 3, 5))
    y = k.ops.reshape(y, (-1, 4, 16, 12))
    z = k.L.LayerNormalization()(y)
    y = y + k.L.MultiHeadAttention(2, 6, attention_axes=(2,))(z, z)
    y = y + _mlp(k, k.L.LayerNormalization()(y), 16, 12)
    y = k.ops.reshape(y, (-1, 2, 2, 4, 4, 12))
    y = k.ops.transpose(y, (0, 3, 1, 4, 2, 5))
    y = k.ops.reshape(y, (-1, 8, 8, 12))
    x = k.ops.concatenate([x, k.L.Conv2D(8, 1)(y)], -1)
    return k.Model(i, _head(k, _cbr(k, x, 6)))


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
        x = x + _mlp(k, k.L.LayerNormalization()(x), 20, 12)
    x = k.ops.concatenate([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1)
    x = k.L.Dense(10, use_bias=False)(k.L.LayerNormalization()(x))
    return k.Model(i, _head(k, x))


def own_attention(k):
    """Multi-head attention written out, as a Swin block or a GPT does it."""
    i = k.Input((6, 8))
    x = k.L.Dense(12)(i)
    qkv = k.ops.reshape(k.L.Dense(36)(x), (-1, 6, 3, 3, 4))
    qkv = k.ops.transpose(qkv, (2, 0, 3, 1, 4))
    q, key, v = qkv[0], qkv[1], qkv[2]
    s = k.ops.softmax(k.ops.matmul(q * 0.5, k.ops.transpose(key, (0, 1, 3, 2))), -1)
    y = k.ops.reshape(k.ops.transpose(k.ops.matmul(s, v), (0, 2, 1, 3)), (-1, 6, 12))
    return k.Model(i, k.L.Dense(3)(x + k.L.Dense(12)(y)))


def own_attention_einsum(k):
    """Query, key and value apart, products as einsum."""
    i = k.Input((6, 8))
    x = k.L.Dense(12)(i)
    q, key, v = (k.L.Reshape((6, 3, 4))(k.L.Dense(12)(x)) for _ in range(3))
    s = k.ops.softmax(k.ops.einsum("bqhd,bkhd->bhqk", q, key), -1)
    y = k.ops.einsum("bhqk,bkhd->bqhd", s, v)
    y = k.L.Dense(12)(k.L.Reshape((6, 12))(y))
    return k.Model(i, k.L.Dense(3)(k.L.Flatten()(x + y)))


def mlp_mixer(k):
    i = k.Input((8, 8, 3))
    x = k.L.Reshape((16, 10))(k.L.Conv2D(10, 2, 2)(i))
    for _ in range(2):
        y = k.L.Permute((2, 1))(k.L.LayerNormalization()(x))
        y = k.L.Dense(16)(k.L.Dense(12, "gelu")(y))
        x = k.L.Add()([x, k.L.Permute((2, 1))(y)])
        x = k.L.Add()([x, _mlp(k, k.L.LayerNormalization()(x), 14, 10)])
    return k.Model(i, k.L.Dense(3)(k.L.GlobalAveragePooling1D()(x)))


def gmlp(k):
    i = k.Input((6, 8))
    x = i
    for _ in range(2):
        y = k.L.Dense(16, "gelu")(k.L.LayerNormalization()(x))
        u, v = k.ops.split(y, 2, axis=-1)
        v = k.L.Permute((2, 1))(k.L.LayerNormalization()(v))
        v = k.L.Permute((2, 1))(k.L.Dense(6)(v))
        x = k.L.Dense(8)(u * v)
    return k.Model(i, k.L.Dense(3)(k.L.GlobalAveragePooling1D()(x)))


def convnext(k):
    i = k.Input((8, 8, 3))
    x = k.L.LayerNormalization(epsilon=1e-6)(k.L.Conv2D(8, 2, 2)(i))
    for _ in range(2):
        y = k.L.DepthwiseConv2D(3, padding="same")(x)
        y = k.L.LayerNormalization(epsilon=1e-6)(y)
        x = x + k.L.Dense(8)(k.L.Dense(20, "gelu")(y)) * np.full(8, 0.3, "float32")
    return k.Model(i, k.L.Dense(3)(k.L.LayerNormalization()(k.L.GlobalAveragePooling2D()(x))))


def repvgg(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    for _ in range(2):
        branches = [
            _cbr(k, x, 8, act=None),
            _cbr(k, x, 8, 1, act=None),
            k.L.BatchNormalization()(x),
        ]
        x = k.L.ReLU()(k.L.Add()(branches))
    return k.Model(i, _head(k, x))


def res2net(k):
    i = k.Input((8, 8, 3))
    x = a = _cbr(k, i, 12)
    parts = k.ops.split(x, 4, axis=-1)
    done = [parts[0]]
    for p in parts[1:]:
        done.append(_cbr(k, p + done[-1] if len(done) > 1 else p, 3))
    x = k.L.Conv2D(12, 1)(k.ops.concatenate(done, -1))
    return k.Model(i, _head(k, k.ops.relu(x + a)))


def resnext(k):
    i = k.Input((8, 8, 3))
    x = a = _cbr(k, i, 8)
    x = _cbr(k, _cbr(k, x, 12, 1), 12, groups=3)
    x = k.L.ReLU()(k.L.Add()([_cbr(k, x, 8, 1, act=None), a]))
    return k.Model(i, _head(k, x))


def densenet(k):
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(8, 3, padding="same")(i)
    for _ in range(3):
        y = k.L.ReLU()(k.L.BatchNormalization()(x))
        x = k.L.Concatenate()([x, k.L.Conv2D(4, 3, padding="same")(y)])
    x = k.L.Conv2D(10, 1)(k.L.ReLU()(k.L.BatchNormalization()(x)))
    return k.Model(i, _head(k, k.L.AveragePooling2D(2)(x)))


def inception(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    a = _cbr(k, x, 4, 1)
    b = _cbr(k, _cbr(k, x, 4, 1), 6, (1, 3))
    c = _cbr(k, k.L.AveragePooling2D(3, 1, "same")(x), 4, 1)
    return k.Model(
        i, _head(k, _cbr(k, k.L.Concatenate()([a, b, c, k.L.MaxPooling2D(3, 1, "same")(x)]), 6))
    )


def hrnet(k):
    i = k.Input((8, 8, 3))
    a = _cbr(k, i, 6)
    b = _cbr(k, a, 8, strides=2)
    for _ in range(2):
        up = k.L.UpSampling2D()(_cbr(k, b, 6, 1, act=None))
        down = _cbr(k, a, 8, strides=2, act=None)
        a, b = k.L.ReLU()(k.L.Add()([a, up])), k.L.ReLU()(k.L.Add()([b, down]))
    x = k.L.Concatenate()([a, k.ops.resize(b, (8, 8))])
    return k.Model(i, k.L.Conv2D(2, 1)(x))


def deeplab(k):
    i = k.Input((8, 8, 3))
    low = x = _cbr(k, i, 8)
    x = _cbr(k, x, 8, strides=2)
    pool = k.L.GlobalAveragePooling2D(keepdims=True)(x)
    pool = k.ops.resize(k.L.Conv2D(4, 1, activation="relu")(pool), (4, 4))
    branches = [k.L.Conv2D(4, 3, padding="same", dilation_rate=d)(x) for d in (1, 2)]
    sep = k.L.SeparableConv2D(4, 3, padding="same")(x)
    x = _cbr(k, k.L.Concatenate()([*branches, pool, sep]), 6, 1)
    x = k.L.UpSampling2D(interpolation="bilinear")(x)
    x = k.L.Concatenate()([x, _cbr(k, low, 4, 1)])
    return k.Model(i, k.L.Conv2D(2, 3, padding="same")(x))


def non_local(k):
    i = k.Input((4, 4, 3))
    x = _cbr(k, i, 8)
    flat = [k.ops.reshape(k.L.Conv2D(6, 1)(x), (-1, 16, 6)) for _ in range(3)]
    s = k.ops.softmax(k.ops.matmul(flat[0], k.ops.transpose(flat[1], (0, 2, 1))), -1)
    y = k.ops.reshape(k.ops.matmul(s, flat[2]), (-1, 4, 4, 6))
    return k.Model(i, _head(k, x + k.L.Conv2D(8, 1)(y)))


def channel_self_attention(k):
    """Attention between channels (DANet, XCiT): two labelled axes at once."""
    i = k.Input((4, 4, 3))
    x = _cbr(k, i, 8)
    f = k.L.Reshape((16, 8))(x)
    q = k.ops.normalize(k.L.Permute((2, 1))(f), -1)
    s = k.ops.softmax(k.ops.matmul(q, f), -1)
    y = k.ops.transpose(k.ops.matmul(s, k.ops.transpose(f, (0, 2, 1))), (0, 2, 1))
    return k.Model(i, _head(k, x + k.ops.reshape(y, (-1, 4, 4, 8))))


def wavenet(k):
    i = k.Input((16, 2))
    x = k.L.Conv1D(8, 2, padding="causal")(i)
    skips = []
    for d in (1, 2, 4):
        t = k.L.Conv1D(8, 2, padding="causal", dilation_rate=d, activation="tanh")(x)
        g = k.L.Conv1D(8, 2, padding="causal", dilation_rate=d, activation="sigmoid")(x)
        y = k.L.Multiply()([t, g])
        skips.append(k.L.Conv1D(6, 1)(y))
        x = k.L.Add()([x, k.L.Conv1D(8, 1)(y)])
    x = k.L.ReLU()(k.L.Add()(skips))
    return k.Model(i, k.L.Conv1D(4, 1, activation="softmax")(x))


def tcn(k):
    i = k.Input((16, 2))
    x = i
    for n in (6, 8):
        y = k.L.Conv1D(n, 3, padding="causal", activation="relu")(x)
        y = k.L.SpatialDropout1D(0.1)(k.L.LayerNormalization()(y))
        y = k.L.Conv1D(n, 3, padding="causal", activation="relu")(y)
        x = k.L.Activation("relu")(k.L.Add()([k.L.Conv1D(n, 1)(x), y]))
    return k.Model(i, k.L.Dense(2)(x[:, -1, :]))


def crnn(k):
    i = k.Input((8, 16, 1))
    x = k.L.MaxPooling2D()(_cbr(k, i, 6))
    x = k.L.MaxPooling2D((2, 1))(_cbr(k, x, 8))
    x = k.L.Permute((2, 1, 3))(x)
    x = k.L.Reshape((8, 2 * 8))(x)
    x = k.L.Dense(10, "relu")(x)
    x = k.L.Bidirectional(k.L.LSTM(6, return_sequences=True))(x)
    x = k.L.Bidirectional(k.L.GRU(5, return_sequences=True), merge_mode="ave")(x)
    return k.Model(i, k.L.Dense(4, "softmax")(x))


def ds_cnn(k):
    i = k.Input((12, 10, 1))
    x = _cbr(k, i, 8, (4, 3), strides=2)
    for _ in range(2):
        x = k.L.ReLU()(k.L.BatchNormalization()(k.L.DepthwiseConv2D(3, padding="same")(x)))
        x = _cbr(k, x, 8, 1)
    x = k.L.Dropout(0.2)(x)
    x = k.L.AveragePooling2D((6, 5))(x)
    return k.Model(i, k.L.Dense(3, "softmax")(k.L.Flatten()(x)))


def autoencoder(k):
    i = k.Input((8, 8, 1))
    x = k.L.Conv2D(6, 3, 2, "same", activation="relu")(i)
    x = k.L.Dense(5, name="code")(k.L.Flatten()(x))
    x = k.L.Dense(4 * 4 * 6, "relu")(x)
    x = k.L.Reshape((4, 4, 6))(x)
    x = k.L.Conv2DTranspose(6, 3, 2, "same", activation="relu")(x)
    return k.Model(i, k.L.Conv2D(1, 3, padding="same", activation="sigmoid")(x))


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


def text_cnn(k):
    i = k.Input((12,), dtype="int32")
    x = k.L.Embedding(10, 8)(i)
    x = k.L.Concatenate()(
        [k.L.GlobalMaxPooling1D()(k.L.Conv1D(6, n, activation="relu")(x)) for n in (2, 3, 4)]
    )
    return k.Model(i, k.L.Dense(2)(k.L.Dropout(0.5)(x)))


def encoder_decoder(k):
    a, b = k.Input((6,), dtype="int32", name="source"), k.Input((5,), dtype="int32", name="target")
    y, h, c = k.L.LSTM(8, return_sequences=True, return_state=True)(k.L.Embedding(10, 6)(a))
    x = k.L.LSTM(8, return_sequences=True)(k.L.Embedding(10, 6)(b), initial_state=[h, c])
    x = k.L.Concatenate()([x, k.L.Attention()([x, y])])
    return k.Model([a, b], k.L.TimeDistributed(k.L.Dense(4, "softmax"))(x))


def bidirectional_states(k):
    a, b = k.Input((6, 3), name="source"), k.Input((5, 3), name="target")
    _, fh, fc, bh, bc = k.L.Bidirectional(k.L.LSTM(4, return_state=True))(a)
    h, c = k.L.Concatenate()([fh, bh]), k.L.Concatenate()([fc, bc])
    x = k.L.LSTM(8, return_sequences=True)(b, initial_state=[h, c])
    x = k.L.Bidirectional(k.L.GRU(5))(x)
    return k.Model([a, b], k.L.Dense(2)(x))


def attention_pooling(k):
    i = k.Input((6,), dtype="int32")
    x = k.L.Bidirectional(k.L.LSTM(5, return_sequences=True))(k.L.Embedding(10, 8)(i))
    s = k.L.Dense(1)(k.L.Dense(6, "tanh")(x))
    s = k.L.Softmax(axis=1)(s)
    return k.Model(i, k.L.Dense(2)(k.ops.sum(x * s, 1)))


def attention_repeat(k):
    """Scores flattened, softmax, repeated over the features: Flatten, RepeatVector, Permute."""
    i = k.Input((6, 4))
    x = k.L.LSTM(5, return_sequences=True)(i)
    s = k.L.Activation("softmax")(k.L.Flatten()(k.L.Dense(1, "tanh")(x)))
    s = k.L.Permute((2, 1))(k.L.RepeatVector(5)(s))
    return k.Model(i, k.L.Dense(2)(k.ops.sum(k.L.Multiply()([x, s]), 1)))


def transformer(k):
    a, b = k.Input((6,), dtype="int32", name="source"), k.Input((5,), dtype="int32", name="target")
    m = k.Input((5, 6), name="mask")
    table = k.L.Embedding(10, 12)
    x, y = table(a), table(b)
    z = k.L.MultiHeadAttention(2, 6)(x, x)
    x = k.L.LayerNormalization()(x + z)
    x = k.L.LayerNormalization()(x + _mlp(k, x, 16, 12))
    z = k.L.MultiHeadAttention(3, 4, value_dim=5)(y, y, use_causal_mask=True)
    y = k.L.LayerNormalization()(y + z)
    z, scores = k.L.MultiHeadAttention(2, 4, use_bias=False)(
        y, x, attention_mask=k.ops.cast(m, "bool"), return_attention_scores=True
    )
    y = k.L.LayerNormalization()(y + z)
    y = y + _mlp(k, y, 16, 12)
    return k.Model([a, b, m], [k.L.Dense(4)(y), k.ops.mean(scores, 1)])


def masked_gru(k):
    i = k.Input((6,), dtype="int32")
    j = k.Input((6, 3), name="features")
    x = k.L.Embedding(10, 8, mask_zero=True)(i)
    x = k.L.GRU(6, return_sequences=True)(x)
    y = k.L.LSTM(5)(k.L.Masking()(j))
    x = k.L.Bidirectional(k.L.GRU(4))(x)
    return k.Model([i, j], k.L.Dense(2)(k.L.Concatenate()([x, y])))


def conv_lstm(k):
    i = k.Input((3, 6, 6, 2))
    x = k.L.ConvLSTM2D(6, 3, padding="same", return_sequences=True)(i)
    x = k.L.BatchNormalization()(x)
    x = k.L.ConvLSTM2D(4, 3, padding="same")(x)
    return k.Model(i, k.L.Conv2D(2, 1)(x))


def time_distributed(k):
    cnn = k.Sequential(
        [k.Input((6, 6, 2)), k.L.Conv2D(6, 3, activation="relu"), k.L.BatchNormalization(),
         k.L.GlobalAveragePooling2D(), k.L.Dense(5, "relu")], name="cnn")  # fmt: skip
    i = k.Input((3, 6, 6, 2))
    x = k.L.TimeDistributed(cnn)(i)
    return k.Model(i, k.L.Dense(2)(k.L.LSTM(6)(x)))


def time_distributed_layers(k):
    i = k.Input((3, 8, 8, 2))
    x = k.L.TimeDistributed(k.L.Conv2D(6, 3, activation="relu"))(i)
    x = k.L.TimeDistributed(k.L.BatchNormalization())(x)
    x = k.L.TimeDistributed(k.L.MaxPooling2D())(x)
    x = k.L.TimeDistributed(k.L.Flatten())(x)
    return k.Model(i, k.L.Dense(2)(k.L.GRU(5)(x)))


def multi_task(k):
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 8)
    heads = {n: k.L.Dense(d, name=n)(k.L.Dense(6, "relu")(k.L.Flatten()(_cbr(k, x, 4))))
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
    return k.Model(i, _head(k, x))


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
    x = _cbr(k, i, 8)
    scale = k.L.Reshape((1, 1, 8))(k.L.Dense(8)(c))
    shift = k.L.Reshape((1, 1, 8))(k.L.Dense(8)(c))
    x = k.L.ReLU()(k.L.Add()([k.L.Multiply()([x, scale]), shift]))
    return k.Model([i, c], _head(k, x))


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


def squeezenet(k):
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(8, 3, activation="relu")(i)
    for n in (3, 4):
        s = k.L.Conv2D(n, 1, activation="relu")(x)
        x = k.L.Concatenate()([k.L.Conv2D(6, 1, activation="relu")(s),
                               k.L.Conv2D(6, 3, padding="same", activation="relu")(s)])  # fmt: skip
    x = k.L.Conv2D(4, 1)(x)
    return k.Model(i, k.L.Activation("softmax")(k.L.GlobalAveragePooling2D()(x)))


def network_in_network(k):
    i = k.Input((8, 8, 3))
    x = i
    for n in (8, 6):
        for size in (3, 1):
            x = k.L.Conv2D(n, size, padding="same", activation="relu")(x)
    return k.Model(i, k.L.GlobalAveragePooling2D()(k.L.Conv2D(3, 1)(x)))


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


def spectral(k):
    i = k.Input((8, 8, 3))
    x = k.L.SpectralNormalization(k.L.Conv2D(8, 3, padding="same"))(i)
    x = k.L.SpectralNormalization(k.L.Conv2DTranspose(6, 3, 2))(k.L.LeakyReLU()(x))
    return k.Model(i, k.L.SpectralNormalization(k.L.Dense(2))(k.L.GlobalMaxPooling2D()(x)))


def lambda_in_the_middle(k):
    i = k.Input((6,))
    x = k.L.Dense(8)(i)
    x = k.L.Lambda(lambda t: t * 2.0, name="twice")(x)
    return k.Model(i, k.L.Dense(2)(k.L.Dense(6)(x)))


def resnet_option_a(k):
    """A shortcut without weights: strided slice and zero channels."""
    i = k.Input((8, 8, 3))
    a = _cbr(k, i, 6)
    x = _cbr(k, _cbr(k, a, 10, strides=2), 10, act=None)
    a = k.ops.pad(a[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [2, 2]])
    return k.Model(i, _head(k, k.L.ReLU()(x + a)))


def even_odd_channels(k):
    i = k.Input((6, 6, 3))
    x = _cbr(k, i, 8)
    a, b = x[..., ::2], x[..., 1::2]
    x = k.ops.concatenate([a * b, k.ops.flip(a, -1)], -1)
    return k.Model(i, _head(k, _cbr(k, x, 6)))


def gathered_channels(k):
    i = k.Input((6, 6, 3))
    x = _cbr(k, i, 8)
    x = k.ops.take(x, [0, 4, 1, 5, 2, 6, 3, 7], -1)
    x = k.L.Conv2D(6, 1)(x)
    y = k.ops.repeat(k.ops.tile(x, (1, 1, 1, 2)), 2, -1)
    return k.Model(i, _head(k, k.ops.concatenate([y, x[..., 2:3]], -1)))


def broadcasts(k):
    i, j = k.Input((5, 4)), k.Input((3,), name="other")
    x = k.L.Dense(6)(i)
    y = k.L.Add()([x, k.L.Dense(6)(j)])  # ranks 3 and 2
    z = k.ops.cumsum(y, -1)
    w = k.ops.where(x > 0, x, y * np.arange(6).astype("float32"))
    return k.Model([i, j], k.L.Dense(2)(k.L.Flatten()(k.L.Concatenate()([z, w, y]))))


def bilinear_pooling(k):
    i = k.Input((4, 4, 3))
    a = k.L.Reshape((16, 5))(k.L.Conv2D(5, 1)(i))
    b = k.L.Reshape((16, 4))(k.L.Conv2D(4, 1)(i))
    x = k.L.Flatten()(k.ops.matmul(k.ops.transpose(a, (0, 2, 1)), b))
    return k.Model(i, k.L.Dense(2)(x))


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


def efficient_attention(k):
    """Linear attention: softmax over the features, then key times value."""
    i = k.Input((6, 4))
    q, key, v = k.L.Dense(6)(i), k.L.Dense(6)(i), k.L.Dense(8)(i)
    context = k.ops.matmul(k.ops.transpose(k.ops.softmax(key, 1), (0, 2, 1)), v)
    return k.Model(i, k.L.Dense(2)(k.ops.matmul(k.ops.softmax(q, -1), context)))


def stacked_cells(k):
    i = k.Input((5, 3))
    x = k.L.RNN(k.L.LSTMCell(6), return_sequences=True)(i)
    x = k.L.RNN([k.L.GRUCell(5), k.L.SimpleRNNCell(4)])(x)
    return k.Model(i, k.L.Dense(2)(x))


def preprocessing(k):
    i = k.Input((8, 8, 3))
    norm = k.L.Normalization()
    norm.adapt(np.random.default_rng(0).normal(1, 2, (16, 8, 8, 3)).astype("float32"))
    x = norm(k.L.Rescaling(1 / 255.0)(i))
    x = k.L.RandomFlip()(k.L.RandomRotation(0.1)(k.L.Resizing(8, 8)(x)))
    x = k.L.RandomZoom(0.1)(_cbr(k, k.L.CenterCrop(8, 8)(x), 6))
    return k.Model(i, _head(k, x))


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
    return k.Model(i, _head(k, k.L.Concatenate()([h1, h2 + h3, z])))


def netvlad(k):
    i = k.Input((4, 4, 3))
    x = k.L.Reshape((16, 6))(k.L.Conv2D(6, 3, padding="same")(i))
    a = k.L.Dense(4, "softmax")(x)
    v = k.ops.matmul(k.ops.transpose(a, (0, 2, 1)), x)
    v = k.ops.normalize(v, -1)
    return k.Model(i, k.L.Dense(2)(k.ops.reshape(v, (-1, 24))))


def deep_supervision(k):
    """UNet++ like nesting with an average of the heads."""
    i = k.Input((8, 8, 3))
    a = _cbr(k, i, 6)
    b = _cbr(k, k.L.MaxPooling2D()(a), 6)
    c = _cbr(k, k.L.Concatenate()([a, k.L.UpSampling2D()(b)]), 6)
    d = _cbr(k, k.L.Concatenate()([a, c, k.L.UpSampling2D()(b)]), 6)
    outs = [k.L.Conv2D(2, 1)(t) for t in (a, c, d)]
    return k.Model(i, k.L.Average()(outs))


def rnn_on_conv3d(k):
    i = k.Input((4, 6, 6, 1))
    x = k.L.Conv3D(6, 3, padding="same", activation="relu")(i)
    x = k.L.MaxPooling3D((1, 2, 2))(k.L.ZeroPadding3D((0, 1, 1))(x))
    x = k.L.Conv3DTranspose(4, 3, padding="same")(x)
    x = k.L.Reshape((4, -1))(x)
    return k.Model(i, k.L.Dense(2)(k.L.SimpleRNN(5)(x)))


def depthwise_1d(k):
    i = k.Input((12, 3))
    x = k.L.Conv1D(6, 3, padding="same", activation="relu")(i)
    x = k.L.DepthwiseConv1D(3, padding="same", depth_multiplier=2)(x)
    x = k.L.SeparableConv1D(8, 3, padding="same", depth_multiplier=2)(x)
    x = k.L.Conv1DTranspose(6, 3, strides=2)(x)
    x = k.L.Cropping1D(2)(k.L.UpSampling1D(2)(k.L.ZeroPadding1D(1)(x)))
    return k.Model(i, k.L.Dense(2)(k.L.AveragePooling1D(2)(x)))


def free_sizes(k):
    """Free height, width and length."""
    i, j = k.Input((None, None, 3)), k.Input((None, 4), name="steps")
    x = _cbr(k, i, 8)
    x = k.ops.mean(k.ops.reshape(x, (-1, 64, 8)), 1) if k.flavour == "tf_keras" else _gap(k, x)
    y = k.L.GRU(5, return_sequences=True)(j)
    y = k.L.MultiHeadAttention(2, 4)(y, y)
    y = k.L.GlobalMaxPooling1D()(k.L.Conv1D(6, 3, padding="same")(y))
    return k.Model([i, j], k.L.Dense(2)(k.L.Concatenate()([x, y])))


def _gap(k, x):
    return k.L.GlobalAveragePooling2D()(x)


def grouped_query(k):
    i = k.Input((6, 8))
    x = k.L.Dense(12)(i)
    y = k.L.GroupQueryAttention(4, 4, 2)(k.L.RMSNormalization()(x), x)
    return k.Model(i, k.L.Dense(2)(x + y))


def llama_like(k):
    i = k.Input((6,), dtype="int32")
    table = k.L.ReversibleEmbedding(10, 12)
    x = table(i)
    y = k.L.RMSNormalization()(x)
    q, key, v = (k.ops.reshape(k.L.Dense(12, use_bias=False)(y), (-1, 6, 3, 4)) for _ in range(3))
    y = k.ops.dot_product_attention(q, key, v, is_causal=True)
    x = x + k.L.Dense(12, use_bias=False)(k.ops.reshape(y, (-1, 6, 12)))
    y = k.L.RMSNormalization()(x)
    x = x + k.L.Dense(12)(k.ops.silu(k.L.Dense(16)(y)) * k.L.Dense(16)(y))
    return k.Model(i, table(k.L.LayerNormalization()(x), reverse=True))


def adaptive_pools(k):
    i = k.Input((8, 8, 3))
    x = k.L.AdaptiveAveragePooling2D((4, 4))(_cbr(k, i, 6))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(k.L.AdaptiveMaxPooling2D((2, 2))(x))))


def locally_connected(k):
    i = k.Input((6, 6, 2))
    x = k.L.LocallyConnected2D(5, 3, activation="relu")(k.L.Conv2D(6, 1)(i))
    x = k.L.LocallyConnected1D(4, 3)(k.L.Reshape((16, 5))(x))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def blur_pool(k):
    kernel = np.outer([1, 2, 1], [1, 2, 1])[..., None, None] / 16.0
    kernel = np.tile(kernel, (1, 1, 6, 1)).astype("float32")
    i = k.Input((8, 8, 3))
    x = _cbr(k, i, 6)
    x = tf.nn.depthwise_conv2d(x, kernel, (1, 2, 2, 1), "SAME")
    return k.Model(i, _head(k, tf.nn.bias_add(x, np.arange(6).astype("float32"))))


def dynamic_shapes(k):
    """Reshapes by tf.shape, as code for free batch and length does it."""
    i = k.Input((None, 8))
    x = k.L.Dense(12)(i)
    n, t = tf.shape(x)[0], tf.shape(x)[1]
    q = tf.transpose(tf.reshape(x, (n, t, 3, 4)), (0, 2, 1, 3))
    s = tf.nn.softmax(tf.matmul(q, q, transpose_b=True))
    x = tf.reshape(tf.transpose(tf.matmul(s, q), (0, 2, 1, 3)), (n, t, 12))
    return k.Model(i, k.L.Dense(2)(x))


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


BOTH = [
    unet, unet_valid, fpn, yolo, shufflenet_v2, shufflenet_v1, shufflenet_odd, ghostnet,
    squeeze_excite, eca, cbam, coordinate_attention, vit, vit_class_token, mobilevit, swin,
    own_attention, own_attention_einsum, mlp_mixer, gmlp, convnext, repvgg, res2net, resnext,
    densenet, inception, hrnet, deeplab, non_local, channel_self_attention, wavenet, tcn, crnn,
    ds_cnn, autoencoder, vae, siamese, siamese_distance, two_tower, text_cnn, encoder_decoder,
    bidirectional_states, attention_pooling, attention_repeat, transformer, masked_gru, conv_lstm,
    time_distributed, time_distributed_layers, multi_task, maxout, glu, highway, edsr,
    pixel_shuffle, pixel_shuffle_channel_major, space_to_depth, generator, style_modulation, film,
    pointnet, squeezenet, network_in_network, capsules, mixture_of_experts, mixture_layers,
    softmax_inside, lambda_in_the_middle, resnet_option_a, even_odd_channels, gathered_channels,
    broadcasts, bilinear_pooling, efficient_attention, stacked_cells, preprocessing, tabular,
    wide_normalizations, shared_stages, netvlad, deep_supervision, rnn_on_conv3d, depthwise_1d,
    repeats, free_sizes, channels_first,
]  # fmt: skip
ONLY = {
    "keras3": [grouped_query, llama_like, adaptive_pools, spectral],
    "tf_keras": [locally_connected, blur_pool, dynamic_shapes],
}
CASES = [
    (flavour, builder.__name__)
    for flavour in ("tf_keras", "keras3")
    for builder in (*BOTH, *ONLY[flavour])
]
SHARED = {b.__name__ for b in BOTH}
_BUILDERS = {b.__name__: b for b in (*BOTH, *ONLY["keras3"], *ONLY["tf_keras"])}


def build(flavour: str, name: str, seed: int = 0):
    """A model with random weights."""
    library(flavour).backend.clear_session()
    return randomize(_BUILDERS[name](kit(flavour)), seed)


def randomize(model, seed: int = 0):
    """Random weights of a size that keeps activations alive; variances and scales positive."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        name = getattr(w, "path", w.name)
        dtype = w.dtype if isinstance(w.dtype, str) else w.dtype.name
        if not dtype.startswith("float") or name.split("/")[-1].split(":")[0] in _STATE:
            continue
        fan = int(np.prod(w.shape[:-1])) or 1
        value = rng.normal(0, 1.2 / np.sqrt(min(fan, 64)), w.shape)
        if any(n in name for n in ("variance", "gamma", "scale")):
            value = np.abs(value) + 0.5
        w.assign(value)
    return model


_STATE = ("mean", "variance", "count")  # what Normalization adapted


def inputs_for(model, batch: int = 3, seed: int = 1) -> list[np.ndarray]:
    """Random inputs in the order of the model's inputs; free sizes are 8."""
    rng = np.random.default_rng(seed)
    out = []
    for t in model.inputs:
        shape = (batch, *(d or 8 for d in t.shape[1:]))
        dtype = t.dtype if isinstance(t.dtype, str) else t.dtype.name
        whole = rng.integers(0, 10, shape).astype("int32")
        out.append(whole if dtype == "int32" else rng.normal(size=shape).astype("float32"))
    return out

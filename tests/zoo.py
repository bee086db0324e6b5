"""One tiny tf_keras model per topology, with random weights and batch statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfedge._keras import keras, tf

L = keras.layers


def chain():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(8, 3, padding="same", activation="relu"),
            L.Conv2D(6, 3, strides=2),
            L.BatchNormalization(),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(5),
        ]
    )


def mlp():
    return keras.Sequential(
        [keras.Input((7,)), L.Dense(16, "sigmoid"), L.Dense(8, "relu"), L.Dense(3)]
    )


def residual():
    x = i = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = L.BatchNormalization()(x)
    a = x = L.ReLU()(x)
    x = L.Conv2D(6, 3, padding="same")(x)
    x = L.BatchNormalization()(x)
    x = L.Activation("relu")(x)
    x = L.Conv2D(8, 3, padding="same")(x)
    x = L.BatchNormalization()(x)
    x = L.ReLU()(L.Add()([x, a]))
    s = L.Conv2D(10, 1, strides=2)(x)
    x = L.Conv2D(10, 3, strides=2, padding="same")(x)
    x = L.Add()([s, x])
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(x)))


def concat():
    i = keras.Input((6, 6, 2))
    a = L.Conv2D(4, 1, activation="tanh")(i)
    b = L.Conv2D(6, 3, padding="same", activation="sigmoid")(i)
    x = L.Concatenate()([a, b, a])
    x = L.BatchNormalization()(x)
    return keras.Model(i, L.Dense(3)(L.Flatten()(L.Conv2D(5, 3)(x))))


def depthwise():
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, strides=2, padding="same", activation="relu")(i)
    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    x = L.BatchNormalization()(x)
    x = L.ReLU(6.0)(x)
    x = L.Conv2D(8, 1)(x)
    x = L.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu")(x)
    return keras.Model(i, L.Dense(4)(L.Flatten()(x)))


def flatten_dense():
    i = keras.Input((6, 6, 2))
    x = L.MaxPooling2D()(L.Conv2D(8, 3, padding="same", activation="relu")(i))
    x = L.Dense(12, "relu")(L.Flatten()(x))
    x = L.Dropout(0.3)(x)
    return keras.Model(i, L.Dense(4, "softmax")(x))


def grouped():
    i = keras.Input((6, 6, 2))
    x = L.Conv2D(12, 3, padding="same", activation="relu")(i)
    x = L.Conv2D(12, 3, padding="same", groups=3, activation="relu")(x)
    x = L.Conv2D(12, 3, padding="same", groups=12)(x)
    return keras.Model(i, L.Dense(4)(L.GlobalMaxPooling2D()(x)))


def squeeze_excite():
    i = keras.Input((6, 6, 2))
    x = L.Conv2D(8, 3, padding="same", activation="swish")(i)
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = L.Conv2D(4, 1, activation="relu")(s)
    s = L.Conv2D(8, 1, activation="sigmoid")(s)
    x = L.Multiply()([x, s])
    m = L.Conv2D(1, 1, activation="sigmoid")(x)
    x = L.Multiply()([x, m])
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(x)))


def transpose_and_upsample():
    i = keras.Input((4, 4, 3))
    x = L.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(i)
    x = L.ZeroPadding2D(1)(x)
    x = L.UpSampling2D(2)(x)
    x = L.Cropping2D(1)(x)
    x = L.PReLU(shared_axes=[1, 2])(x)
    return keras.Model(i, L.Conv2D(2, 3)(x))


def reshaping():
    i = keras.Input((12,))
    x = L.Dense(4 * 4 * 6, "relu")(i)
    x = L.Reshape((4, 4, 6))(x)
    x = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = L.Permute((2, 1, 3))(x)
    x = L.Reshape((16, 8))(x)
    x = L.Conv1D(6, 3, activation="relu")(x)
    return keras.Model(i, L.Dense(3)(L.Flatten()(x)))


def channel_shuffle():
    i = keras.Input((4, 4, 3))
    x = L.Conv2D(8, 1, activation="relu")(i)
    x = L.Reshape((4, 4, 2, 4))(x)
    x = L.Permute((1, 2, 4, 3))(x)
    x = L.Reshape((4, 4, 8))(x)
    x = L.DepthwiseConv2D(3, padding="same")(x)
    return keras.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(6, 1)(x))))


def shared_layer():
    a, b = keras.Input((6, 6, 2), name="left"), keras.Input((6, 6, 2), name="right")
    stem = L.Conv2D(8, 3, activation="relu")
    x = L.Subtract()([stem(a), stem(b)])
    return keras.Model([a, b], L.Dense(2)(L.GlobalAveragePooling2D()(x)))


def multi_io():
    a, b = keras.Input((6, 6, 2), name="image"), keras.Input((5,), name="extra")
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, activation="relu")(a))
    y = L.Dense(8, "relu")(b)
    z = L.Concatenate()([x, y])
    return keras.Model(
        [a, b], {"klass": L.Dense(3, name="klass")(z), "size": L.Dense(1, name="size")(y)}
    )


def nested():
    base_in = keras.Input((6, 6, 2))
    base = keras.Model(
        base_in, L.Conv2D(8, 3, activation="relu", name="conv")(base_in), name="base"
    )
    i = keras.Input((6, 6, 2))
    x = L.Conv2D(6, 1, name="conv")(base(i))
    head = keras.Sequential([L.Flatten(), L.Dense(6, "relu"), L.Dense(2)], name="head")
    return keras.Model(i, head(x))


def conv1d():
    i = keras.Input((12, 3))
    x = L.Conv1D(8, 3, activation="relu")(i)
    x = L.LayerNormalization()(L.MaxPooling1D()(x))
    x = L.SeparableConv1D(6, 3, activation="relu")(x)
    return keras.Model(i, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def conv3d():
    i = keras.Input((5, 5, 5, 1))
    x = L.Conv3D(6, 3, activation="relu")(i)
    return keras.Model(i, L.Dense(2)(L.Flatten()(L.AveragePooling3D()(x))))


def recurrent():
    i = keras.Input((6, 4))
    x = L.LSTM(6, return_sequences=True)(i)
    x = L.GRU(4, return_sequences=True)(x)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(x)
    x = L.TimeDistributed(L.Dense(6, "relu"))(x)
    x = L.Bidirectional(L.GRU(4), merge_mode="sum")(x)
    return keras.Model(i, L.Dense(3)(x))


def simple_rnn():
    i = keras.Input((5, 3))
    return keras.Model(i, L.Dense(2)(L.SimpleRNN(6)(i)))


def attention():
    i = keras.Input((6,), dtype="int32")
    x = L.Embedding(11, 8)(i)
    y = L.MultiHeadAttention(4, 6, value_dim=4)(x, x)
    x = L.LayerNormalization()(L.Add()([x, y]))
    y = L.Dense(8)(L.Dense(12, "gelu")(x))
    x = L.LayerNormalization()(L.Add()([x, y]))
    y = L.Attention()([x, x])
    return keras.Model(i, L.Dense(3)(L.GlobalAveragePooling1D()(y)))


def einsum():
    i = keras.Input((5, 6))
    x = L.EinsumDense("abc,cd->abd", output_shape=(None, 8), bias_axes="d", activation="relu")(i)
    x = L.EinsumDense("...c,cd->...d", output_shape=4, bias_axes="d")(x)
    return keras.Model(i, L.Dense(2)(L.Flatten()(x)))


def group_norms():
    i = keras.Input((4, 4, 3))
    x = L.Conv2D(8, 1)(i)
    x = L.ReLU()(L.GroupNormalization(2)(x))
    x = L.GroupNormalization(-1)(L.Conv2D(6, 1)(x))
    x = L.UnitNormalization()(x)
    return keras.Model(i, L.Dense(2)(L.Flatten()(x)))


def tensorflow_ops():
    i = keras.Input((4, 4, 3))
    x = L.Conv2D(8, 3, padding="same")(i)
    a, b = tf.split(x, 2, axis=-1)
    x = tf.concat([a * tf.nn.sigmoid(b), x], -1) * 0.5 + 1.0
    x = tf.nn.relu6(L.Conv2D(16, 1)(x))
    x = tf.nn.depth_to_space(x, 2)
    y = x[:, :, :, 1:3]
    x = x - tf.reduce_mean(x, [1, 2], keepdims=True)
    x = tf.reshape(x, [-1, 64, 4])
    x = tf.transpose(x, [0, 2, 1])
    x = tf.reshape(x, (-1, 256))
    return keras.Model(i, [L.Dense(2)(x), L.Conv2D(2, 1)(y)])


def matrix_products():
    i = keras.Input((5, 6))
    q, k, v = L.Dense(4)(i), L.Dense(4)(i), L.Dense(6)(i)
    s = tf.nn.softmax(tf.matmul(q, k, transpose_b=True))
    x = tf.matmul(s, v)
    return keras.Model(i, L.Dense(2)(L.GlobalMaxPooling1D()(x)))


def constants():
    i = keras.Input((4, 4, 3))
    x = L.Conv2D(6, 1)(i)
    x = x * np.linspace(0.5, 1.5, 6).astype("float32")
    x = L.Dense(8)(tf.expand_dims(L.GlobalAveragePooling2D()(x), 1))
    return keras.Model(i, L.Dense(2)(tf.squeeze(x, 1)))


ZOO: dict[str, Callable] = {
    f.__name__: f
    for f in (
        chain, mlp, residual, concat, depthwise, flatten_dense, grouped, squeeze_excite,
        transpose_and_upsample, reshaping, channel_shuffle, shared_layer, multi_io, nested, conv1d,
        conv3d, recurrent, simple_rnn, attention, einsum, group_norms, tensorflow_ops,
        matrix_products, constants,
    )
}  # fmt: skip


def randomize(model, seed: int = 0):
    """Random weights; variances positive."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        value = rng.normal(0, 0.5, w.shape)
        if "variance" in w.name or "gamma" in w.name:
            value = np.abs(value) + 0.5
        w.assign(value)
    return model


def build(name: str, seed: int = 0):
    """A model of the zoo with fresh names and random weights."""
    keras.backend.clear_session()
    return randomize(ZOO[name](), seed)


def inputs_for(model, batch: int = 3, seed: int = 1):
    """Random inputs in the model's input structure (a list where it has several)."""
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 10, (batch, *t.shape[1:])).astype("int32")
        if t.dtype == "int32"
        else rng.normal(size=(batch, *t.shape[1:])).astype("float32")
        for t in model.inputs
    ]
    return arrays if len(arrays) > 1 else arrays[0]

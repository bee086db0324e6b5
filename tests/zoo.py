"""One tiny tf_keras model per topology, with random weights and batch statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfedge._keras import keras

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


ZOO: dict[str, Callable] = {
    f.__name__: f
    for f in (
        chain, mlp, residual, concat, depthwise, flatten_dense, grouped, squeeze_excite,
        transpose_and_upsample, reshaping, channel_shuffle, shared_layer, multi_io, nested, conv1d,
        conv3d,
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
    arrays = [rng.normal(size=(batch, *t.shape[1:])).astype("float32") for t in model.inputs]
    return arrays if len(arrays) > 1 else arrays[0]

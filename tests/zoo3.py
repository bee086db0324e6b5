"""Keras 3 models: the layers of zoo.py in the other flavour, and keras.ops calls."""

from __future__ import annotations

import keras
import numpy as np

from tests.sessions import fresh

L, ops = keras.layers, keras.ops


def residual():
    i = keras.Input((8, 8, 3))
    a = x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(i)))
    x = L.Conv2D(6, 3, padding="same", activation="hard_silu")(x)
    x = L.Conv2D(8, 3, padding="same")(x)
    x = x + a
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = L.Dense(4, "relu")(s)
    x = x * L.Dense(8, "hard_sigmoid")(s)
    x = L.SeparableConv2D(8, 3)(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=2)(x)
    return keras.Model(i, L.Dense(3)(L.Flatten()(x)))


def operations():
    i = keras.Input((4, 4, 3))
    x = L.Conv2D(8, 3, padding="same")(i)
    a, b = ops.split(x, 2, axis=-1)
    x = ops.concatenate([a * ops.sigmoid(b), x], axis=-1) * 0.5 + 1.0
    x = ops.relu6(L.Conv2D(12, 1)(x))
    y = x[:, :, :, 1:5]
    x = x - ops.mean(x, axis=(1, 2), keepdims=True)
    x = x / np.linspace(1, 2, 12).astype("float32")
    x = ops.reshape(x, (-1, 16, 12))
    x = ops.transpose(x, (0, 2, 1))
    x = ops.reshape(x, (-1, 192))
    return keras.Model(i, [L.Dense(2)(x), L.Conv2D(2, 1)(y)])


def transformer():
    i = keras.Input((6,), dtype="int32")
    x = L.Embedding(11, 8)(i)
    y = L.MultiHeadAttention(4, 6, value_dim=4)(x, x)
    x = L.LayerNormalization()(L.Add()([x, y]))
    y = L.Dense(8)(L.Dense(12, "gelu")(x))
    x = L.LayerNormalization()(L.Add()([x, y]))
    return keras.Model(i, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def recurrent():
    i = keras.Input((6, 4))
    x = L.LSTM(6, return_sequences=True)(i)
    x = L.Bidirectional(L.GRU(4, return_sequences=True))(x)
    x = L.TimeDistributed(L.Dense(6, "relu"))(x)
    return keras.Model(i, L.Dense(3)(L.SimpleRNN(5)(x)))


def nested():
    inner_in = keras.Input((6, 6, 2))
    inner = keras.Model(
        inner_in, L.Conv2D(8, 3, activation="relu", name="conv")(inner_in), name="base"
    )
    a, b = keras.Input((6, 6, 2), name="left"), keras.Input((6, 6, 2), name="right")
    x = L.Subtract()([inner(a), inner(b)])
    head = keras.Sequential([L.Flatten(), L.Dense(6, "relu"), L.Dense(2)], name="head")
    return keras.Model({"left": a, "right": b}, {"score": head(x)})


def normalised():
    i = keras.Input((6, 6, 3))
    norm = L.Normalization()
    norm.adapt(np.random.default_rng(0).normal(2, 3, (64, 6, 6, 3)))
    x = L.Conv2D(8, 3)(L.Rescaling(0.5, 0.1)(norm(i)))
    x = L.GroupNormalization(2)(x)
    x = L.LeakyReLU(0.3)(x)
    x = L.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = L.PReLU(shared_axes=[1, 2])(x)
    x = L.UpSampling2D(interpolation="bilinear")(x)
    return keras.Model(i, L.Dense(2)(L.GlobalMaxPooling2D()(x)))


ZOO3 = {f.__name__: f for f in (residual, operations, transformer, recurrent, nested, normalised)}


def build3(name: str, seed: int = 0):
    """A Keras 3 model with random weights."""
    fresh(keras)
    model = ZOO3[name]()
    rng = np.random.default_rng(seed)
    for w in model.weights:
        if (
            w.dtype == "float32"
            and "normalization/" not in w.path.split("group_")[0]
            or "batch" in w.path
        ):
            value = rng.normal(0, 0.5, w.shape)
            w.assign(np.abs(value) + 0.5 if "variance" in w.path or "gamma" in w.path else value)
    return model


def inputs3(model, batch: int = 3, seed: int = 1):
    """Random inputs in the model's input structure."""
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 10, (batch, *t.shape[1:])).astype("int32")
        if t.dtype == "int32"
        else rng.normal(size=(batch, *t.shape[1:])).astype("float32")
        for t in model.inputs
    ]
    if isinstance(model.input, dict):
        return dict(zip(model.input, arrays, strict=True))
    return arrays if len(arrays) > 1 else arrays[0]

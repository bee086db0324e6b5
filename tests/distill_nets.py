"""Tiny networks and data for the tests of distillation, of either Keras."""

from __future__ import annotations

import numpy as np

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8, 8, 3)).astype("float32")
Y = RNG.integers(0, 3, 64)


def net(lib, width=8, activation=None, seed=0, prefix=""):
    """Two convolutions (8x8 and 4x4) with batch norm, pooling, three classes."""
    lib.utils.set_random_seed(seed)
    layers = lib.layers
    image = lib.Input((8, 8, 3), name="image")
    h = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{prefix}a")(image)
    h = layers.BatchNormalization(momentum=0.9, name=f"{prefix}norm")(h)
    h = layers.ReLU(name=f"{prefix}relu")(h)
    h = layers.Conv2D(
        width, 3, strides=2, padding="same", activation="relu", name=f"{prefix}b",
        kernel_regularizer=lib.regularizers.L2(1e-3),
    )(h)  # fmt: skip
    h = layers.GlobalAveragePooling2D(name=f"{prefix}pool")(h)
    return lib.Model(image, layers.Dense(3, activation=activation, name="out")(h))


def cross_entropy(lib):
    """The hard loss on logits."""
    return lib.losses.SparseCategoricalCrossentropy(from_logits=True)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(t, s, temperature):
    """T^2 KL by sample, in numpy; T a number or [N, 1]."""
    p, q = softmax(t / temperature), softmax(s / temperature)
    return (np.asarray(temperature) ** 2 * p * np.log(p / q)).sum(-1)

"""A model and data small enough to run whole commands in a test."""

from pathlib import Path

import numpy as np

from tfedge._keras import keras

LAYERS = ("conv", "norm", "relu", "b/conv", "pool", "logits")


def data(n=96, seed=0):
    """Images [n, 8, 8, 1] whose left, middle or right part is bright: the label."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.random((n, 8, 8, 1), dtype=np.float32) * 0.4
    for i, part in enumerate(y):
        x[i, :, 3 * part : 3 * part + 2] += 0.6
    return x, y


def write_data(path: Path) -> str:
    """An .npz with train and test parts."""
    x, y = data()
    np.savez(path, x_train=x, y_train=y, x_test=x[:32], y_test=y[:32])
    return str(path)


def model():
    """Two convolutions with batch norm, a slash in a name, logits at the end."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    h = layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv")(image)
    h = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(h))
    h = layers.Conv2D(16, 3, padding="same", activation="relu", name="b/conv")(h)
    h = layers.Flatten(name="flat")(layers.AveragePooling2D(4, name="pool")(h))
    return keras.Model(image, layers.Dense(3, name="logits")(h), name="tiny")


def write_model(path: Path) -> str:
    """The model in a file."""
    model().save(str(path))
    return str(path)

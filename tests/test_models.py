"""The reference networks: their size, shapes, and that they learn."""

from __future__ import annotations

import numpy as np
import pytest

from tfedge._keras import keras
from tfedge.heads import heads
from tfedge.models import MODELS


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("resnet8", 77e3, 80e3),
        ("resnet20", 265e3, 280e3),
        ("mobilenet_v2_035", 3.9e5, 4.4e5),
        ("efficientnet_small", 4.5e5, 4.8e5),
    ],
)
def test_size_and_outputs(name, low, high):
    model = MODELS[name]()
    assert low < model.count_params() < high
    (head,) = heads(model)
    assert head.shape == (None, 10) and head.activation == "linear"
    other = MODELS[name](shape=(32, 32, 3), classes=7)
    assert other(np.zeros((2, 32, 32, 3), "float32")).shape == (2, 7)
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)


def test_names_are_the_same_in_every_build():
    first = [layer.name for layer in MODELS["resnet8"]().layers]
    assert first == [layer.name for layer in MODELS["resnet8"]().layers]


def test_last_map_is_4x4_at_32_pixels():
    model = MODELS["mobilenet_v2_035"]()
    assert model.get_layer("last_relu6").output.shape == (None, 4, 4, 1280)


def test_resnet8_learns():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.random((64, 12, 12, 1)).astype("float32")
    y = (x[:, :6].mean((1, 2, 3)) > x[:, 6:].mean((1, 2, 3))).astype(int)
    model = MODELS["resnet8"](shape=(12, 12, 1), classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    history = model.fit(x, y, batch_size=32, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]

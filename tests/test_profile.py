"""Parameters and MACs against formulas done by hand."""

import pytest

from tests.zoo import ZOO, build
from tfedge._keras import keras
from tfedge.profile import profile

L = keras.layers


@pytest.mark.parametrize("name", ZOO)
def test_params_match_keras(name):
    model = build(name)
    assert profile(model).params == model.count_params()


@pytest.mark.parametrize(
    ("shape", "layer", "macs"),
    [
        ((8, 8, 3), L.Conv2D(5, 3), 36 * 9 * 3 * 5),
        ((8, 8, 3), L.Conv2D(5, 3, strides=2, padding="same"), 16 * 9 * 3 * 5),
        ((8, 8, 4), L.Conv2D(6, 3, groups=2), 36 * 9 * 2 * 6),
        ((8, 8, 3), L.DepthwiseConv2D(3, depth_multiplier=2), 36 * 9 * 6),
        ((8, 8, 3), L.SeparableConv2D(5, 3), 36 * (9 * 3 + 3 * 5)),
        ((8, 8, 3), L.Conv2DTranspose(5, 3, strides=2), 64 * 9 * 3 * 5),
        ((7,), L.Dense(5), 35),
        ((9, 7), L.Dense(5), 9 * 35),
        ((3, 8, 8), L.Conv2D(5, 3, data_format="channels_first"), 36 * 9 * 3 * 5),
    ],
)
def test_macs(shape, layer, macs):
    i = keras.Input(shape)
    assert profile(keras.Model(i, layer(i))).macs == macs


def test_a_shared_layer_counts_each_call_but_its_weights_once():
    model = build("shared_layer")
    rows = {r.name: r for r in profile(model).layers}
    assert rows["conv2d"].macs == 2 * 16 * 9 * 2 * 8
    assert rows["conv2d"].params == 9 * 2 * 8 + 8

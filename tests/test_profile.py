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
        ((9, 7), L.LSTM(5), 9 * (7 * 20 + 5 * 20)),
        ((9, 7), L.GRU(5, return_sequences=True), 9 * (7 * 15 + 5 * 15)),
        ((9, 7), L.Bidirectional(L.LSTM(5)), 2 * 9 * (7 * 20 + 5 * 20)),
        ((9, 7), L.TimeDistributed(L.Dense(5)), 9 * 35),
        ((9, 7), L.EinsumDense("abc,cd->abd", (9, 5)), 9 * 35),
        ((9, 7), L.EinsumDense("...c,cde->...de", (5, 2)), 9 * 70),
        ((4, 8, 8, 2), L.ConvLSTM2D(3, 3), 4 * 36 * 9 * (2 + 3) * 12),
        ((4, 8, 8, 2), L.TimeDistributed(L.Conv2D(3, 3)), 4 * 36 * 9 * 2 * 3),
    ],
)
def test_macs(shape, layer, macs):
    i = keras.Input(shape)
    assert profile(keras.Model(i, layer(i))).macs == macs


def test_attention_counts_projections_scores_and_sums():
    q, v = keras.Input((5, 6)), keras.Input((9, 8))
    model = keras.Model([q, v], L.MultiHeadAttention(2, 3, value_dim=4)(q, v))
    projections = 5 * 6 * 6 + 9 * 8 * 6 + 9 * 8 * 8 + 5 * 8 * 6
    assert profile(model).macs == projections + 5 * 9 * 2 * 3 + 5 * 9 * 2 * 4
    assert not profile(model).uncounted


def test_a_shared_layer_counts_each_call_but_its_weights_once():
    model = build("shared_layer")
    rows = {r.name: r for r in profile(model).layers}
    assert rows["conv2d"].macs == 2 * 16 * 9 * 2 * 8
    assert rows["conv2d"].params == 9 * 2 * 8 + 8

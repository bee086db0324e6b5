"""Pruning the channels of a quantize-aware model, in its own fit or at once."""

import warnings

import numpy as np
import pytest

import tfedge
from tests.test_prune_counted import masked_and_stripped
from tests.zoo import ZOO, build, inputs_for, randomize
from tfedge._keras import keras, tf
from tfedge.distill import Distiller
from tfedge.errors import ModelError
from tfedge.graph import analyse
from tfedge.prune import PruneChannels, shrink
from tfedge.quant import QuantizationWarning, quantize_aware

L = keras.layers


def everything():
    """Kernels of every axis that scales run along, an add, and swish (no zero at zero)."""
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same", use_bias=False, name="conv")(image)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    y = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    y = L.Conv2D(16, 1, name="point")(y)
    y = L.Activation("swish", name="swish")(L.Add(name="add")([x, y]))
    y = L.ReLU(6.0, name="relu6")(L.Conv2DTranspose(8, 2, 2, name="transpose")(y))
    y = L.Dense(12, activation="relu", name="dense")(L.GlobalAveragePooling2D(name="gap")(y))
    model = keras.Model(image, L.Dense(5, name="out")(y))
    randomize(model)
    return model


def quantized(model, x, scheme="w8a8", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)
        return quantize_aware(model, scheme, x, **options)


def lstm_gru():
    """Fewer recurrent layers than the zoo's: each is some thirty layers once quantized."""
    i = keras.Input((4, 4))
    x = L.Dense(6, "relu")(L.LSTM(6, return_sequences=True)(i))
    return keras.Model(i, L.Dense(3)(L.GRU(4)(x)))


MODELS = {**{n: build for n in ZOO if n != "recurrent"}, "recurrent": lambda _: lstm_gru()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_masked_is_stripped(name):
    model = MODELS[name](name)
    x = inputs_for(model, 8)
    student = quantized(model, x)
    y = tf.nest.map_structure(lambda t: np.zeros(t.shape, "float32"), student(x))
    masked, stripped = masked_and_stripped(student, x, y)
    for got, want in zip(masked, stripped, strict=True):
        steps = np.abs(got - want) / (np.ptp(want) / 255)
        assert np.quantile(steps, 0.99) < 1.5 and steps.max() < 4


@pytest.mark.parametrize(
    "scheme,ranges",
    [("w8a8", "moving_average"), ("w8a8", "learned"), ("w8a16", "fixed"), ("w4a8", "learned")],
)
def test_in_fit_then_file(scheme, ranges):
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    float_model = everything()
    model = quantized(float_model, x, scheme, ranges=ranges)
    assert [g.blocked for g in analyse(model).groups if g.blocked] == [
        "it is an output of the model"
    ]
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    pruner = PruneChannels(0.5, round_to=1)
    model.fit(x, np.zeros((64, 5), "float32"), epochs=2, verbose=0, callbacks=[pruner])
    small = pruner.strip()
    np.testing.assert_allclose(model.predict(x, verbose=0), small.predict(x, verbose=0), atol=1e-3)
    assert small.output_names == float_model.output_names
    assert small.get_layer("quant_depthwise").layer.depthwise_kernel.shape == (3, 3, 8, 2)
    file = tfedge.convert(small, scheme)
    drift = tfedge.verify(small, file, x)
    assert drift.within_one_step > 0.95 and drift.max_step <= 2


def test_learned_limits_go_with_their_channels():
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    model = quantized(everything(), x, ranges="learned")
    cut = shrink(model, 0.25, round_to=1)
    keep = np.setdiff1d(np.arange(16), cut.plan.cuts()["quant_conv"])
    for layer in ("quant_conv", "quant_depthwise"):
        was, now = (
            next(w for w in m.get_layer(layer).weights if w.name.endswith("kernel_max:0")).numpy()
            for m in (model, cut.model)
        )
        index = keep if layer == "quant_conv" else (keep[:, None] * 2 + [0, 1]).ravel()
        np.testing.assert_array_equal(now, was[index])


def test_with_a_distiller_in_one_fit():
    float_model = everything()
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    student = quantized(float_model, x)
    learner = Distiller(student, float_model)
    learner.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruner = PruneChannels(0.5, round_to=1)
    learner.fit(x, np.arange(32) % 5, batch_size=8, epochs=2, verbose=0, callbacks=[pruner])
    small = pruner.strip()
    assert pruner.report.macs[1] < 0.5 * pruner.report.macs[0]
    np.testing.assert_allclose(
        student.predict(x, verbose=0), small.predict(x, verbose=0), atol=1e-3
    )


def test_clusters_and_foreign_quantizers_are_refused():
    model = build("flatten_dense")
    for layer in model.layers:
        layer.set_weights([np.round(w * 2) / 2 for w in layer.get_weights()])
    clustered = quantized(model, inputs_for(model, 8), preserve="clusters")
    assert any("preserves clusters" in g.blocked for g in analyse(clustered).groups)
    from tensorflow_model_optimization.quantization.keras import quantize_model

    with pytest.raises(ModelError, match="not tfedge's"):
        shrink(quantize_model(keras.Sequential([L.Dense(4, input_shape=(3,))])), 0.5)

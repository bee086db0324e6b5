"""Models trained under a mixed precision policy become files and quantize-aware models."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tf_keras

import tfedge
from tfedge import quant
from tfedge.bridge import to_float32
from tfedge.errors import ModelError
from tfedge.tflite.interpreter import Interpreter

_IMAGES = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)


def _set_policy(lib, name):
    module = lib.config if lib is keras3 else lib.mixed_precision
    (module.set_dtype_policy if lib is keras3 else module.set_global_policy)(name)


def _network(lib):
    layers = lib.layers
    inner = lib.Sequential(
        [lib.Input((8, 8, 8)), layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization()],
        name="inner",
    )
    image = lib.Input((8, 8, 3), name="image")
    x = layers.Normalization(mean=[0.5, 0.4, 0.6], variance=[0.1, 0.2, 0.3])(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.Add()([x, inner(x)])
    x = layers.Lambda(lambda t: t * 2)(x)
    x = layers.Reshape((8, 64))(x)
    x = layers.TimeDistributed(layers.Dense(6))(x)
    x = layers.GlobalAveragePooling1D()(x)
    return lib.Model(image, layers.Dense(3, dtype="float32", name="logits")(x))


@pytest.fixture(params=["tf_keras", "keras3"])
def lib(request):
    found = tf_keras if request.param == "tf_keras" else keras3
    yield found
    _set_policy(found, "float32")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_same_network_in_float32(lib, policy):
    plain = _network(lib)
    _set_policy(lib, policy)
    mixed = _network(lib)
    mixed.set_weights(plain.get_weights())
    made = to_float32(mixed)
    assert {layer.compute_dtype for layer in made.layers[1:]} == {"float32"}
    assert {"conv", "logits"} <= {layer.name for layer in made.layers}
    wanted = np.asarray(plain(_IMAGES))
    np.testing.assert_allclose(made(_IMAGES), wanted, rtol=1e-5, atol=1e-5)
    got = next(iter(Interpreter(tfedge.convert(mixed, "float32").data).predict(_IMAGES).values()))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_it_is_quantized_under_the_users_policy(lib):
    _set_policy(lib, "mixed_float16")
    model = _network(lib)
    aware = quant.quantize_aware(model, calibration=_IMAGES)
    aware.compile("sgd", "mse")
    aware.fit(_IMAGES, np.zeros((16, 3)), verbose=0)
    steps = tfedge.verify_ops(aware, tfedge.convert(aware), _IMAGES)
    assert min(row.within_one for row in steps if not row.reason) == 1.0
    assert tfedge.convert(model, calibration=_IMAGES, ptq="default").meta["ptq"]
    policy = (
        keras3.config.dtype_policy() if lib is keras3 else tf_keras.mixed_precision.global_policy()
    )
    assert policy.name == "mixed_float16"


def test_what_is_float32_already_is_not_copied():
    model = _network(tf_keras)
    assert to_float32(model) is model


def test_own_casts_are_named():
    import tensorflow as tf

    image = tf_keras.Input((4,), name="x")
    half = tf_keras.layers.Dense(4, dtype="mixed_float16")(image)
    model = tf_keras.Model(image, half + tf.constant([1.0, 2.0, 3.0, 4.0], tf.float16))
    with pytest.raises(ModelError, match="own casts to 16 bits"):
        to_float32(model)

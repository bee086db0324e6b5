"""Every layer class alone, with unusual arguments, from each Keras into the other and back."""

import keras
import numpy as np
import pytest

import tfedge
from tests.bridge_checks import layers_by_name, outputs, relative, worst
from tests.bridge_layers import LAYERS, build_cases, cube_root
from tfedge._keras import flavour, library
from tfedge.bridge import to_keras3, to_tf_keras
from tfedge.errors import ModelError

LOOSE = {"half": 1e-2, "bfloat": 5e-2, "batch_half": 1e-2, "heads_half": 1e-2}


def crossings(source):
    """There and back, from a Keras."""
    return (to_tf_keras, to_keras3) if source == "keras3" else (to_keras3, to_tf_keras)


def differing(names, got, want):
    """Names of the cases whose outputs differ, with how much; integers may differ in width."""
    found = {}
    for name, a, b in zip(names, got, want, strict=True):
        same = a.dtype == b.dtype or a.dtype.kind == b.dtype.kind == "i"
        if not same or relative(a, b) > LOOSE.get(name, 1e-5):
            found[name] = (relative(a, b), a.dtype, b.dtype)
    return found


GROUPS = [
    pytest.param(g, marks=pytest.mark.slow if g in ("recurrent", "tokens") else ()) for g in LAYERS
]


@pytest.mark.parametrize("source", ["keras3", "tf_keras"])
@pytest.mark.parametrize("group", GROUPS)
def test_layers(group, source, tmp_path):
    cases = {n: c for n, c in LAYERS[group].items() if c.only in ("", source)}
    if not cases:
        return
    model, x, names = build_cases(library(source), cases)
    want = outputs(model, x)
    there, back = crossings(source)
    crossed = there(model)
    assert differing(names, outputs(crossed, x), want) == {}
    old, new = layers_by_name(model), layers_by_name(crossed)
    if group == "lambda":  # they cross as the operations that they run
        assert crossed.output_names == model.output_names
        old = {}
    assert set(old) <= set(new)
    assert all(old[n].trainable == new[n].trainable for n in old)
    assert len(model.trainable_weights) == len(crossed.trainable_weights)
    returned = back(crossed)
    assert flavour(returned) == source
    assert differing(names, outputs(returned, x), want) == {}
    # Reading thirty recurrent layers takes tf_keras half a minute.
    if group != "lambda" and (group, source) != ("recurrent", "keras3"):
        crossed.save(tmp_path / "m.keras")
        again = tfedge.load_model(tmp_path / "m.keras", {"cube_root": cube_root})
        assert flavour(again) == flavour(crossed)
        assert differing(names, outputs(again, x), want) == {}


def test_bytecode_is_not_loaded_unasked(tmp_path):
    for lib in (keras, library("tf_keras")):
        i = lib.Input((4,))
        lib.Model(i, lib.layers.Lambda(lambda x: x * 2.0)(i)).save(tmp_path / "m.keras")
        with pytest.raises(ModelError, match="[Ll]ambda"):
            tfedge.load_model(tmp_path / "m.keras")


def test_a_layer_that_computes_something_else_is_refused():
    for lib, there in ((keras, to_tf_keras), (library("tf_keras"), to_keras3)):
        i = lib.Input((6, 6, 3))
        model = lib.Model(i, lib.layers.RandomCrop(3, 4, name="crop")(i))
        with pytest.raises(ModelError, match="'crop'.*RandomCrop.*custom_objects"):
            there(model)


def test_channels_first_is_carried():
    i = keras.Input((3, 6, 6))
    model = keras.Model(i, keras.layers.Resizing(4, 4, data_format="channels_first")(i))
    x = np.random.default_rng(0).random((2, 3, 6, 6), np.float32)
    assert worst(outputs(to_tf_keras(model), x), outputs(model, x)) < 1e-5


def test_a_carried_layer_trains():
    i = keras.Input((4,))
    x = keras.layers.RMSNormalization(name="rms")(keras.layers.Dense(3, name="dense")(i))
    model = keras.Model(i, x)
    crossed = to_tf_keras(model)
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    y = np.ones((16, 3), "float32")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    crossed.compile(library("tf_keras").optimizers.SGD(0.1), "mse")
    for _ in range(3):
        model.train_on_batch(x, y)
        crossed.train_on_batch(x, y)
    assert worst(outputs(crossed, x), outputs(model, x)) < 1e-5
    assert worst(outputs(to_keras3(crossed), x), outputs(model, x)) < 1e-5


def test_a_carried_layer_keeps_its_state():
    """A layer that only Keras 3 has changes its weights in training."""
    i = keras.Input((6, 6, 3))
    inner = keras.layers.Conv2D(4, 3)
    layer = keras.layers.SpectralNormalization(inner, name="spectral")
    model = keras.Model(i, layer(i))
    crossed = to_tf_keras(model)
    before = [np.array(w) for w in crossed.get_layer("spectral").values()]
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    crossed(x, training=True), model(x, training=True)
    assert worst(outputs(crossed, x), outputs(model, x)) < 1e-5
    after = [np.array(w) for w in crossed.get_layer("spectral").values()]
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_layer_called_in_two_ways_cannot_be_carried():
    i = keras.Input((5, 6))
    layer = keras.layers.GroupQueryAttention(3, 4, 2, name="gqa")
    model = keras.Model(i, layer(layer(i, i), i, use_causal_mask=True))
    with pytest.raises(ModelError, match="'gqa'.*two ways"):
        to_tf_keras(model)


def test_quantized_and_adapted_layers_are_refused():
    i = keras.Input((8,))
    model = keras.Model(i, keras.layers.Dense(8, name="fc")(i))
    model.get_layer("fc").enable_lora(2)
    with pytest.raises(ModelError, match="'fc'.*LoRA"):
        to_tf_keras(model)
    model = keras.Model(i, keras.layers.Dense(8, name="fc")(i))
    model.quantize("int8")
    with pytest.raises(ModelError, match="'fc'.*quantize"):
        to_tf_keras(model)


def test_carried_layers_and_operations_survive_h5_and_conversion(tmp_path):
    i = keras.Input((5, 6), name="sequence")
    x = keras.layers.RMSNormalization(name="rms")(keras.layers.Dense(6)(i))
    x = keras.layers.GroupQueryAttention(3, 4, 2, name="gqa")(x, x)
    x = keras.ops.flip(x, axis=1) + keras.ops.cumsum(x, axis=1)
    model = keras.Model(i, x)
    crossed = to_tf_keras(model)
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
    crossed.save(tmp_path / "m.h5")
    again = tfedge.load_model(tmp_path / "m.h5")
    for found in (again, to_keras3(again)):
        assert worst(outputs(found, x), outputs(model, x)) < 1e-5
    file = tfedge.convert(model, "float32")
    assert tfedge.verify(model, file, x).sqnr_db > 80


def test_a_layer_that_fails_in_the_other_keras_is_named():
    class Picky(library("tf_keras").layers.Layer):
        def call(self, x):
            raise ValueError("not for me")

    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    i = keras.Input((4,))
    with pytest.raises(
        ModelError, match=r"'mine' \(Mine\) cannot be built or called.*custom_objects"
    ):
        to_tf_keras(keras.Model(i, Mine(name="mine")(i)), {"Mine": Picky})

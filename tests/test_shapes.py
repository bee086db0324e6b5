"""Inputs of free size get the sizes that a file needs."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfedge
from tests.run_file import float_ops
from tfedge import quant
from tfedge.bridge import load_model, with_shapes
from tfedge.cli.main import main
from tfedge.errors import InputError, ModelError
from tfedge.tflite.interpreter import Interpreter

_IMAGES = np.random.default_rng(0).random((8, 24, 16, 3), np.float32)
_SHAPES = {"image": (24, 16, 3)}


def _network(lib):
    layers = lib.layers
    image = lib.Input((None, None, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    y = layers.UpSampling2D(name="up")(layers.MaxPooling2D(name="pool")(x))
    x = layers.Concatenate(name="cat")([x, y])
    return lib.Model(image, layers.Conv2D(2, 1, activation="sigmoid", name="map")(x))


@pytest.fixture(params=[tf_keras, keras3], ids=["tf_keras", "keras3"])
def model(request):
    return _network(request.param)


def test_the_same_model_for_one_size(model):
    fixed = with_shapes(model, _SHAPES)
    assert tuple(fixed.output.shape) == (None, 12, 8, 2)
    assert [x.name for x in fixed.layers] == [x.name for x in model.layers]
    np.testing.assert_array_equal(fixed(_IMAGES), model(_IMAGES))
    assert with_shapes(fixed, _SHAPES) is fixed


@pytest.mark.parametrize("scheme", ["float32", "w8a8", "w4a8", "w8a16"])
def test_files_of_that_size(model, scheme):
    data = None if scheme == "float32" else _IMAGES
    with pytest.raises(ModelError, match=r"free size.*shapes=\{'image'"):
        tfedge.convert(model, scheme, calibration=data)
    file = tfedge.convert(model, scheme, calibration=data, shapes=_SHAPES)
    assert Interpreter(file.data).inputs[0].shape == (1, 24, 16, 3)
    assert scheme == "float32" or not float_ops(file.data)
    assert tfedge.verify(model, file, _IMAGES).sqnr_db > (20 if scheme == "w4a8" else 30)


def test_a_serving_model(tmp_path):
    network = _network(tf_keras)
    signature = [tf.TensorSpec((None, None, None, 3), name="image")]
    call = tf.function(lambda image: {"map": network(image)}, input_signature=signature)
    module = tf.Module()
    module.kept, module.call = network, call
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=call)
    file = tfedge.convert(load_model(tmp_path / "m"), "float32", shapes=_SHAPES)
    (got,) = Interpreter(file.data).predict(_IMAGES).values()
    np.testing.assert_allclose(got, network(_IMAGES), rtol=1e-4, atol=1e-5)


def test_wrong_sizes(model):
    for shapes, said in (
        ({"picture": (8, 8, 3)}, "no such input.*Choose one of: image"),
        ({"image": (8, 8)}, r"\(8, 8\) for \(None, None, 3\)"),
        ({"image": (8, 8, 4)}, "do not fit"),
        ({"image": (8, 0, 3)}, "do not fit"),
    ):
        with pytest.raises(InputError, match=said):
            with_shapes(model, shapes)


def test_a_quantize_aware_model_is_made_for_its_size():
    aware = quant.quantize_aware(_network(tf_keras), calibration=_IMAGES)
    with pytest.raises(ModelError, match="Give the sizes first"):
        tfedge.convert(aware, shapes=_SHAPES)
    aware = quant.quantize_aware(with_shapes(_network(tf_keras), _SHAPES), calibration=_IMAGES)
    assert not float_ops(tfedge.convert(aware).data)


def test_on_the_command_line(tmp_path, capsys):
    _network(tf_keras).save(tmp_path / "m.keras")
    base = ["convert", f"--model={tmp_path}/m.keras", f"--output={tmp_path}/m.tflite"]
    assert main([*base, "--scheme=float32", "--shape=image=24,16,3"]) == 0
    assert Interpreter((tmp_path / "m.tflite").read_bytes()).inputs[0].shape == (1, 24, 16, 3)
    assert main([*base, "--scheme=float32", "--shape=image=24x16"]) != 0
    assert "--shape takes NAME=SIZE,SIZE" in capsys.readouterr().err

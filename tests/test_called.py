"""Users' own layers and models: carried, or converted as functions."""

from __future__ import annotations

from pathlib import Path

import keras as keras3
import numpy as np
import pytest
import tf_keras

import tfedge
from tests.run_file import float_ops
from tfedge import quant
from tfedge.bridge import CalledModel, load_model, to_keras3, to_tf_keras
from tfedge.cli.main import main
from tfedge.errors import InputError, ModelError
from tfedge.tflite.interpreter import Interpreter
from tfedge.user_code import import_code

pytestmark = pytest.mark.filterwarnings("ignore::tfedge.quant.QuantizationWarning")
_RNG = np.random.default_rng(0)
_ROWS = _RNG.normal(size=(32, 6)).astype("float32")
_PAIR = {"a": _ROWS, "b": _ROWS[::-1].copy()}
_L = keras3.layers


class Wave(_L.Layer):
    def __init__(self, gain=2.0, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.built = True

    def call(self, x):
        return keras3.ops.sin(x) * self.gain * self.scale

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


class Without(_L.Layer):
    """A layer that no config describes."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class Penalty(keras3.regularizers.Regularizer):
    def __call__(self, w):
        return 0.1 * keras3.ops.sum(keras3.ops.abs(w))

    def get_config(self):
        return {}


def bent(x):
    return keras3.ops.tanh(x) * 1.5


def _network(*layers):
    x = image = keras3.Input((6,), name="rows")
    for layer in layers:
        x = layer(x)
    return keras3.Model(image, x)


def test_own_layers_are_carried(tmp_path):
    model = _network(_L.Dense(4, name="first"), Wave(3.0, name="wave"), _L.Dense(2, name="last"))
    crossed = to_tf_keras(model)
    np.testing.assert_allclose(crossed(_ROWS), model(_ROWS), rtol=1e-5, atol=1e-6)
    back = to_keras3(crossed)
    assert type(back.get_layer("wave")) is Wave and back.get_layer("wave").gain == 3.0
    file = tfedge.convert(model, calibration=_ROWS, overrides={"wave": "float"})
    assert file.meta["float_layers"] == ["wave"]
    aware = quant.quantize_aware(model, calibration=_ROWS)
    aware.compile("sgd", "mse")
    aware.fit(_ROWS, np.zeros((32, 2)), verbose=0)
    aware.save(tmp_path / "aware.keras")
    loaded = tfedge.load_model(tmp_path / "aware.keras", {"Wave": Wave})
    np.testing.assert_array_equal(loaded.predict(_ROWS, verbose=0), aware.predict(_ROWS, verbose=0))


@pytest.mark.parametrize("activation", [bent, lambda x: x * x], ids=["named", "lambda"])
@pytest.mark.parametrize("tail", [False, True], ids=["at the end", "inside"])
def test_own_activations(activation, tail):
    layers = [_L.Dense(3, activation=activation, name="own")] + [_L.Dense(2, name="z")] * tail
    model = _network(*layers)
    assert tfedge.verify(model, tfedge.convert(model, "float32"), _ROWS).sqnr_db > 80
    aware = quant.quantize_aware(model, calibration=_ROWS)
    assert tfedge.verify(aware, tfedge.convert(aware), _ROWS).within_one_step == 1.0


def test_own_regularizers_go_on_penalising():
    model = _network(_L.Dense(3, kernel_regularizer=Penalty(), name="own"))
    crossed = to_tf_keras(model)
    np.testing.assert_allclose(crossed.losses, model.losses, rtol=1e-6)
    aware = quant.quantize_aware(model, calibration=_ROWS)
    assert not float_ops(tfedge.convert(aware).data)


def _subclassed(lib, many):
    class Net(lib.Model):
        def __init__(self):
            super().__init__(name="net")
            self.inner = lib.layers.Dense(3, activation="relu")

        def call(self, x, training=None):
            if not many:
                return self.inner(x)
            return {"sum": self.inner(x["a"]) + self.inner(x["b"]), "first": self.inner(x["a"])}

    return Net()


@pytest.mark.parametrize("many", [False, True], ids=["one", "dicts"])
@pytest.mark.parametrize("lib", [tf_keras, keras3], ids=["tf_keras", "keras3"])
def test_subclassed_models_are_converted_as_functions(lib, many):
    model, data = _subclassed(lib, many), _PAIR if many else _ROWS
    with pytest.raises(ModelError, match="never been called"):
        tfedge.convert(model, "float32")
    model(data)
    for scheme in ("float32", "w8_dynamic", "w8a8"):
        samples = data if scheme == "w8a8" else None
        file = tfedge.convert(model, scheme, calibration=samples)
        assert "subclassed" in file.meta["no_layers"]
        names = {spec.name for spec in Interpreter(file.data).outputs}
        assert names == ({"sum", "first"} if many else {"output"})
        assert tfedge.verify(model, file, data).sqnr_db > 30
    with pytest.raises(InputError, match="ptq .* subclassed"):
        tfedge.convert(model, calibration=data, ptq="default")
    with pytest.raises(ModelError, match="subclassed"):
        quant.quantize_aware(model, calibration=data)


def test_layers_without_a_config_are_converted_as_functions():
    model = _network(_L.Dense(4), Without(lambda x: x * 2, name="bare"), _L.Dense(2))
    with pytest.raises(ModelError, match="'bare'.*get_config"):
        to_tf_keras(model)
    file = tfedge.convert(model, calibration=_ROWS)
    assert "'bare'" in file.meta["no_layers"]
    assert not float_ops(file.data)
    assert tfedge.verify(model, file, _ROWS).sqnr_db > 30


def test_two_arguments_are_refused():
    class Two(keras3.Model):
        def call(self, a, b):
            return a + b

    model = Two()
    model(_ROWS, _ROWS)
    with pytest.raises(ModelError, match="arguments a, b.*one list or dict"):
        CalledModel(model, "")


def test_a_saved_subclassed_model(tmp_path):
    model = _subclassed(tf_keras, False)
    model(_ROWS)
    model.save(tmp_path / "saved", save_format="tf")
    file = tfedge.convert(load_model(tmp_path / "saved"), "float32")
    assert tfedge.verify(model, file, _ROWS).sqnr_db > 80


_CODE = """
import keras
from keras import layers

class Twice(layers.Layer):
    def call(self, x):
        return x * 2

def bend(x):
    return keras.ops.tanh(x)
"""


@pytest.fixture
def forgotten():
    """Forgets what a test registers."""
    known = [lib.saving.get_custom_objects() for lib in (tf_keras, keras3)]
    before = [dict(names) for names in known]
    yield
    for names, old in zip(known, before, strict=True):
        names.clear()
        names.update(old)


@pytest.mark.usefixtures("forgotten")
def test_own_code_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(_CODE)
    mine = import_code("mine.py", "the test's")
    _network(mine.Twice(), _L.Dense(3, activation=mine.bend)).save("m.keras")
    base = ["convert", "--model=m.keras", "--output=m.tflite", "--scheme=float32"]
    assert main(base) == 1
    assert "--code=FILE.py" in capsys.readouterr().err
    assert main([*base, "--code=none.py"]) == 1
    assert "none.py" in capsys.readouterr().err
    assert main([*base, "--code=mine.py"]) == 0
    assert Path("m.tflite").exists()

"""Files that other versions of Keras wrote; tests/golden/h5 holds the scripts that made them."""

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import tfedge
from tests.bridge_checks import outputs, worst
from tfedge._keras import flavour, tf
from tfedge._keras import keras as tf_keras
from tfedge.bridge import to_keras3
from tfedge.bridge.files import load_h5
from tfedge.errors import ModelError

GOLDEN = Path(__file__).parent / "golden" / "h5"
NEW = ["tf212", "tf213", "tf214", "tf215"]
OLD = ["keras224", "tf115", "tf23", "tf26", "tf29", "tf211"]


def absolute(x):
    """The user's function in `attention` of write.py."""
    return tf.abs(x)


def reference(version, name):
    """Inputs and outputs that the writing version gave."""
    with np.load(GOLDEN / f"{version}.npz") as data:
        ins = [data[k] for k in data.files if k.startswith(f"{name}_in")]
        outs = [data[k] for k in data.files if k.startswith(f"{name}_out")]
    return (ins if len(ins) > 1 else ins[0]), outs


def check(path, version, name):
    model = tfedge.load_model(path, {"absolute": absolute, "absolute_value": absolute})
    assert flavour(model) == "tf_keras"
    x, want = reference(version, name)
    assert worst(outputs(model, x), want) < 1e-5
    return model, x


@pytest.mark.parametrize("name", ["cnn", "compiled", "recurrent", "attention", "nested"])
@pytest.mark.parametrize("version", NEW)
def test_h5_of_tensorflow_2_12_to_2_15(version, name):
    model, x = check(GOLDEN / f"{version}_{name}.h5", version, name)
    if version == NEW[-1]:
        crossed = to_keras3(model, {"absolute": absolute})
        assert worst(outputs(crossed, x), outputs(model, x)) < 1e-5


@pytest.mark.parametrize("name", ["compiled", "attention", "nested"])
@pytest.mark.parametrize("version", NEW)
def test_keras_files_of_tensorflow_2_12_to_2_15(version, name):
    check(GOLDEN / f"{version}_{name}.keras", version, name)


@pytest.mark.parametrize("version", NEW)
def test_savedmodels_of_tensorflow_2_12_to_2_15(version, tmp_path):
    with zipfile.ZipFile(GOLDEN / f"{version}_nested_savedmodel.zip") as archive:
        archive.extractall(tmp_path / "model")
    check(tmp_path / "model", version, "nested")


@pytest.mark.parametrize("name", ["image", "sequence"])
@pytest.mark.parametrize("version", OLD)
def test_h5_of_older_keras(version, name):
    check(GOLDEN / f"{version}_{name}.h5", version, name)


def test_bytecode_of_another_python_is_not_run():
    with pytest.raises(ModelError, match="Lambda layer 'absolute_value'.*custom_objects"):
        tfedge.load_model(GOLDEN / "tf215_attention.h5")


def rewritten(source, target, change):
    """A copy of a file with another config, as some version wrote it."""
    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:
        for key in old:
            old.copy(key, new)
        for key, value in old.attrs.items():
            new.attrs[key] = value
        text = old.attrs["model_config"]
        config = json.loads(text.decode() if isinstance(text, bytes) else text)
        new.attrs["model_config"] = json.dumps(change(config)).encode()


def each(config, change):
    """Applies a change to every dict in a config."""
    if isinstance(config, list):
        return [each(v, change) for v in config]
    if isinstance(config, dict):
        return change({k: each(v, change) for k, v in config.items()})
    return config


def old_class_names(config):
    names = {"BatchNormalization": "BatchNormalizationV1", "LSTM": "UnifiedLSTM",
             "GRU": "UnifiedGRU", "Functional": "Model"}  # fmt: skip
    if config.get("class_name") in names:
        config["class_name"] = names[config["class_name"]]
    return config


def string_policy(config):
    """TF 2.4: a policy object for a dtype, and lists in wrappers."""
    if isinstance(config.get("dtype"), str) and "units" in config:
        config["dtype"] = {"class_name": "Policy", "config": {"name": config["dtype"]}}
    if isinstance(config.get("axis"), list):
        config["axis"] = {"class_name": "ListWrapper", "config": config["axis"]}
    return config


def sequential_as_list(config):
    if config.get("class_name") == "Sequential":
        config["config"] = config["config"]["layers"]
    return config


@pytest.mark.parametrize("change", [old_class_names, string_policy, sequential_as_list])
@pytest.mark.parametrize(("version", "name"), [("tf26", "image"), ("tf26", "sequence")])
def test_formats_of_configs(version, name, change, tmp_path):
    source = GOLDEN / f"{version}_{name}.h5"
    rewritten(source, tmp_path / "m.h5", lambda config: each(config, change))
    check(tmp_path / "m.h5", version, name)


def test_functions_as_activations_survive_h5(tmp_path):
    """tf_keras writes them as dicts that its own HDF5 reader refuses."""
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3, absolute)])
    model.save(tmp_path / "m.h5")
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    again = load_h5(tmp_path / "m.h5", {"absolute": absolute})
    assert worst(outputs(again, x), outputs(model, x)) == 0


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_gpu_layers_of_tensorflow_1(kind, tmp_path):
    """CuDNNLSTM and CuDNNGRU keep kernels transposed gate by gate and two biases."""
    model = tf_keras.Sequential([tf_keras.Input((5, 3)), getattr(tf_keras.layers, kind)(4)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    model.save(tmp_path / "new.h5")
    gates = 4 if kind == "LSTM" else 3

    def as_cudnn(config):
        if config.get("class_name") == kind:
            config["class_name"] = f"CuDNN{kind}"
            kept = ("name", "trainable", "dtype", "units", "return_sequences")
            config["config"] = {k: v for k, v in config["config"].items() if k in kept}
        return config

    rewritten(tmp_path / "new.h5", tmp_path / "old.h5", lambda config: each(config, as_cudnn))
    with h5py.File(tmp_path / "old.h5", "a") as file:
        found = []
        file.visititems(lambda n, o: found.append(o) if isinstance(o, h5py.Dataset) else None)
        data = {d.name.split("/")[-1].split(":")[0]: d for d in found if "model_weights" in d.name}
        blocks = np.hsplit(data["kernel"][()], gates)
        data["kernel"][...] = np.hstack([b.T.reshape(b.shape) for b in blocks])
        blocks = np.hsplit(data["recurrent_kernel"][()], gates)
        data["recurrent_kernel"][...] = np.hstack([b.T for b in blocks])
        bias, name = data["bias"][()], data["bias"].name
        del file[name]
        file[name] = np.tile(0.5 * bias, 2) if kind == "LSTM" else bias.reshape(-1)
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    again = tfedge.load_model(tmp_path / "old.h5")
    assert worst(outputs(again, x), outputs(model, x)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_layers_of_the_applications_are_found_again(suffix, tmp_path):
    """tf_keras itself cannot load such a .keras file."""
    model = tf_keras.applications.ConvNeXtTiny(weights=None, input_shape=(32, 32, 3), classes=2)
    model.save(tmp_path / f"m.{suffix}")
    again = tfedge.load_model(tmp_path / f"m.{suffix}")
    x = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    np.testing.assert_allclose(np.asarray(again(x)), np.asarray(model(x)), atol=1e-6)

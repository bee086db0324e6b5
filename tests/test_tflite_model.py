import copy
import dataclasses
import pickle

import numpy as np
import pytest

from tests import tflite_files
from tfedge.errors import InputError
from tfedge.tflite import Interpreter, TFLiteModel, certify


@pytest.fixture
def model():
    return TFLiteModel.from_bytes(
        tflite_files.file("image", "int8"),
        scheme="w8a8",
        meta={"labels": ["a", "b", "c"], "preprocessing": {"scale": 0.5}},
        layers=tflite_files.layer_names("image"),
    )


def test_what_is_known_of_a_file_is_stored_in_it(model, tmp_path):
    path = tmp_path / "m.tflite"
    model.save(path)
    again = TFLiteModel.load(path)
    assert again == model and again.data == path.read_bytes()
    assert again.scheme == "w8a8" and again.layers == tuple(tflite_files.layer_names("image"))
    assert again.meta == {"labels": ["a", "b", "c"], "preprocessing": {"scale": 0.5}}
    assert again.certificate == model.certificate == certify(model.data, model.layers)
    assert again.size_by_layer() == model.size_by_layer()
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]


def test_the_metadata_do_not_change_the_results(model):
    x = tflite_files.samples("image", 3)
    plain = Interpreter(tflite_files.file("image", "int8")).predict(x)
    for name, value in model.predict(x).items():
        np.testing.assert_array_equal(value, plain[name])
    assert [s.name for s in model.inputs + model.outputs] == ["image", "p", "q"]


def test_a_foreign_file_is_taken_as_it_is():
    data = tflite_files.file("two")
    model = TFLiteModel.from_bytes(data)
    assert model.data == data and (model.scheme, model.layers, model.meta) == ("", (), {})
    assert {row.layer for row in model.certificate} == {""}


def test_new_facts_replace_old_ones_and_keep_the_rest(model):
    again = TFLiteModel.from_bytes(model.data, meta={"labels": ["z"]})
    assert again.meta == {"labels": ["z"]} and again.scheme == "w8a8" and again.layers
    rows = model.certificate[:1]
    assert TFLiteModel.from_bytes(model.data, certificate=rows).certificate == rows


def test_models_are_values(model):
    model.predict(tflite_files.samples("image", 1))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other == model and hash(other) == hash(model)
        assert other.predict(tflite_files.samples("image", 1)).keys() == {"p", "q"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.scheme = "other"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a keras archive", b"\0\0\0\0TFL3 cut"])
def test_a_file_that_is_none_is_one_clear_line(tmp_path, content):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match="TFLite file"):
        TFLiteModel.load(path)
    with pytest.raises(InputError, match="cannot read"):
        TFLiteModel.load(tmp_path / "none.tflite")


def test_a_failed_save_keeps_the_older_file(model, tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"older")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        model.save(path)
    assert path.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1

import warnings

import numpy as np
import pytest

from tests import doctor_files, tflite_files
from tfedge.errors import ConversionError, InputError
from tfedge.tflite import Interpreter


def test_ends_bear_the_keras_names_in_the_models_order():
    file = Interpreter(tflite_files.file("two"))
    assert [s.name for s in file.inputs] == ["wave/b", "a"]
    assert [(s.name, s.shape, s.dtype) for s in file.outputs] == [("score", (1, 1), "float32")]


@pytest.mark.parametrize("name", ["image", "two"])
def test_float_predictions_are_the_keras_models(name):
    x = tflite_files.samples(name, 5)
    found = Interpreter(tflite_files.file(name)).predict(x)
    for output, expected in tflite_files.outputs(name, x).items():
        np.testing.assert_allclose(found[output], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_larger_batch_gives_the_same_and_its_filling_is_cut(kind):
    x = tflite_files.samples("image", 7)
    one = Interpreter(tflite_files.file("image", kind))
    four = Interpreter(tflite_files.file("image", kind, batch=4))
    assert (one.batch, four.batch) == (1, 4)
    for name, value in one.predict(x).items():
        assert len(value) == 7
        np.testing.assert_allclose(four.predict(x)[name], value, atol=1e-6)


@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.05), ("int16", 0.005)])
def test_integer_files_take_and_give_real_values(kind, tolerance):
    x = tflite_files.samples("image", 6)
    file = Interpreter(tflite_files.file("image", kind))
    assert file.inputs[0].dtype == kind and file.inputs[0].quantized
    for name, expected in tflite_files.outputs("image", x).items():
        np.testing.assert_allclose(file.predict(x)[name], expected, atol=tolerance)


def test_run_takes_stored_values_only():
    file = Interpreter(tflite_files.file("image", "int8"))
    codes = np.zeros((1, 8, 8, 3), np.int8)
    assert file.run(codes)["p"].dtype == np.int8
    with pytest.raises(InputError, match=r"wrong dtype.*float32.*predict\(\)"):
        file.run(codes.astype("f"))


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        (np.zeros((1, 8, 8)), "wrong shape"),
        (np.zeros((1, 8, 9, 3)), r"wrong shape.*\(1, 8, 9, 3\).*\(1, 8, 8, 3\)"),
        ({"imege": np.zeros((1, 8, 8, 3))}, "Did you mean 'image'"),
        ({}, "missing.*'image'"),
        (np.full((1, 8, 8, 3), np.nan), "NaN"),
        (np.zeros((0, 8, 8, 3)), "no sample"),
        (np.array(["a"]), "numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs, match):
    with pytest.raises(InputError, match=match):
        Interpreter(tflite_files.file("image")).predict(inputs)


def test_unlike_numbers_of_samples_are_refused():
    x = {"wave/b": np.zeros((2, 10, 4)), "a": np.zeros((3, 6))}
    with pytest.raises(InputError, match="number of samples"):
        Interpreter(tflite_files.file("two")).predict(x)


def test_lists_go_by_order():
    x = tflite_files.samples("two", 2)
    file = Interpreter(tflite_files.file("two"))
    by_name = file.predict(x)["score"]
    np.testing.assert_array_equal(file.predict([x["wave/b"], x["a"]])["score"], by_name)
    image = tflite_files.samples("image", 2)["image"]
    file = Interpreter(tflite_files.file("image"))
    np.testing.assert_array_equal(file.predict([image])["q"], file.predict(image)["q"])
    np.testing.assert_array_equal(file.predict(image.tolist())["q"], file.predict(image)["q"])
    with pytest.raises(InputError, match="too many"):
        Interpreter(tflite_files.file("two")).predict([1, 2, 3])


def test_a_free_batch_may_be_chosen_per_run():
    x = tflite_files.samples("image", 3)
    file = Interpreter(tflite_files.file("image", batch=None))
    assert file.inputs[0].free == (0,) and file.batch == 1
    expected = tflite_files.outputs("image", x)["p"]
    np.testing.assert_allclose(file.run(x)["p"], expected, atol=1e-5)
    np.testing.assert_allclose(file.predict(x)["p"], expected, atol=1e-5)


def test_kept_tensors_can_be_read():
    file = Interpreter(tflite_files.file("image", "int8"), keep_tensors=True)
    codes = np.full((1, 8, 8, 3), 5, np.int8)
    result = file.run(codes)
    first = file.ops()[0]
    assert file.tensor(first.outputs[0]).any()
    np.testing.assert_array_equal(file.tensor(file.outputs[0].index), result["p"])
    assert not any(op.delegated for op in file.ops())
    with pytest.raises(InputError, match="cannot be read"):
        file.tensor(10_000)
    with pytest.raises(InputError, match="keep_tensors"):
        Interpreter(tflite_files.file("image")).tensor(0)


def test_samples_do_not_depend_on_those_before():
    file = Interpreter(doctor_files.remembering())
    x = np.ones((3, 3), np.float32)
    found = file.run_all(x)["y"]
    assert (found == found[0]).all() and (file.run_all(x)["y"] == found).all() and found[0, 0] > 0


def test_ops_say_who_runs_them():
    ops = Interpreter(tflite_files.file("image", "int8")).ops()
    names = [op.name for op in ops]
    assert names[:3] == ["CONV_2D", "DEPTHWISE_CONV_2D", "ADD"]
    assert {op.name for op in ops if not op.delegated} == {"SOFTMAX"}
    assert {op.partition for op in ops if op.delegated} == {0}
    plain = Interpreter(tflite_files.file("image", "int8"), kernels="builtin").ops()
    assert [op.name for op in plain] == names and not any(op.delegated for op in plain)
    assert all(op.delegated for op in Interpreter(tflite_files.file("image", "float16")).ops())


def test_the_screen_stays_clean(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Interpreter(tflite_files.file("image")).predict(tflite_files.samples("image", 1))
        Interpreter(tflite_files.file("image"), keep_tensors=True)
    assert capfd.readouterr() == ("", "")


def test_files_that_cannot_be_loaded_are_conversion_errors():
    data = tflite_files.file("image")
    with pytest.raises(ConversionError, match="cannot load"):
        Interpreter(data[: len(data) // 2])
    with pytest.raises(InputError, match="threads"):
        Interpreter(data, threads=0)

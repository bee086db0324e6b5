"""Readers of tfedge.data: every kind of data, every kind of mistake."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfedge.data import InputSpec, as_batches, load, stack
from tfedge.errors import InputError

IMAGE = (InputSpec("image", (None, 4, 4, 1)),)
TWO = (InputSpec("a", (None, 3)), InputSpec("b/ids", (None, 2), "int32"))
X = np.arange(7 * 16, dtype=np.float32).reshape(7, 4, 4, 1)
A = np.arange(15, dtype=np.float32).reshape(5, 3)
B = np.arange(10).reshape(5, 2)


def _generator(items):
    yield from items


ONE_INPUT = {
    "array": X,
    "dict": {"image": X},
    "dict with labels": {"image": X, "y": np.arange(7)},
    "x and y": (X, np.arange(7)),
    "list of the one array": [X],
    "list of samples": list(X),
    "list of batches": [X[:3], X[3:]],
    "nested lists": X.tolist(),
    "generator of samples": lambda: _generator(X),
    "generator of batches": lambda: _generator([X[:2], X[2:]]),
    "generator of pairs": lambda: _generator((x, 1) for x in X),
    "generator of dicts": lambda: _generator({"image": x} for x in X),
    "TFLite's representative dataset": lambda: _generator([x[None]] for x in X),
}


@pytest.mark.parametrize("kind", ONE_INPUT)
def test_one_input(kind):
    got = stack(ONE_INPUT[kind], IMAGE)
    np.testing.assert_array_equal(got["image"], X)
    assert got["image"].dtype == np.float32


TWO_INPUTS = {
    "dict": {"a": A, "b/ids": B},
    "list": [A, B],
    "tuple": (A, B),
    "inputs and labels": ([A, B], np.arange(5)),
    "dict and labels": ({"a": A, "b/ids": B}, np.arange(5)),
    "generator of lists": lambda: _generator([a, b] for a, b in zip(A, B, strict=True)),
    "generator of tuples": lambda: _generator(zip(A, B, strict=True)),
    "generator of pairs": lambda: _generator(((a, b), 0) for a, b in zip(A, B, strict=True)),
    "list of dicts": [{"a": A[:2], "b/ids": B[:2]}, {"a": A[2:], "b/ids": B[2:]}],
}


@pytest.mark.parametrize("kind", TWO_INPUTS)
def test_two_inputs(kind):
    got = stack(TWO_INPUTS[kind], TWO)
    np.testing.assert_array_equal(got["a"], A)
    np.testing.assert_array_equal(got["b/ids"], B)
    assert got["b/ids"].dtype == np.int32


@pytest.mark.parametrize("batched", [None, 2, 3])
@pytest.mark.parametrize("labels", [False, True])
def test_tf_data(batched, labels):
    from tfedge._keras import tf

    source = tf.data.Dataset.from_tensor_slices((X, np.arange(7)) if labels else X)
    if batched:
        source = source.batch(batched)
    np.testing.assert_array_equal(stack(source, IMAGE)["image"], X)
    with pytest.raises(InputError, match="never ends"):
        next(as_batches(source.repeat(), IMAGE))
    assert len(stack(source.repeat(), IMAGE, limit=20)["image"]) == 20


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    batch=st.integers(1, 7),
    limit=st.none() | st.integers(1, 40),
)
def test_regrouping_keeps_every_sample_in_order(sizes, batch, limit):
    total = sum(sizes)
    rows = np.arange(total * 3, dtype=np.float32).reshape(total, 3)
    chunks = np.split(rows, np.cumsum(sizes)[:-1])
    got = [b["a"] for b in as_batches(iter(chunks), TWO[:1], batch=batch, limit=limit)]
    assert all(len(g) == batch for g in got[:-1]) and 1 <= len(got[-1]) <= batch
    np.testing.assert_array_equal(np.concatenate(got), rows[:limit])


def test_streams():
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield X[0]

    batches = as_batches(endless(), IMAGE, batch=2)
    next(batches)
    assert len(drawn) == 2
    assert len(list(as_batches(endless(), IMAGE, batch=2, limit=3))) == 2


BAD = {
    "shape": (np.zeros((32, 4, 4)), r"wrong shape. Found: \(32, 4, 4\) for input 'image'. Needs "),
    "channel hint": (np.zeros((32, 4, 4)), r"\(N, 4, 4, 1\): add the channel axis"),
    "no batch": (np.zeros((4, 4, 1)), "add the batch axis"),
    "sample without channels": (_generator([np.zeros((4, 4))]), "wrong shape"),
    "channels first": (np.zeros((2, 1, 4, 4)), "channels last"),
    "nan": (np.full((1, 4, 4, 1), np.nan), "holds NaN"),
    "inf": (np.full((1, 4, 4, 1), np.inf), "holds infinity"),
    "empty": (np.zeros((0, 4, 4, 1)), "is empty"),
    "empty list": ([], "is empty"),
    "key": ({"imgae": X}, "Did you mean 'image'"),
    "no keys": ({}, "lacks the input 'image'"),
    "strings": (np.full((1, 4, 4, 1), "a"), "not numeric"),
    "objects": (np.full((1, 4, 4, 1), None), "not numeric"),
    "ragged": ([[[1, 2], [3]]], "is not one array"),
    "number": (3, "cannot be read"),
    "None": (None, "cannot be read"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_data(kind):
    data, message = BAD[kind]
    with pytest.raises(InputError, match=message):
        stack(data, IMAGE, role="calibration data")


def test_bad_data_for_two_inputs():
    with pytest.raises(InputError, match="does not match the model's 2 inputs"):
        stack(A, TWO)
    with pytest.raises(InputError, match="different lengths"):
        stack({"a": A, "b/ids": B[:2]}, TWO)
    with pytest.raises(InputError, match="Did you mean 'b/ids'"):
        stack({"a": A, "b_ids": B}, TWO)
    with pytest.raises(InputError, match="whole numbers in the range of int32"):
        stack({"a": A, "b/ids": B + 0.5}, TWO)
    with pytest.raises(InputError, match="whole numbers"):
        stack({"a": A, "b/ids": B + 2**40}, TWO)


def test_bad_arguments():
    with pytest.raises(InputError, match="batch must be"):
        as_batches(X, IMAGE, batch=0)
    with pytest.raises(InputError, match="limit must be"):
        as_batches(X, IMAGE, limit=0)
    with pytest.raises(InputError, match="no inputs"):
        as_batches(X, ())


def test_free_axes():
    spec = (InputSpec("s", (None, None)),)
    ragged = [np.zeros((1, 3)), np.zeros((1, 4))]
    assert [b["s"].shape for b in as_batches(ragged, spec)] == [(1, 3), (1, 4)]
    with pytest.raises(InputError, match="different shapes in one batch"):
        stack(ragged, spec)


def test_npz(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, image=X, y=np.arange(7))
    np.testing.assert_array_equal(stack(load(str(path), IMAGE), IMAGE)["image"], X)
    np.testing.assert_array_equal(stack(str(path), IMAGE)["image"], X)
    for key in ("x", "arr_0", "x_train"):
        np.savez(path, **{key: X})
        assert stack(load(str(path), IMAGE), IMAGE)["image"].shape == X.shape
    np.save(tmp_path / "d.npy", X)
    assert stack(load(str(tmp_path / "d.npy"), IMAGE), IMAGE)["image"].shape == X.shape
    np.savez(path, a=A, b_ids=B)
    with pytest.raises(InputError, match="Did you mean 'b_ids'|lacks the input 'b/ids'"):
        load(str(path), TWO)


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match="not found"):
        load(str(tmp_path / "none.npz"), IMAGE)
    with pytest.raises(InputError, match="not found"):
        load("nowhere", IMAGE)
    text = tmp_path / "t.npz"
    text.write_text("hello")
    with pytest.raises(InputError, match="numpy archive"):
        load(str(text), IMAGE)
    np.savez(tmp_path / "o.npz", image=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="never loaded"):
        load(str(tmp_path / "o.npz"), IMAGE)
    np.savez(text, image=X)
    text.write_bytes(text.read_bytes()[:200])
    with pytest.raises(InputError, match="no readable numpy file|numpy archive"):
        load(str(text), IMAGE)
    (tmp_path / "d.csv").write_text("1")
    with pytest.raises(InputError, match="cannot be read"):
        load(str(tmp_path / "d.csv"), IMAGE)


def test_random():
    specs = (*IMAGE, InputSpec("u", (None, 5), "uint8"), InputSpec("i", (None, 5), "int64"))
    one, two = load("random:64", specs, seed=1), load("random:64", specs, seed=1)
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not np.array_equal(one["image"], load("random:64", specs, seed=2)["image"])
    assert one["image"].min() >= 0 and 0.9 < one["image"].max() < 1
    assert one["u"].max() > 200 and set(np.unique(one["i"])) == {0, 1}
    for bad in ("random:", "random:x", "random:0", "random:-1"):
        with pytest.raises(InputError, match="whole number"):
            load(bad, specs)
    with pytest.raises(InputError, match="fixed sizes"):
        load("random:2", (InputSpec("s", (None, None)),))


@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder(tmp_path, channels):
    image = pytest.importorskip("PIL.Image")
    for i in range(5):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        image.new("RGB", (9, 7), (51 * i,) * 3).save(tmp_path / f"class{i % 2}" / f"{i}.png")
    spec = (InputSpec("p", (None, 4, 6, channels)),)
    folder = load(str(tmp_path), spec, seed=3)
    got = stack(folder, spec)["p"]
    assert got.shape == (5, 4, 6, channels)
    np.testing.assert_allclose(sorted(got[:, 0, 0, 0]), np.arange(5) * 0.2, atol=1e-6)
    np.testing.assert_array_equal(got, stack(folder, spec)["p"])
    raw = stack(load(str(tmp_path), spec, scale=1.0, offset=-1.0), spec)["p"]
    assert raw.max() == 203 and raw.min() == -1
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="broken.jpg"):
        stack(load(str(tmp_path), spec), spec)


def test_image_folder_needs_an_image_input(tmp_path):
    with pytest.raises(InputError, match="no images"):
        load(str(tmp_path), (InputSpec("p", (None, 4, 6, 3)),))
    with pytest.raises(InputError, match="one image input only"):
        load(str(tmp_path), TWO)
    with pytest.raises(InputError, match="fixed input size"):
        load(str(tmp_path), (InputSpec("p", (None, None, 6, 3)),))

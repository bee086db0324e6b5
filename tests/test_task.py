"""Tasks of every source of data, and what they say about labels, losses and scores."""

from __future__ import annotations

import numpy as np
import pytest

from tfedge._keras import keras, tf
from tfedge.augment import shift_and_flip
from tfedge.data import InputSpec, stack
from tfedge.errors import InputError, ModelError
from tfedge.heads import heads
from tfedge.scoring import resolve_kind, score_output
from tfedge.sources import model_inputs
from tfedge.task import Task, get_task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")
# The first column tells the sample, so that parts can be told apart.
X[:, 0] = np.arange(50)
Y = np.arange(50) % 3


def _net(units=3, activation=None, name="in/put"):
    x = keras.Input((4,), name=name)
    return keras.Model(x, keras.layers.Dense(units, activation=activation, name="out")(x))


def _two():
    a, b = keras.Input((4,), name="a/1"), keras.Input((2,), name="b")
    h = keras.layers.Concatenate()([a, b])
    cls = keras.layers.Dense(3, activation="softmax", name="cls")(h)
    return keras.Model([a, b], [cls, keras.layers.Dense(1, name="reg")(h)])


def _ids(batches):
    return [int(v) for x, *_ in batches.as_numpy_iterator() for v in x[:, 0]]


def _array_task():
    return Task((X[:40], Y[:40]), (X[40:], Y[40:]))


def _stream_task():
    def of(part):
        return tf.data.Dataset.from_tensor_slices((X[part], Y[part]))

    return Task(of(slice(0, 40)).batch(7), of(slice(40, 50)), validation_split=0.25)


@pytest.mark.parametrize("make", [_array_task, _stream_task])
def test_parts_are_disjoint_and_complete(make):
    task = make().for_model(_net())
    train, held = _ids(task.train_batches(6)), _ids(task.validation_batches(6))
    assert held and sorted(train + held) == list(range(40))
    assert _ids(task.test_batches(6)) == list(range(40, 50))
    assert task.train.size == len(train) and task.steps(6) == -(-len(train) // 6)
    again = make().for_model(_net())
    assert _ids(again.validation_batches(6)) == held


@pytest.mark.parametrize("make", [_array_task, _stream_task])
def test_order_follows_seed_and_epoch(make):
    task = make().for_model(_net())
    one = _ids(task.train_batches(6, seed=1, epochs=range(3)))
    assert one == _ids(make().for_model(_net()).train_batches(6, seed=1, epochs=range(3)))
    size = task.train.size
    parts = [one[i * size : (i + 1) * size] for i in range(3)]
    assert all(sorted(p) == sorted(parts[0]) for p in parts)
    assert parts[0] != parts[1] != parts[2]
    assert _ids(task.train_batches(6, seed=1, epochs=range(1, 3))) == parts[1] + parts[2]
    assert _ids(task.train_batches(6, seed=2, epochs=range(1))) != parts[0]
    endless = task.train_batches(6, seed=5)
    first, second = _ids(endless), _ids(endless)
    assert first != second and sorted(first) == sorted(second)
    fresh = task.train_batches(6, seed=5)
    assert [_ids(fresh), _ids(fresh)] == [first, second]
    assert int(endless.cardinality()) == task.steps(6)


@pytest.mark.parametrize("make", [_array_task, _stream_task])
def test_calibration_and_arrays_go_by_the_models_names(make):
    model = _net()
    task = make().for_model(model)
    calibration = task.calibration(8)
    assert list(calibration) == ["in/put"] and calibration["in/put"].shape == (8, 4)
    train = set(_ids(task.train_batches(6)))
    assert set(map(int, calibration["in/put"][:, 0])) <= train
    np.testing.assert_array_equal(calibration["in/put"], task.calibration(8)["in/put"])
    assert len(task.calibration(1000)["in/put"]) == task.train.size
    stack(calibration, model_inputs(model))
    x, y = task.test_arrays()
    np.testing.assert_array_equal(x["in/put"], X[40:])
    np.testing.assert_array_equal(y, Y[40:])
    assert len(task.test_arrays(3)[1]) == 3


def test_augmentation_changes_training_only_and_repeats():
    def noise(x, seed):
        return x + tf.random.stateless_uniform(tf.shape(x), seed, maxval=0.5)

    task = Task((X, Y), (X, Y), augment=noise, validation_split=0.2).for_model(_net())

    def flat(batches):
        return np.concatenate([x for x, _ in batches.as_numpy_iterator()])

    one, two = (flat(task.train_batches(8, 3, epochs=range(2))) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    rest = one - X[one[:, 0].astype(int)]
    assert 0 < rest.min() and rest.max() < 0.5
    assert len(np.unique(rest.round(6))) > rest.size * 0.9
    np.testing.assert_array_equal(flat(task.test_batches()), X)
    assert set(flat(task.validation_batches())[:, 0]) <= set(X[:, 0])
    tail = flat(task.train_batches(8, 3, epochs=range(1, 2)))
    np.testing.assert_array_equal(tail, one[len(tail) :])


KINDS = [
    (np.array([0, 2, 1]), (None, 3), "linear", "sparse"),
    (np.array([[0], [2]]), (None, 3), "softmax", "sparse"),
    (np.array([0.0, 2.0]), (None, 3), "softmax", "sparse"),
    (np.eye(3), (None, 3), "linear", "onehot"),
    (np.full((2, 3), 1 / 3), (None, 3), "softmax", "onehot"),
    (np.eye(3), (None, 3), "sigmoid", "binary"),
    (np.array([[1, 1, 0]]), (None, 3), "linear", "binary"),
    (np.array([0, 1]), (None, 1), "sigmoid", "binary"),
    (np.array([0, 1]), (None, 1), "linear", "binary"),
    (np.array([0.0, 1.0]), (None, 1), "linear", "regression"),
    (np.array([0.3, 7.0]), (None, 1), "linear", "regression"),
    (np.array([[0.3], [7.0]]), (None, 1), "linear", "regression"),
    (RNG.normal(size=(4, 3)), (None, 3), "linear", "regression"),
    (np.zeros((2, 5, 5), int), (None, 5, 5, 3), "softmax", "sparse"),
]


@pytest.mark.parametrize(("y", "shape", "activation", "kind"), KINDS)
def test_kind_of_labels(y, shape, activation, kind):
    assert resolve_kind(y, shape, activation) == kind


BAD_LABELS = [
    (np.array([0, 3]), (None, 3), "linear", "larger than the model's number of classes"),
    (np.array([-1, 1]), (None, 3), "linear", "no class numbers"),
    (np.array([0.5, 1]), (None, 3), "linear", "no class numbers"),
    (np.zeros((2, 4)), (None, 3), "linear", "do not fit the model's output"),
    (np.zeros((2, 4)), (None, 1), "linear", "do not fit the model's output"),
    (np.array([0, 2]), (None, 1), "sigmoid", "between 0 and 1"),
    (np.array(["cat"]), (None, 3), "linear", "must be numbers"),
    (np.array([np.nan]), (None, 1), "linear", "NaN"),
]


@pytest.mark.parametrize(("y", "shape", "activation", "message"), BAD_LABELS)
def test_bad_labels(y, shape, activation, message):
    with pytest.raises(InputError, match=message):
        resolve_kind(y, shape, activation)


def test_scores():
    z = np.array([[2.0, 1, 0], [0, 1, 3], [5, 1, 3]])
    assert score_output(np.array([0, 2, 1]), z, "sparse") == {"accuracy": pytest.approx(2 / 3)}
    assert score_output(np.eye(3)[[0, 2, 0]], z, "onehot") == {"accuracy": 1.0}
    one = np.array([[0.2], [-0.3], [0.9]])
    assert score_output(np.array([0, 0, 1]), one, "binary", "sigmoid") == {"accuracy": 1.0}
    assert score_output(np.array([1, 0, 1]), one, "binary", "linear") == {"accuracy": 1.0}
    got = score_output(np.array([1.0, 2.0]), np.array([[1.0], [4.0]]), "regression")
    assert got == {"mse": 2.0, "mae": 1.0}
    with pytest.raises(InputError, match="differ in number"):
        score_output(np.zeros(2), z, "sparse")


@pytest.mark.parametrize(
    ("units", "activation", "y", "loss", "logits"),
    [
        (3, None, Y, keras.losses.SparseCategoricalCrossentropy, True),
        (3, "softmax", Y, keras.losses.SparseCategoricalCrossentropy, False),
        (3, "softmax", np.eye(3)[Y], keras.losses.CategoricalCrossentropy, False),
        (1, "sigmoid", Y > 0, keras.losses.BinaryCrossentropy, False),
        (1, None, (Y > 0).astype(int), keras.losses.BinaryCrossentropy, True),
        (1, None, X[:, 1], keras.losses.MeanSquaredError, None),
    ],
)
def test_loss_follows_labels_and_activation(units, activation, y, loss, logits):
    task = Task((X, y), (X, y)).for_model(_net(units, activation))
    assert type(task.loss) is loss
    if logits is not None:
        assert task.loss.get_config()["from_logits"] is logits
    other = task.for_model(_net(units, None))
    if logits is not None:
        assert other.loss.get_config()["from_logits"] is True
    assert other.train.size == task.train.size


def test_several_inputs_and_outputs():
    x = {"b": X[:, :2], "a/1": X}
    y = {"cls": Y, "reg": X[:, :1]}
    model = _two()
    task = Task((x, y), (x, y)).for_model(model)
    assert task.kind == ("sparse", "regression")
    model.compile("adam", task.loss, task.fresh_metrics())
    history = model.fit(task.train_batches(10), epochs=1, verbose=0).history
    assert {"cls_accuracy", "reg_mae"} <= set(history)
    assert set(task.calibration(3)) == {"a/1", "b"}
    cls, reg = model.predict({"a/1": X, "b": X[:, :2]}, verbose=0)
    by_list, by_name = (
        task.score(y, [cls, reg]),
        task.score((Y, X[:, :1]), {"reg": reg, "cls": cls}),
    )
    assert by_list == by_name and set(by_list) == {"cls_accuracy", "reg_mse", "reg_mae"}
    assert by_list["cls_accuracy"] == pytest.approx(np.mean(cls.argmax(-1) == Y))
    with pytest.raises(InputError, match="Did you mean|lacks the input|unknown input"):
        Task(({"b": X[:, :2], "a1": X}, y), (x, y)).for_model(model)
    stream = tf.data.Dataset.from_tensor_slices(((X, X[:, :2]), (Y, X[:, :1])))
    bound = Task(stream, stream.batch(4)).for_model(model)
    assert set(bound.calibration(3)) == {"a/1", "b"}
    model.fit(bound.train_batches(10), verbose=0)


def test_own_score_metrics_and_loss():
    task = Task(
        (X, Y),
        (X, Y),
        loss="mse",
        metrics=("mae", lambda: keras.metrics.MeanSquaredError(name="square")),
        score_fn=lambda y, z: {"largest": np.max(z)},
    ).for_model(_net(7))
    assert task.score(Y, np.ones((50, 7))) == {"largest": 1.0}
    assert task.loss == "mse" and task.fresh_metrics()[0] == "mae"
    assert task.fresh_metrics()[1] is not task.fresh_metrics()[1]


def test_data_that_does_not_fit_the_model():
    with pytest.raises(InputError, match="wrong shape"):
        Task((X[:, :3], Y), (X, Y)).for_model(_net())
    with pytest.raises(InputError, match="NaN"):
        Task((np.full_like(X, np.nan), Y), (X, Y)).for_model(_net())
    with pytest.raises(InputError, match="differ in number"):
        Task((X, Y[:-1]), (X, Y))
    with pytest.raises(InputError, match="empty"):
        Task((X[:0], Y[:0]), (X, Y))
    with pytest.raises(InputError, match="wrong shape"):
        wide = tf.data.Dataset.from_tensor_slices((X[:, :3], Y))
        Task(wide, wide).for_model(_net())
    with pytest.raises(InputError, match="never ends"):
        endless = tf.data.Dataset.from_tensor_slices((X, Y)).repeat()
        Task(endless, endless).for_model(_net())
    with pytest.raises(InputError, match="must yield"):
        Task(tf.data.Dataset.from_tensor_slices(X), (X, Y)).for_model(_net())
    with pytest.raises(InputError, match="no data that a task"):
        Task(3, (X, Y))
    with pytest.raises(InputError, match="Did you mean 'regression'"):
        Task((X, Y), (X, Y), kind="regresion")
    with pytest.raises(InputError, match="validation_split"):
        Task((X, Y), (X, Y), validation_split=1.0)
    with pytest.raises(ModelError, match="not known"):
        Task((X, Y), (X, Y)).for_model(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(InputError, match="not bound"):
        Task((X, Y), (X, Y)).score(Y, X)
    with pytest.raises(InputError, match="no validation part"):
        Task((X, Y), (X, Y), validation_split=0).for_model(_net()).validation_batches()


def test_npz(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=X[:5], y_test=Y[:5], class_names=["a", "b", "c"])
    task = get_task(str(path), model=_net())
    assert task.name == "mine" and task.labels == ("a", "b", "c")
    assert _ids(task.test_batches()) == [0, 1, 2, 3, 4]
    assert task.train.size == 45 and task.validation.size == 5
    np.savez(path, x=X, y=Y)
    task = get_task(path, model=_net())
    parts = [_ids(task.train_batches()), _ids(task.validation_batches()), _ids(task.test_batches())]
    assert [len(p) for p in parts] == [36, 4, 10] and sorted(sum(parts, [])) == list(range(50))
    np.savez(path, **{"b": X[:, :2], "a/1": X, "cls": Y, "reg": X[:, :1]})
    assert set(get_task(path, model=_two()).calibration(2)) == {"a/1", "b"}
    named = {f"{k}_{p}": v for p in ("train", "test") for k, v in {"in/put": X, "y": Y}.items()}
    np.savez(path, **named)
    assert get_task(path, model=_net()).test.size == 50
    np.savez(path, x=X)
    with pytest.raises(InputError, match="holds no labels"):
        get_task(path)
    np.savez(path, x_train=X, y_train=Y)
    with pytest.raises(InputError, match="does not hold a task"):
        get_task(path)
    with pytest.raises(InputError, match="not found"):
        get_task("nowhere.npz")


def _images(root, parts, size=(9, 7)):
    image = pytest.importorskip("PIL.Image")
    for part in parts:
        for number, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(6):
                color = (100 + 100 * number, i, 0)
                image.new("RGB", size, color).save(folder / f"{i}.{'png' if i % 2 else 'bmp'}")


def _image_model(*first):
    return keras.Sequential(
        [keras.Input((4, 6, 3)), *first, keras.layers.Flatten(), keras.layers.Dense(2)]
    )


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val"), ("",)])
def test_image_folder(tmp_path, parts):
    root = tmp_path / "pets"
    _images(root, parts)
    task = get_task(str(root), model=_image_model())
    assert task.labels == ("cat", "dog") and task.name == "pets"
    assert task.preprocessing == {"scale": 1 / 255, "offset": 0.0}
    sizes = [task.train.size, task.validation.size, task.test.size]
    assert sizes == ([9, 1, 2] if parts == ("",) else [11, 1, 12])
    for batches in (task.train_batches(4), task.test_batches(4)):
        for x, y in batches.as_numpy_iterator():
            assert x.shape[1:] == (4, 6, 3) and x.dtype == np.float32
            np.testing.assert_allclose(x[..., 0].mean((1, 2)), (100 + 100 * y) / 255, atol=1e-3)
    assert next(iter(task.calibration(2).values())).shape == (2, 4, 6, 3)
    raw = get_task(str(root), model=_image_model(keras.layers.Rescaling(1 / 255)))
    assert raw.preprocessing["scale"] == 1.0
    assert next(iter(raw.calibration(12).values())).max() == pytest.approx(200, abs=0.1)
    unbound = get_task(str(root))
    with pytest.raises(InputError, match="for_model"):
        unbound.test_batches()


def test_bad_image_folders(tmp_path):
    _images(tmp_path / "a", ("train",))
    with pytest.raises(InputError, match="no test part"):
        get_task(str(tmp_path / "a"))
    _images(tmp_path / "a", ("test",))
    (tmp_path / "a" / "test" / "dgo").mkdir()
    with pytest.raises(InputError, match="'dgo'. Did you mean 'dog'"):
        get_task(str(tmp_path / "a"))
    (tmp_path / "a" / "test" / "dgo").rmdir()
    with pytest.raises(InputError, match="one input of fixed size"):
        get_task(str(tmp_path / "a"), model=_net())
    (tmp_path / "a" / "train" / "cat" / "x.jpg").write_text("no image")
    with pytest.raises(InputError, match="x.jpg"):
        get_task(str(tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="one folder per class"):
        get_task(str(tmp_path / "empty"))


MODULE = """
import numpy as np
x, y = np.zeros((20, 4), "float32"), np.arange(20) % 3
def as_dict(): return {"train": (x, y), "test": (x, y), "labels": ("a", "b", "c")}
def as_pair(): return (x, y), (x, y)
def as_streams():
    import tensorflow as tf
    return tf.data.Dataset.from_tensor_slices((x, y)), tf.data.Dataset.from_tensor_slices((x, y))
def as_task():
    from tfedge.task import Task
    return Task((x, y), (x, y), name="own")
def with_model(model): return {"train": (x, y), "test": (x, y), "name": model.name}
def misspelt(): return {"train": (x, y), "tset": (x, y)}
def lacking(): return {"train": (x, y)}
def raising(): raise RuntimeError("no such table")
def number(): return 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "mytask.py").write_text(MODULE)
    (tmp_path / "brokentask.py").write_text("import does_not_exist_anywhere")
    (tmp_path / "raisingtask.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("mytask", "brokentask", "raisingtask"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["as_dict", "as_pair", "as_streams", "as_task", "with_model"])
def test_functions(module, name):
    model = _net()
    task = get_task(f"mytask:{name}", model=model)
    assert task.test.size == 20 and task.kind == ("sparse",)
    assert task.name == {"as_task": "own", "with_model": model.name}.get(name, name)
    assert get_task(f"mytask.py:{name}", model=model).name == task.name


BAD_SPECS = {
    "mytask:as_dcit": "Did you mean 'as_dict'",
    "mytask:misspelt": "'tset'. Did you mean 'test'",
    "mytask:lacking": "returned no 'test'",
    "mytask:raising": "RuntimeError: no such table",
    "mytask:number": "returned no task",
    "nomodule:f": "module was not found",
    "nofile.py:f": "file was not found",
    "brokentask:f": "does_not_exist_anywhere",
    "raisingtask:f": "ZeroDivisionError",
    "fashion_mnits": "Did you mean 'fashion_mnist'",
    "mytask.py": "no task data",
}


@pytest.mark.parametrize("spec", BAD_SPECS)
def test_bad_specs(module, spec):
    with pytest.raises(InputError, match=BAD_SPECS[spec]) as caught:
        get_task(spec)
    assert "\n" not in str(caught.value)


def test_a_task_and_nonsense():
    task = _array_task()
    assert get_task(task) is task
    with pytest.raises(InputError, match="names no task"):
        get_task(3)


def test_fashion_mnist_task(monkeypatch):
    from tfedge import datasets

    x = RNG.integers(0, 256, (5100, 28, 28), dtype=np.uint8)
    y = (np.arange(5100) % 10).astype(np.uint8)
    monkeypatch.setattr(datasets, "fashion_mnist", lambda: (x, y, x[:50], y[:50]))
    task = get_task("fashion_mnist")
    model = task.build()
    task = task.for_model(model)
    assert [task.train.size, task.validation.size, task.test.size] == [100, 5000, 50]
    got, labels = task.test_arrays()
    np.testing.assert_allclose(got["image"], x[:50, ..., None] / 255, rtol=1e-5)
    np.testing.assert_array_equal(labels, y[:50])
    held = next(task.validation_batches(4).as_numpy_iterator())[1]
    np.testing.assert_array_equal(held, y[100:104])
    image, _ = next(task.train_batches(8, epochs=range(1)).as_numpy_iterator())
    assert image.shape == (8, 28, 28, 1) and len(task.labels) == 10


@pytest.mark.parametrize("flip", [False, True])
def test_shift_and_flip(flip):
    image = np.arange(36, dtype="float32").reshape(6, 6, 1)
    out = shift_and_flip(2, flip=flip)(tf.constant(np.stack([image] * 200)), tf.constant([1, 2]))
    assert out.shape == (200, 6, 6, 1)
    padded = np.pad(image[..., 0], 2, mode="symmetric")
    views = {padded[r : r + 6, c : c + 6].tobytes() for r in range(5) for c in range(5)}
    if flip:
        views |= {np.frombuffer(v, "float32").reshape(6, 6)[:, ::-1].tobytes() for v in views}
    made = {np.ascontiguousarray(o[..., 0]).tobytes() for o in out.numpy()}
    assert made <= views and len(made) > 20
    assert any(m not in {image.tobytes()} for m in made)
    if flip:
        assert len(made) > 30
    with pytest.raises(InputError, match="negative"):
        shift_and_flip(-1)


def _wrapped(model):
    x = keras.Input((4,))
    return keras.Model(x, model(x))


HEADS = {
    "dense softmax": (lambda: _net(3, "softmax"), "softmax"),
    "logits": (lambda: _net(3), "linear"),
    "nested": (lambda: _wrapped(_net(3, "softmax")), "softmax"),
    "softmax layer": (lambda: keras.Sequential([_net(3), keras.layers.Softmax()]), "softmax"),
    "reshaped": (
        lambda: keras.Sequential([_net(4, "sigmoid"), keras.layers.Reshape((2, 2))]),
        "sigmoid",
    ),
    "cast": (
        lambda: keras.Sequential([_net(3, "softmax"), keras.layers.Activation("linear")]),
        "softmax",
    ),
    "dropout": (lambda: keras.Sequential([_net(3, "relu"), keras.layers.Dropout(0.1)]), "relu"),
    "norm after softmax": (
        lambda: keras.Sequential([_net(3, "softmax"), keras.layers.BatchNormalization()]),
        "linear",
    ),
    "lambda": (lambda: keras.Sequential([_net(3), keras.layers.Lambda(tf.nn.relu)]), "unknown"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_last_activation(kind):
    make, activation = HEADS[kind]
    assert heads(make())[0].activation == activation


def test_operation_as_last_layer():
    x = keras.Input((4,))
    model = keras.Model(x, tf.nn.softmax(keras.layers.Dense(3)(x)))
    assert heads(model)[0].activation == "softmax"


def test_last_activation_through_quantization():
    tfmot = pytest.importorskip("tensorflow_model_optimization")
    for activation in ("softmax", "sigmoid", "linear"):
        quantized = tfmot.quantization.keras.quantize_model(_net(3, activation))
        assert heads(quantized)[0].activation == activation
        assert model_inputs(quantized) == (InputSpec("in/put", (None, 4)),)

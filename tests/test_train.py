"""Training: resume to the same result, clear errors, scores."""

from __future__ import annotations

import numpy as np
import pytest

from tfedge import checkpoint, train
from tfedge._keras import keras, tf
from tfedge.distill import Distiller
from tfedge.errors import InputError
from tfedge.task import Task
from tfedge.train import TrainSpec, compile_model, evaluate, fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int64") + (X[:, 1] > 0)


def _noise(x, seed):
    return x + tf.random.stateless_normal(tf.shape(x), seed, stddev=0.1)


def _task(**fields):
    return Task((X, Y), (X, Y), augment=_noise, **fields)


def _net(seed=3, units=3):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.layers.Dense(12, use_bias=False, input_shape=(6,)),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(units),
        ]
    )


class Stopper(keras.callbacks.Callback):
    """Interrupts in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, epoch, step):
        super().__init__()
        self.at = (epoch, step)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


class Counter(keras.callbacks.Callback):
    """Counts epochs and keeps an array: state that must survive."""

    def __init__(self):
        super().__init__()
        self.count, self.trace = 0, np.zeros(0)

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1
        self.trace = np.append(self.trace, epoch)

    def get_state(self):
        return {"count": self.count, "trace": self.trace}

    def set_state(self, state):
        self.count, self.trace = state["count"], state["trace"]


def _same(one, two):
    assert len(one.weights) == len(two.weights)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "spec",
    [
        TrainSpec(epochs=4, batch_size=16, seed=5),
        TrainSpec(epochs=4, batch_size=16, optimizer="sgd", weight_decay=1e-3),
        TrainSpec(epochs=4, batch_size=16, optimizer="adamw", steps_per_execution=2, warmup=0),
    ],
    ids=["adam", "sgd", "adamw, 2 steps"],
)
def test_resume_ends_as_if_never_stopped(tmp_path, spec):
    whole, counter = _net(), Counter()
    expected = fit(whole, _task(), spec, callbacks=[counter])
    assert len(expected["loss"]) == 4 and expected["loss"][-1] < expected["loss"][0]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} == set(expected)
    stopped = _net()
    with pytest.raises(KeyboardInterrupt):
        fit(
            stopped,
            _task(),
            spec,
            callbacks=[Counter(), Stopper(2, 3)],
            checkpoint_dir=tmp_path,
        )
    resumed, again = _net(seed=99), Counter()
    got = fit(resumed, _task(), spec, callbacks=[again], checkpoint_dir=tmp_path)
    _same(resumed, whole)
    assert got.keys() == expected.keys()
    for name, values in got.items():
        assert values == pytest.approx(expected[name])
    assert again.count == counter.count == 4
    np.testing.assert_array_equal(again.trace, [0, 1, 2, 3])
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.FILE]


def test_finished_run_returns_at_once(tmp_path, monkeypatch):
    spec = TrainSpec(epochs=2, batch_size=32)
    first = _net()
    history = fit(first, _task(), spec, checkpoint_dir=tmp_path)
    monkeypatch.setattr(train, "_fit", lambda *a: pytest.fail("trained again"))
    second = _net(seed=7)
    assert fit(second, _task(), spec, checkpoint_dir=tmp_path) == history
    _same(first, second)


@pytest.mark.slow
def test_same_seed_same_result_other_seed_other():
    def run(seed):
        model = _net()
        fit(model, _task(), TrainSpec(epochs=1, batch_size=16, seed=seed))
        return model

    _same(run(1), run(1))
    assert not np.array_equal(run(1).get_weights()[0], run(2).get_weights()[0])


def test_distiller_resumes(tmp_path):
    spec = TrainSpec(epochs=3, batch_size=16)
    teacher = _net(seed=11)

    def distiller(seed=3):
        return Distiller(_net(seed), teacher, alpha=0.5)

    whole = distiller()
    expected = fit(whole, _task(), spec)
    assert {"loss", "hard_loss", "soft_loss", "accuracy"} <= set(expected)
    with pytest.raises(KeyboardInterrupt):
        fit(distiller(), _task(), spec, callbacks=[Stopper(1, 1)], checkpoint_dir=tmp_path)
    resumed = distiller(seed=50)
    fit(resumed, _task(), spec, checkpoint_dir=tmp_path)
    _same(resumed.student, whole.student)
    assert evaluate(resumed, _task()) == evaluate(whole.student, _task())


def test_legacy_optimizer_and_compiled_model_keep_their_own(tmp_path):
    spec = TrainSpec(epochs=2, batch_size=16)

    def model(seed=3):
        made = _net(seed)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile(keras.optimizers.legacy.Adam(1e-2), loss, metrics=["accuracy"])
        return made

    whole = model()
    optimizer = whole.optimizer
    fit(whole, _task(), spec)
    assert whole.optimizer is optimizer
    with pytest.raises(KeyboardInterrupt):
        fit(model(), _task(), spec, callbacks=[Stopper(1, 2)], checkpoint_dir=tmp_path)
    resumed = model(seed=8)
    fit(resumed, _task(), spec, checkpoint_dir=tmp_path)
    _same(resumed, whole)
    fit(whole, _task(), TrainSpec(epochs=1, optimizer="sgd", learning_rate=0.1))
    assert isinstance(whole.optimizer, keras.optimizers.SGD)


def test_schedule_warms_up_and_falls():
    model = _net()
    spec = TrainSpec(epochs=10, batch_size=9, learning_rate=0.5, warmup=0.2)
    compile_model(model, _task(), spec)
    rates = [float(model.optimizer._learning_rate(s)) for s in range(91)]
    assert np.argmax(rates) in (18, 17) and rates[18] == pytest.approx(0.5, rel=1e-3)
    assert rates[0] < 0.1 and rates[90] == pytest.approx(0, abs=1e-6)
    assert all(np.diff(rates[:18]) > 0) and all(np.diff(rates[18:]) < 0)


def test_nan_stops_with_the_place(tmp_path):
    model = _net()
    spec = TrainSpec(epochs=2, batch_size=16, optimizer="sgd", learning_rate=1e30, warmup=0)
    with pytest.raises(InputError, match="NaN or infinite. Found: epoch 1, step"):
        fit(model, _task(), spec, checkpoint_dir=tmp_path)
    assert not (tmp_path / checkpoint.FILE).exists()


def test_checkpoint_of_another_run_is_refused(tmp_path):
    fit(_net(), _task(), TrainSpec(epochs=1, batch_size=32), checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="another run. Found: epochs 1 there, 2 here"):
        fit(_net(), _task(), TrainSpec(epochs=2, batch_size=32), checkpoint_dir=tmp_path)
    path = tmp_path / checkpoint.FILE
    for damage in (path.read_bytes()[:300], b"", b"nonsense"):
        path.write_bytes(damage)
        with pytest.raises(InputError, match="damaged"):
            fit(_net(), _task(), TrainSpec(epochs=1, batch_size=32), checkpoint_dir=tmp_path)


def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    spec = TrainSpec(epochs=2, batch_size=32)
    real, calls = np.savez, []

    def savez(file, **arrays):
        calls.append(1)
        if len(calls) == 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(file, **arrays)

    monkeypatch.setattr(checkpoint.np, "savez", savez)
    with pytest.raises(InputError, match="cannot be written.*No space left"):
        fit(_net(), _task(), spec, checkpoint_dir=tmp_path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.FILE]
    whole, resumed = _net(), _net(seed=4)
    fit(whole, _task(), spec)
    fit(resumed, _task(), spec, checkpoint_dir=tmp_path)
    _same(whole, resumed)


def test_evaluate_agrees_with_numpy_and_needs_no_compile():
    model = _net()
    expected = np.mean(model.predict(X, verbose=0).argmax(-1) == Y)
    assert evaluate(model, _task(), batch_size=7) == {"accuracy": pytest.approx(expected)}
    bound = _task().for_model(model)
    assert 0 <= evaluate(model, bound, part="validation")["accuracy"] <= 1
    with pytest.raises(InputError, match="Did you mean 'test'"):
        evaluate(model, bound, part="tets")


def test_several_inputs_and_outputs():
    a, b = keras.Input((6,), name="a/1"), keras.Input((2,), name="b")
    h = keras.layers.Concatenate()([a, b])
    model = keras.Model(
        [a, b],
        [keras.layers.Dense(3, name="cls")(h), keras.layers.Dense(1, name="reg")(h)],
    )
    x, y = {"a/1": X, "b": X[:, :2]}, {"cls": Y, "reg": X[:, 2]}
    task = Task((x, y), (x, y), validation=(x, y))
    before = evaluate(model, task)
    fit(model, task, TrainSpec(epochs=8, batch_size=16, learning_rate=3e-2))
    after = evaluate(model, task)
    assert after["reg_mse"] < before["reg_mse"] and after["cls_accuracy"] > 0.6


def test_stream_and_one_dimensional_model():
    x, y = X[..., None], X[:, 0]
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(11)
    net = keras.Sequential(
        [
            keras.Input((6, 1), name="s/ignal"),
            keras.layers.Conv1D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    task = Task(stream, stream)
    history = fit(net, task, TrainSpec(epochs=5, batch_size=16, learning_rate=2e-2))
    assert history["loss"][-1] < history["loss"][0] and "val_mae" in history
    assert set(evaluate(net, task)) == {"mse", "mae"}


def test_stream_order_does_not_depend_on_the_global_seed():
    stream = tf.data.Dataset.from_tensor_slices((X, Y))
    task = Task(stream, stream).for_model(_net())
    orders = []
    for seed in (0, 7):
        keras.utils.set_random_seed(seed)
        batches = task.train_batches(8, 3, epochs=range(2))
        orders.append(np.concatenate([x for x, _ in batches.as_numpy_iterator()]))
    np.testing.assert_array_equal(*orders)


def test_unreadable_image_is_named(tmp_path):
    image = pytest.importorskip("PIL.Image")
    from tfedge.task import get_task

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            image.effect_noise((40, 40), 50).save(tmp_path / name / f"{i}.png")
    bad = tmp_path / "b" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    task = get_task(str(tmp_path), model=net)
    with pytest.raises(InputError, match="3.png"):
        fit(net, task, TrainSpec(epochs=1, batch_size=4))
        evaluate(net, task)


def test_plain_lines_without_a_terminal(capsys):
    fit(_net(), _task(), TrainSpec(epochs=2, batch_size=32))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith("epoch 1/2  loss ")


def test_bar_on_a_terminal(monkeypatch):
    import io

    from rich.console import Console

    from tfedge import fit_progress

    screen = io.StringIO()
    made = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr(fit_progress, "console", lambda: made)
    fit(_net(), _task(), TrainSpec(epochs=2, batch_size=32))
    assert "epoch 2/2" in screen.getvalue() and "accuracy" in screen.getvalue()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"epochs": 1, "batch_size": 0}, "batch_size must be"),
        ({"epochs": 1, "optimizer": "adm"}, "Did you mean 'adam'"),
        ({"epochs": 1, "learning_rate": 0}, "learning_rate"),
        ({"epochs": 1, "warmup": 1}, "warmup"),
        ({"epochs": 1, "weight_decay": -1}, "weight_decay"),
    ],
)
def test_bad_specs(fields, message):
    with pytest.raises(InputError, match=message):
        TrainSpec(**fields)

"""Teachers of every kind: files, functions, several, the student's old self, and the cache."""

import json

import numpy as np
import pytest

import tfedge
from tests.distill_nets import X, Y, cross_entropy, kl, net, softmax
from tfedge._keras import keras, keras3, tf
from tfedge.augment import shift_and_flip
from tfedge.distill import Distiller, TeacherCache
from tfedge.errors import InputError
from tfedge.task import Task
from tfedge.train import TrainSpec, fit


def soft(student, teacher, batch=64, **options):
    distiller = Distiller(student, teacher, **options)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy(keras))
    return distiller.fit(X, Y, batch_size=batch, verbose=0).history["soft_loss"][0]


def logits(model):
    return model(X, training=False).numpy()


def test_kinds_of_teachers_say_the_same(tmp_path):
    student, teacher = net(keras, seed=1), net(keras, 16, "softmax", seed=2)
    student.get_layer("norm").trainable = False
    expected = soft(student, teacher)
    file = tfedge.convert(teacher, "float32")
    file.save(tmp_path / "t.tflite")
    teacher.save(tmp_path / "t.keras")
    crossed = tfedge.bridge.to_keras3(teacher)
    known = (file, tmp_path / "t.tflite", str(tmp_path / "t.keras"), crossed,
             lambda x: teacher(x, training=False))  # fmt: skip
    for other in known:
        assert soft(student, other) == pytest.approx(expected, rel=1e-3)
    integer = tfedge.convert(teacher, "w8a8", calibration=X)
    assert soft(student, integer) == pytest.approx(expected, rel=0.3)


def test_self_is_the_student_as_it_was():
    student = net(keras, seed=1)
    distiller = Distiller(student, "self", alpha=0.9)
    before = logits(student)
    distiller.compile(keras.optimizers.Adam(0.05), cross_entropy(keras))
    first, *_, last = distiller.fit(X, Y, batch_size=16, epochs=4, verbose=0).history["soft_loss"]
    assert last > 0 and not np.allclose(logits(student), before, atol=1e-2)
    np.testing.assert_allclose(distiller.core.teach(X).outputs[0][0], before, rtol=1e-4, atol=1e-5)


def three():
    student = net(keras, seed=1)
    student.get_layer("norm").trainable = False
    teachers = [net(keras, w, a, seed=w) for w, a in ((4, None), (8, "softmax"), (16, None))]
    for t in teachers:
        t.layers[-1].set_weights([12 * w for w in t.layers[-1].get_weights()])
    z = [np.log(logits(t)) if i == 1 else logits(t) for i, t in enumerate(teachers)]
    return student, teachers, z


def test_several_teachers_averaged():
    student, teachers, z = three()
    each = [kl(t, logits(student), 2.0).mean() for t in z]
    assert soft(student, teachers) == pytest.approx(np.mean(each), rel=1e-3)


@pytest.mark.parametrize("labelled", [True, False])
def test_several_teachers_by_confidence(labelled):
    student, teachers, z = three()
    p = np.stack([softmax(t) for t in z], -1)
    if labelled:
        costs = -np.log(p[np.arange(64), Y])
    else:
        costs = -(p * np.log(p)).sum(1) / np.log(3)
    shares = (1 - softmax(costs)) / 2
    np.testing.assert_allclose(shares.sum(1), 1)
    expected = (shares * np.stack([kl(t, logits(student), 2.0) for t in z], -1)).sum(1).mean()
    if labelled:
        got = soft(student, teachers, combine="confidence")
    else:
        distiller = Distiller(student, teachers, alpha=1, combine="confidence")
        distiller.compile(keras.optimizers.SGD(0.0))
        got = distiller.fit(X, batch_size=64, verbose=0).history["soft_loss"][0]
    assert got == pytest.approx(expected, rel=1e-3)


def test_gradient_of_several_is_that_of_their_mean():
    student, teachers, z = three()
    student.trainable = True
    mixture = np.log(np.mean([softmax(t / 2.0) for t in z], 0)) * 2.0
    weights = student.get_weights()
    moved = []
    for teacher in (teachers, lambda x: tf.constant(mixture, tf.float32)):
        student.set_weights(weights)
        act = "auto" if isinstance(teacher, list) else "linear"
        with pytest.MonkeyPatch.context() as patch:
            # The stand-in knows the answers of these 64 samples alone: it is not tried out.
            if act == "linear":
                from tfedge.distill.teacher import Teacher

                patch.setattr(Teacher, "_probe", lambda self: [mixture])
            distiller = Distiller(student, teacher, alpha=1, teacher_activation=act)
        distiller.compile(keras.optimizers.SGD(0.5))
        distiller.fit(X, batch_size=64, shuffle=False, verbose=0)
        moved.append(student.get_weights())
    for a, b in zip(*moved, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def hidden(activation):
    """A model whose last layer does not show what its output is."""
    inner = net(keras, 8, seed=3)
    return keras.Model(inner.inputs, keras.layers.Lambda(activation)(inner.outputs[0]))


def test_activations_are_seen_and_contradictions_refused():
    student, plain = net(keras), net(keras, 16)
    proba = net(keras, 16, "softmax")
    assert (
        Distiller(student, hidden(tf.nn.softmax)).core.teachers[0].heads[0].activation == "softmax"
    )
    assert Distiller(student, hidden(tf.identity)).core.teachers[0].heads[0].activation == "linear"
    for teacher, said in (
        (plain, "softmax"),
        (proba, "linear"),
        (proba, "sigmoid"),
        (lambda x: proba(x), "linear"),
        (lambda x: plain(x), "softmax"),
        (lambda x: plain(x), "sigmoid"),
        (hidden(tf.nn.softmax), "linear"),
    ):
        with pytest.raises(InputError, match="teacher_activation contradicts"):
            Distiller(student, teacher, teacher_activation=said)
    # Averaged probabilities do not show in the graph; saying so is checked against the values.
    two = keras.layers.Average()([proba.outputs[0], keras.layers.Softmax()(proba.outputs[0])])
    mixed = keras.Model(proba.inputs, two)
    made = Distiller(student, mixed, teacher_activation="softmax")
    assert made.core.teachers[0].heads[0].activation == "softmax"


@pytest.mark.parametrize("lib", [keras, keras3], ids=["tf_keras", "keras3"])
def test_loss_and_student_must_agree_about_logits(lib):
    lib = lib() if lib is keras3 else lib
    wrong = [
        (None, lib.losses.SparseCategoricalCrossentropy()),
        (None, "sparse_categorical_crossentropy"),
        ("softmax", cross_entropy(lib)),
    ]
    for activation, loss in wrong:
        with pytest.raises(InputError, match="disagree about logits"):
            Distiller(net(lib, 8, activation), net(lib, 16)).compile("sgd", loss)
    image = lib.Input((4,))
    halves = [lib.layers.Dense(3, "softmax")(image) for _ in range(2)]
    mixture = lib.Model(image, lib.layers.Average()(halves))
    teacher = lib.Sequential([lib.Input((4,)), lib.layers.Dense(3)])
    distiller = Distiller(mixture, teacher)
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    assert distiller.core._targets[0][0].activations == ("linear", "softmax")


def test_wrong_teachers(tmp_path):
    with pytest.raises(InputError, match="no teacher"):
        Distiller(net(keras), [])
    with pytest.raises(InputError, match="nothing to combine"):
        Distiller(net(keras), net(keras, 4), combine="confidence")
    with pytest.raises(InputError, match="Did you mean 'confidence'"):
        Distiller(net(keras), [net(keras, 4), net(keras, 5)], combine="confidenc")
    with pytest.raises(InputError, match="no option 'kinds'. Did you mean 'kind'"):
        Distiller(net(keras), net(keras, 4), kinds="softmax")
    with pytest.raises(InputError, match="no such model file"):
        Distiller(net(keras), "none.keras")
    with pytest.raises(InputError, match="cannot read"):
        Distiller(net(keras), "none.tflite")
    distiller = Distiller(net(keras), lambda x: x[:, 0, 0])
    with pytest.raises(InputError, match="XLA cannot compile"):
        distiller.compile("sgd", cross_entropy(keras), jit_compile=True)


class Counted:
    """A teacher that counts its batches."""

    def __init__(self, model):
        self.model, self.batches = model, 0

    def __call__(self, x):
        def count(x):
            self.batches += 1
            return x

        x = tf.numpy_function(count, [x], tf.float32)
        x.set_shape([None, 8, 8, 3])
        return self.model(x, training=False)


@pytest.mark.parametrize("lib", [keras, keras3], ids=["tf_keras", "keras3"])
def test_cache_trains_like_the_teacher(lib, tmp_path):
    lib = lib() if lib is keras3 else lib
    teacher = net(lib, 16, "softmax", seed=2)
    cache = TeacherCache.write(tmp_path / "c", net(lib), teacher, X, batch_size=16)
    results = []
    for source in (teacher, cache):
        student = net(lib, seed=1)
        distiller = Distiller(student, source)
        distiller.compile(lib.optimizers.Adam(1e-2), cross_entropy(lib), jit_compile=False)
        lib.utils.set_random_seed(0)
        history = distiller.fit(X, Y, batch_size=16, epochs=3, verbose=0).history
        results.append((history, student.get_weights()))
    # Not bit for bit on every CPU: a teacher inside the step's graph rounds otherwise than alone.
    np.testing.assert_allclose(results[0][0]["soft_loss"], results[1][0]["soft_loss"], rtol=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_epochs_cost_no_teacher_pass(tmp_path, monkeypatch):
    teacher, student = net(keras, 16), net(keras)
    live = Counted(teacher)
    soft(student, live, batch=16)
    assert live.batches == 1 + 4  # it is tried out once
    cache = TeacherCache.write(tmp_path / "c", student, teacher, X)
    monkeypatch.setattr(teacher, "call", lambda *a, **k: pytest.fail("the teacher was asked"))
    assert soft(student, cache, batch=16) > 0


def test_cache_through_a_task_shuffled_and_with_views(tmp_path):
    teacher, student = net(keras, 16, seed=2), net(keras, seed=1)
    task = Task((X, Y), (X[:8], Y[:8]), augment=shift_and_flip(0), seed=3)
    folder = tmp_path / "deep" / "c"
    cache = TeacherCache.ensure(folder, student, teacher, task)
    bound = task.for_model(student)
    assert len(cache._keys) == 2 * bound.train.size
    distiller = Distiller(student, cache)
    spec = TrainSpec(epochs=2, batch_size=16, learning_rate=1e-3)
    history = fit(distiller, task, spec)
    assert np.isfinite(history["soft_loss"]).all() and "val_loss" in history
    for x, _ in bound.train_batches(16, seed=9):
        np.testing.assert_allclose(cache(x)[0], teacher(x, training=False), rtol=1e-4, atol=1e-5)
    wild = Task((X, Y), (X[:8], Y[:8]), augment=shift_and_flip(2))
    with pytest.raises(InputError, match="cannot hold what this augmentation makes"):
        TeacherCache.write(tmp_path / "wild", student, teacher, wild)
    assert not (tmp_path / "wild").exists()


def test_cache_knows_its_teacher_and_its_data(tmp_path):
    teacher, student = net(keras, 16, seed=2), net(keras, seed=1)
    cache = TeacherCache.write(tmp_path / "c", student, teacher, X)
    cache.check(student, teacher, X)
    assert TeacherCache.ensure(tmp_path / "c", student, teacher, X).teacher == cache.teacher
    assert json.loads((tmp_path / "c" / "cache.json").read_text())["outputs"][0]["shape"] == [3]
    with pytest.raises(InputError, match="another teacher"):
        cache.check(student, net(keras, 16, seed=3), X)
    with pytest.raises(InputError, match="other data"):
        TeacherCache.ensure(tmp_path / "c", student, teacher, X[:32])
    with pytest.raises(InputError, match="not empty"):
        TeacherCache.write(tmp_path / "c", student, teacher, X)
    with pytest.raises(InputError, match="no teacher cache"):
        TeacherCache(tmp_path)
    with pytest.raises(InputError, match="cannot be told from another"):
        TeacherCache.write(tmp_path / "f", student, lambda x: teacher(x), X)
    distiller = Distiller(student, cache)
    distiller.compile("sgd", cross_entropy(keras))
    with pytest.raises(InputError, match="does not hold these samples"):
        distiller.fit(X + 0.5, Y, verbose=0)
    with pytest.raises(InputError, match="different numbers of classes|different shapes"):
        Distiller(keras.Sequential([keras.layers.Flatten(input_shape=(8, 8, 3)),
                                    keras.layers.Dense(4)]), cache)  # fmt: skip
    with pytest.raises(InputError, match="whose layers can be seen"):
        Distiller(student, cache, features="fitnet")
    with pytest.raises(InputError, match="contradicts"):
        Distiller(student, cache, teacher_activation="softmax")


def test_cache_of_several_inputs_and_outputs(tmp_path):
    def model(width):
        a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b", dtype="int32")
        h = keras.layers.Concatenate()([a, tf.cast(b, tf.float32)])
        h = keras.layers.Dense(width, "relu")(h)
        outs = [keras.layers.Dense(3, name="cls")(h), keras.layers.Dense(1, name="num")(h)]
        return keras.Model([a, b], outs)

    rng = np.random.default_rng(0)
    x = {"a": rng.random((20, 4), np.float32), "b": rng.integers(0, 9, (20, 3)).astype("int32")}
    student, teacher = model(4), model(8)
    cache = TeacherCache.write(tmp_path / "c", student, teacher, x, batch_size=8)
    got = cache({k: v[::-1] for k, v in x.items()})
    for mine, theirs in zip(got, teacher(x), strict=True):
        np.testing.assert_allclose(mine[::-1], theirs, rtol=1e-5, atol=1e-6)
    distiller = Distiller(student, cache, alpha=1)
    distiller.compile("sgd")
    assert distiller.kinds == ("softmax", "regression")
    assert distiller.fit(x, verbose=0).history["soft_loss"][0] > 0

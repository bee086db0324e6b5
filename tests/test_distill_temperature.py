"""Temperatures: values by hand, what fit tells them, the curriculum's reversed gradient."""

import numpy as np
import pytest

from tests.distill_nets import X, Y, cross_entropy, kl, net, softmax
from tfedge._keras import keras, keras3, tf
from tfedge.distill import (
    ConstantTemperature,
    CosineTemperature,
    CurriculumTemperature,
    Distiller,
    EntropyTemperature,
    GapTemperature,
    LinearTemperature,
    Moment,
    StepTemperature,
)
from tfedge.distill.temperature import get_temperature
from tfedge.errors import InputError


def at(temperature, progress, teacher=None, student=None, kind="softmax", state=None):
    z = tf.zeros([1, 3])
    teacher = z if teacher is None else tf.constant(teacher, tf.float32)
    student = z if student is None else tf.constant(student, tf.float32)
    return np.asarray(temperature(Moment(teacher, student, kind, tf.constant(progress), state)))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (ConstantTemperature(3), [3, 3, 3, 3]),
        (LinearTemperature(6, 2), [6, 5, 4, 2]),
        (LinearTemperature(1, 5), [1, 2, 3, 5]),
        (CosineTemperature(6, 2), [6, 4 + 2 * np.cos(np.pi / 4), 4, 2]),
        (StepTemperature((8, 4, 2), (0.25, 0.75)), [8, 4, 4, 2]),
    ],
)
def test_schedules(temperature, expected):
    got = [at(temperature, p) for p in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_entropy_gives_sure_samples_the_high_temperature():
    logits = np.array([[50.0, 0, 0], [0, 0, 0], [1.0, 0, -1]])
    p = softmax(logits[2])
    middle = -(p * np.log(p)).sum() / np.log(3)
    got = at(EntropyTemperature(1, 5), 0.0, logits)
    np.testing.assert_allclose(got[:, 0], [5, 1, 5 - 4 * middle], rtol=1e-5)
    got = at(EntropyTemperature(1, 5), 0.0, [[50.0, 0.0]], kind="sigmoid")
    np.testing.assert_allclose(got, [[5, 1]], rtol=1e-5)


def test_gap_lowers_the_temperature_of_far_samples():
    teacher, student = [[1.0, -1, 0], [1.0, -1, 0]], [[2.0, -2, 0], [-1.0, 1, 0]]
    got = at(GapTemperature(3, 1.5), 0.0, teacher, student)  # gaps 0 and 2, their mean 1
    np.testing.assert_allclose(got[:, 0], [4.5, 1.5], rtol=1e-5)
    assert at(GapTemperature(3, 5), 0.0, teacher, student).min() == 1.0


def test_curriculum_climbs_the_loss():
    temperature = CurriculumTemperature(start=4, low=1, high=21, warmup=0.5)
    state = temperature.build("tf_keras")
    assert at(temperature, 0.0, state=state) == pytest.approx(4.0, rel=1e-5)
    slopes = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        with tf.GradientTape() as tape:
            now = Moment(
                tf.zeros([1, 3]), tf.zeros([1, 3]), "softmax", tf.constant(progress), state
            )
            value = temperature(now)
        slopes.append(float(tape.gradient(value, state.theta)))
    share = 3 / 20
    full = -20 * share * (1 - share)
    np.testing.assert_allclose(slopes, [0, full / 2, full, full], rtol=1e-5, atol=1e-6)


def test_learnt_temperature_moves_against_the_student():
    rate = 0.05
    student, teacher = net(keras, seed=1), net(keras, 16, seed=2)
    distiller = Distiller(student, teacher, CurriculumTemperature(warmup=1e-6), alpha=1.0)
    distiller.compile(keras.optimizers.SGD(rate))
    state = distiller.core.extras[0]

    def soft():
        taught, learned = distiller.core.teach(X), distiller.core.learn(X)
        return float(distiller.core.losses(taught, learned, None, None, 1.0).soft)

    before = float(state.theta)
    up, down = [], []
    for shift, out in ((1e-2, up), (-1e-2, down)):
        state.theta.assign(before + shift)
        out.append(soft())
    state.theta.assign(before)
    distiller.fit(X, batch_size=32, epochs=1, verbose=0)
    moved = float(state.theta) - before
    assert moved * (up[0] - down[0]) > 0


@pytest.mark.parametrize("lib", [keras, keras3], ids=["tf_keras", "keras3"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_fit_moves_a_schedule_step_by_step_and_logs_it(lib, chunk):
    lib = lib() if lib is keras3 else lib
    distiller = Distiller(net(lib), net(lib, 16, seed=3), LinearTemperature(9, 1))
    distiller.compile(lib.optimizers.SGD(0.0), cross_entropy(lib), steps_per_execution=chunk)
    history = distiller.fit(X, Y, batch_size=16, epochs=2, verbose=0).history
    # 8 steps in all: T = 9 - n at step n.
    np.testing.assert_allclose(history["temperature"], [7.5, 3.5], rtol=1e-5)
    again = distiller.fit(X, Y, batch_size=16, epochs=2, initial_epoch=1, verbose=0).history
    np.testing.assert_allclose(again["temperature"], [3.5], rtol=1e-5)


def test_soft_loss_follows_the_temperature_by_sample():
    student, teacher = net(keras, seed=1), net(keras, 16, seed=2)
    student.layers[-1].set_weights([8 * w for w in student.layers[-1].get_weights()])
    teacher.layers[-1].set_weights([8 * w for w in teacher.layers[-1].get_weights()])
    s, t = student(X, training=True).numpy(), teacher(X).numpy()
    p = softmax(t)
    heat = 4 - 3 * (-(p * np.log(p)).sum(-1) / np.log(3))
    distiller = Distiller(student, teacher, "entropy")
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy(keras))
    history = distiller.fit(X, Y, batch_size=64, verbose=0).history
    np.testing.assert_allclose(history["temperature"], heat.mean(), rtol=1e-4)
    np.testing.assert_allclose(history["soft_loss"], kl(t, s, heat[:, None]).mean(), rtol=1e-3)


def test_wrong_temperatures():
    for bad, text in (
        ("cosin", "Did you mean 'cosine'"),
        ({"name": "cosine", "strat": 3}, "Did you mean 'start'"),
        (True, "positive number"),
        (None, "positive number"),
        ({"name": "linear", "start": "hot"}, "start of LinearTemperature"),
    ):
        with pytest.raises(InputError, match=text):
            get_temperature(bad)
    with pytest.raises(InputError, match="one more value"):
        StepTemperature((1, 2), (0.2, 0.4))
    with pytest.raises(InputError, match="ascend"):
        StepTemperature((1, 2, 3), (0.5, 0.2))


def test_a_schedule_needs_a_known_length():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda *_: True)
    distiller = Distiller(net(keras), net(keras, 16), "cosine")
    distiller.compile("sgd", cross_entropy(keras))
    with pytest.raises(InputError, match="how many steps"):
        distiller.fit(data, verbose=0)
    numbers = keras.Sequential([keras.layers.Dense(1, input_shape=(3,))])
    twin = keras.models.clone_model(numbers)
    with pytest.raises(InputError, match="Regression knows no temperature"):
        Distiller(numbers, twin, "cosine").compile("sgd", "mse")

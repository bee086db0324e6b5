"""What every loss, temperature and feature of distillation must do; new ones come in by themselves.

Finite, float32, one value a sample, zero where teacher and student agree, and gradients that reach
the student alone.
"""

import dataclasses

import numpy as np
import pytest

from tfedge._keras import tf
from tfedge.distill import (
    FEATURES,
    TEMPERATURES,
    DetectionOutputs,
    Moment,
    YoloHead,
    losses,
)
from tfedge.distill.targets import KINDS, OutputTarget
from tfedge.errors import InputError
from tfedge.heads import Head

RNG = np.random.default_rng(0)


def some(*shape, dtype="float32", scale=2.0):
    return tf.constant(RNG.normal(size=shape) * scale, dtype)


def two(t, s, kind):
    return tf.constant(2.0)


def head(*shape):
    return Head("out", (None, *shape), "linear")


ACTS = ("linear", "linear")
SEPARATE = DetectionOutputs(boxes="b", classes="c", objectness="o").target(
    [Head("b", (None, 5, 4), "linear"), Head("c", (None, 5, 3), "linear"),
     Head("o", (None, 5, 1), "linear")],
    [Head("b", (None, 5, 4), "linear"), Head("c", (None, 5, 3), "linear"),
     Head("o", (None, 5, 1), "linear")],
    [1.0, 1.0, 1.0],
)  # fmt: skip
TARGETS = {
    **{k: (OutputTarget(k, 0, 1.0, ACTS), [(4, 3)]) for k in KINDS},
    **{f"{k} map": (OutputTarget(k, 0, 1.0, ACTS), [(4, 2, 5, 3)]) for k in KINDS},
    "yolo": (YoloHead(3, 2).target(0, 1.0, ACTS, head(4, 4, 16)), [(4, 4, 4, 16)]),
    "yolo boxes": (
        YoloHead(3, objectness=False).target(0, 1.0, ACTS, head(9, 7)), [(4, 9, 7)]
    ),
    "yolo softmax": (
        YoloHead(3, objectness=False, scores="softmax", background=0).target(
            0, 1.0, ACTS, head(9, 7)
        ),
        [(4, 9, 7)],
    ),
    "detection": (SEPARATE, [(4, 5, 4), (4, 5, 3), (4, 5, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_soft_targets(name, dtype):
    target, shapes = TARGETS[name]
    teacher = [some(*s, dtype=dtype) for s in shapes]
    student = [some(*s, dtype=dtype) for s in shapes]
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = target.loss(teacher, student, two)
    assert values.dtype == tf.float32 and values.shape == (4,)
    assert np.isfinite(values).all() and (values.numpy() > 0).all()
    gradients = tape.gradient(values, student)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    assert any(np.abs(g).max() > 0 for g in gradients)
    np.testing.assert_allclose(target.loss(teacher, teacher, two), 0, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in TARGETS if n.split()[0] in KINDS])
@pytest.mark.parametrize("labelled", [True, False])
def test_costs_of_teachers(name, labelled):
    target, shapes = TARGETS[name]
    output = some(*shapes[0])
    labels = None
    if labelled:
        numbers = RNG.integers(0, 2, shapes[0][:-1] if target.name == "softmax" else shapes[0])
        labels = tf.constant(numbers, tf.float32)
    assert target.has_cost(labelled) == (labelled or target.heated)
    if not target.has_cost(labelled):
        return
    cost = target.cost([output], labels)
    assert cost.shape == (4,) and cost.dtype == tf.float32 and (cost.numpy() >= 0).all()
    sure = target.cost([output * 30], None) if target.heated else None
    if sure is not None:
        assert (sure.numpy() < target.cost([output], None).numpy()).all()


def moment(kind, shape=(6, 5), progress=0.3, state=None):
    return Moment(some(*shape), some(*shape), kind, tf.constant(progress), state)


@pytest.mark.parametrize("name", TEMPERATURES)
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 4, 5)])
def test_temperatures(name, kind, shape):
    temperature = TEMPERATURES[name]()
    state = temperature.build("tf_keras")
    for progress in (0.0, 0.5, 1.0):
        now = moment(kind, shape, progress, state)
        with tf.GradientTape() as tape:
            tape.watch([now.student, now.teacher])
            t = tf.cast(temperature(now), tf.float32)
        assert tape.gradient(t, [now.student, now.teacher]) == [None, None]
        assert np.isfinite(t).all() and (t.numpy() > 0).all()
        whole = {(), (*shape[:-1], 1)} | ({shape} if kind == "sigmoid" else set())
        assert tuple(t.shape) in whole
        function = losses.softened_kl if kind == "softmax" else losses.softened_binary_kl
        loss = function(now.teacher, now.student, t)
        assert loss.shape == shape[:1] and np.isfinite(loss).all()


@pytest.mark.parametrize("name", TEMPERATURES)
def test_temperatures_check_their_values(name):
    for field in dataclasses.fields(TEMPERATURES[name]):
        for bad in (-1.0, float("nan"), float("inf")):
            bad = (bad,) if isinstance(field.default, tuple) else bad
            with pytest.raises(InputError):
                TEMPERATURES[name](**{field.name: bad})


SHAPES = [(4, 6, 6, 3), (4, 7, 3), (4, 3, 2, 2, 3), (4, 5)]


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features(name, shape, dtype):
    feature = FEATURES[name]()
    if feature.needs_positions and len(shape) == 2:
        return
    student, teacher = some(*shape, dtype=dtype), some(*shape, dtype=dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = feature.loss(student, teacher)
    assert values.shape == (4,) and values.dtype == tf.float32
    assert np.isfinite(values).all() and float(tf.reduce_mean(values)) > 0
    gradient = tape.gradient(values, student)
    assert gradient is not None and np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    with tf.GradientTape() as tape:
        tape.watch(student)
        same = feature.loss(student, tf.stop_gradient(student))
    np.testing.assert_allclose(same, 0, atol=2e-6)
    np.testing.assert_allclose(tape.gradient(same, student), 0, atol=1e-4)


@pytest.mark.parametrize("name", FEATURES)
def test_features_survive_dead_channels_and_equal_samples(name):
    for x in (tf.zeros([4, 3, 3, 2]), tf.ones([4, 3, 3, 2]), tf.zeros([1, 3, 3, 2])):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = FEATURES[name]().loss(x, some(*x.shape))
        assert np.isfinite(values).all() and np.isfinite(tape.gradient(values, x)).all()


@pytest.mark.parametrize("name", FEATURES)
def test_features_check_their_values(name):
    cls = FEATURES[name]
    for bad in ({"weight": 0}, {"weight": float("nan")}, {"layers": "all"}, {"layers": []}):
        with pytest.raises(InputError):
            cls(**bad)

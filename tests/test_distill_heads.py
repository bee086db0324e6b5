"""Heads: numbers by Huber's loss, several labels, and detectors."""

import numpy as np
import pytest

from tfedge._keras import keras, keras3, tf
from tfedge.distill import DetectionOutputs, Distiller, YoloHead
from tfedge.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 8, 8, 3)).astype("float32")


def dense(units, activation=None, seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    h = keras.layers.Flatten()(image)
    out = keras.layers.Dense(units, activation, kernel_initializer="glorot_normal", name="out")(h)
    return keras.Model(image, out)


def soft(student, teacher, loss=None, y=None, **options):
    alpha = 1.0 if loss is None else 0.7
    distiller = Distiller(student, teacher, alpha=alpha, **options)
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    history = distiller.fit(X, y, batch_size=32, verbose=0).history
    return history["soft_loss"][0], distiller.kinds


def test_numbers_by_huber():
    student, teacher = dense(3, seed=1), dense(3, seed=2)
    d = np.abs(teacher(X).numpy() - student(X).numpy())
    assert (d > 0.5).any() and (d < 0.5).any()
    expected = np.where(d <= 0.5, d**2 / 2, 0.5 * d - 0.125).mean()
    y = np.zeros((32, 3), "float32")
    got, kinds = soft(student, teacher, keras.losses.Huber(0.5), y)
    assert kinds == ("huber",) and got == pytest.approx(expected, rel=1e-4)
    got, kinds = soft(student, teacher, kind="huber")
    expected = np.where(d <= 1, d**2 / 2, d - 0.5).mean()
    assert got == pytest.approx(expected, rel=1e-4)
    got, kinds = soft(student, teacher, "mse", y)
    assert kinds == ("regression",) and got == pytest.approx((d**2).mean(), rel=1e-4)


def test_several_labels():
    student, teacher = dense(4, "sigmoid", seed=1), dense(4, seed=2)
    z = teacher(X).numpy()
    p, q = (1 / (1 + np.exp(-v / 2)) for v in (z, np.log(student(X) / (1 - student(X)))))
    expected = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    y = (RNG.random((32, 4)) > 0.5).astype("float32")
    got, kinds = soft(student, teacher, "binary_crossentropy", y)
    assert kinds == ("sigmoid",) and got == pytest.approx(expected, rel=1e-3)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def binary_kl(t, s, heat=2.0):
    p, q = sigmoid(t / heat), sigmoid(s / heat)
    return heat**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


def by_hand(teacher, student, anchors, classes):
    """The loss of a YOLO-like output, box by box."""
    t, s = (v.reshape(len(v), -1, 5 + classes) for v in (teacher, student))
    total = 0.0
    for a, b in zip(t, s, strict=True):
        o = sigmoid(a[:, 4])
        part = binary_kl(a[:, 4], b[:, 4]).mean()
        for i in range(len(o)):
            box = ((a[i, :4] - b[i, :4]) ** 2).mean()
            part += o[i] / o.sum() * (binary_kl(a[i, 5:], b[i, 5:]).mean() + 0.5 * box)
        total += part / len(t)
    return total


def yolo(lib, seed, anchors=2, classes=3, shape=None):
    lib.utils.set_random_seed(seed)
    image = lib.Input((8, 8, 3))
    out = lib.layers.Conv2D(anchors * (5 + classes), 4, strides=4, name="head")(image)
    if shape:
        out = lib.layers.Reshape(shape, name="boxes")(out)
    return lib.Model(image, out)


@pytest.mark.parametrize("shape", [None, (2, 2, 2, 8), (8, 8)], ids=str)
def test_yolo_head(shape):
    student, teacher = yolo(keras, 1, shape=shape), yolo(keras, 2, shape=shape)
    expected = by_hand(teacher(X).numpy(), student(X).numpy(), 2, 3)
    got, kinds = soft(student, teacher, kind=YoloHead(classes=3, anchors=2, box=0.5))
    assert kinds == ("detection",) and got == pytest.approx(expected, rel=1e-3)


def test_the_background_does_not_count():
    """Boxes that the teacher sees nothing in have no part in the loss of boxes and classes."""
    teacher = RNG.normal(size=(1, 2, 8)).astype("float32")
    teacher[0, :, 4] = [30.0, -30.0]
    student = teacher.copy()
    student[0, 1, :4] += 5.0
    target = YoloHead(classes=3).target(0, 1.0, ("linear", "linear"), _head((None, 2, 8)))
    heat = lambda *a: 1.0  # noqa: E731
    assert float(target.loss([tf.constant(teacher)], [tf.constant(student)], heat)[0]) < 1e-6
    student[0, 0, :4] += 1.0
    assert float(target.loss([tf.constant(teacher)], [tf.constant(student)], heat)[0]) > 0.5


def _head(shape):
    from tfedge.heads import Head

    return Head("head", shape, "linear")


def separate(seed):
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    h = keras.layers.Conv2D(4, 4, strides=4, activation="relu")(image)
    outs = [
        keras.layers.Conv2D(8, 1, name="where")(h),
        keras.layers.Conv2D(6, 1, activation="sigmoid", name="what")(h),
        keras.layers.Conv2D(2, 1, name="any")(h),
    ]
    return keras.Model(image, outs)


def test_separate_outputs_are_the_raw_head():
    student, teacher = separate(1), separate(2)
    layout = DetectionOutputs("where", "what", "any", per_box=3, box=0.5)

    def joined(model):
        where, what, some = (v.numpy() for v in model(X))
        what = np.log(what / (1 - what))
        parts = [v.reshape(32, 8, -1) for v in (where, some, what)]
        return np.concatenate(parts, -1)

    expected = by_hand(joined(teacher), joined(student), 2, 3)
    got, kinds = soft(student, teacher, kind=layout)
    assert kinds == ("detection",) * 3 and got == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("lib", [keras, keras3], ids=["tf_keras", "keras3"])
def test_a_detector_learns_its_teacher(lib):
    lib = lib() if lib is keras3 else lib
    student, teacher = yolo(lib, 1), yolo(lib, 2)
    head = YoloHead(classes=3, anchors=2)
    distiller = Distiller(student, teacher, "gap", alpha=1, kind=head)
    distiller.compile(lib.optimizers.Adam(1e-2))
    history = distiller.fit(X, batch_size=8, epochs=15, verbose=0).history
    assert history["soft_loss"][-1] < 0.3 * history["soft_loss"][0]
    assert history["temperature"][0] > 1


def test_wrong_layouts():
    student, teacher = yolo(keras, 1), yolo(keras, 2)
    with pytest.raises(InputError, match="needs its layout"):
        Distiller(student, teacher, kind="detection")
    wrong = Distiller(student, teacher, alpha=1, kind=YoloHead(classes=4, anchors=2))
    with pytest.raises(InputError, match="layout does not fit"):
        wrong.compile("sgd")
    for kind, text in (
        (DetectionOutputs("where", "waht"), "Did you mean 'what'"),
        (DetectionOutputs("where", "what", per_box=4), "does not hold whole boxes"),
    ):
        with pytest.raises(InputError, match=text):
            Distiller(separate(1), separate(2), alpha=1, kind=kind).compile("sgd")
    for bad in ({"anchors": 0}, {"classes": 1.5}, {"scores": "sofmax"}, {"box": -1}):
        with pytest.raises(InputError):
            YoloHead(**bad)
    several = Distiller(student, [teacher, yolo(keras, 3)], alpha=1, combine="confidence",
                        kind=YoloHead(3, 2))  # fmt: skip
    with pytest.raises(InputError, match="no confidence"):
        several.compile("sgd")
    numbers = Distiller(dense(1), [dense(1), dense(1)], alpha=1, combine="confidence")
    numbers.compile("sgd")
    with pytest.raises(InputError, match="regression without labels"):
        numbers.fit(X, verbose=0)
    y = X[:, 0, 0, :1]
    assert numbers.fit(X, y, verbose=0).history["soft_loss"][0] >= 0

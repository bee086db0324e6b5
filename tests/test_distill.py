"""Distiller: its losses against formulas written anew, and that it is an ordinary Keras model."""

from __future__ import annotations

import numpy as np
import pytest

from tfedge._keras import keras, tf
from tfedge.distill import Distiller, losses
from tfedge.errors import InputError, ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype("float32")
Y = (X[:, 0] > 0).astype("int64") + (X[:, 1] > 0)
CE = keras.losses.SparseCategoricalCrossentropy


def _net(units=3, activation=None, hidden=8, name=None):
    return keras.Sequential(
        [
            keras.layers.Dense(hidden, activation="tanh", input_shape=(5,), name="a/hidden"),
            keras.layers.Dense(units, activation=activation, name="out"),
        ],
        name=name,
    )


def _softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _kl(t, s, temperature):
    p, q = _softmax(t / temperature), _softmax(s / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_softened_kl(temperature):
    t, s = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 4))
    got = losses.softened_kl(t, s, temperature).numpy()
    np.testing.assert_allclose(got, _kl(t, s, temperature), rtol=1e-4)
    np.testing.assert_allclose(losses.softened_kl(t, t, temperature), 0, atol=1e-6)
    probabilities = losses.to_logits(_softmax(t), "softmax")
    np.testing.assert_allclose(losses.softened_kl(probabilities, s, temperature), got, rtol=1e-3)


def test_binary_is_the_two_class_case():
    t, s = RNG.normal(size=(6, 1)) * 3, RNG.normal(size=(6, 1)) * 3
    got = losses.softened_binary_kl(t, s, 2.0).numpy()
    two = _kl(np.concatenate([t, 0 * t], 1), np.concatenate([s, 0 * s], 1), 2.0)
    np.testing.assert_allclose(got, two, rtol=1e-4)
    logits = losses.to_logits(_sigmoid(t), "sigmoid").numpy()
    np.testing.assert_allclose(logits, t, rtol=1e-3, atol=1e-4)


def test_losses_average_over_positions_and_survive_extremes():
    t, s = RNG.normal(size=(2, 3, 3, 4)), RNG.normal(size=(2, 3, 3, 4))
    got = losses.softened_kl(tf.constant(t), tf.constant(s), 1.0)
    np.testing.assert_allclose(got, _kl(t, s, 1.0).mean((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(
        losses.squared_error(t, s), ((t - s) ** 2).mean((1, 2, 3)), rtol=1e-5
    )
    hard = losses.to_logits(np.array([[1.0, 0.0]]), "softmax")
    assert np.isfinite(losses.softened_kl(hard, hard[:, ::-1], 0.1)).all()
    sure = losses.to_logits(np.array([[1.0], [0.0]], "float32"), "sigmoid")
    assert np.isfinite(losses.softened_binary_kl(sure, -sure, 0.5)).all()


@pytest.mark.parametrize("student_act", [None, "softmax"])
@pytest.mark.parametrize("teacher_act", [None, "softmax"])
def test_logged_losses_follow_the_formula(student_act, teacher_act):
    student, teacher = _net(activation=student_act), _net(activation=teacher_act, hidden=16)
    out, taught = student.predict(X, verbose=0), teacher.predict(X, verbose=0)
    s = np.log(out) if student_act else out
    t = np.log(taught) if teacher_act else taught
    soft = _kl(t, s, 3.0).mean()
    hard = -np.log(_softmax(s)[np.arange(64), Y]).mean()
    distiller = Distiller(student, teacher, temperature=3.0, alpha=0.4)
    distiller.compile(keras.optimizers.SGD(0.0), CE(from_logits=student_act is None), ["accuracy"])
    history = distiller.fit(X, Y, batch_size=24, epochs=1, verbose=0).history
    assert set(history) == {"loss", "hard_loss", "soft_loss", "accuracy"}
    np.testing.assert_allclose(history["soft_loss"][0], soft, rtol=1e-3)
    np.testing.assert_allclose(history["hard_loss"][0], hard, rtol=1e-3)
    np.testing.assert_allclose(history["loss"][0], 0.4 * soft + 0.6 * hard, rtol=1e-3)
    np.testing.assert_allclose(history["accuracy"][0], np.mean(s.argmax(-1) == Y), rtol=1e-5)


def test_gradient_is_that_of_the_formula():
    student, teacher = _net(), _net()
    rate, temperature, alpha = 0.1, 2.0, 0.7
    before = [w.copy() for w in student.get_weights()]
    hidden = np.tanh(X @ before[0] + before[1])
    s, t = hidden @ before[2] + before[3], teacher.predict(X, verbose=0)
    onehot = np.eye(3)[Y]
    # d/ds of T^2 KL is T (q - p); of the cross-entropy softmax(s) - y.
    soft = temperature * (_softmax(s / temperature) - _softmax(t / temperature))
    slope = (alpha * soft + (1 - alpha) * (_softmax(s) - onehot)) / len(X)
    distiller = Distiller(student, teacher, temperature=temperature, alpha=alpha)
    distiller.compile(keras.optimizers.SGD(rate), CE(from_logits=True))
    distiller.fit(X, Y, batch_size=64, epochs=1, verbose=0)
    after = student.get_weights()
    np.testing.assert_allclose(after[2], before[2] - rate * hidden.T @ slope, atol=1e-5)
    np.testing.assert_allclose(after[3], before[3] - rate * slope.sum(0), atol=1e-5)


def test_only_the_student_trains_and_counts():
    student, teacher = _net(), _net(hidden=9)
    teacher_before = teacher.get_weights()
    distiller = Distiller(student, teacher)
    distiller.compile("adam", CE(from_logits=True))
    student_before = student.get_weights()
    distiller.fit(X, Y, epochs=2, verbose=0)
    assert all(map(np.array_equal, teacher.get_weights(), teacher_before))
    assert not np.array_equal(student.get_weights()[0], student_before[0])
    assert [v.ref() for v in distiller.trainable_variables] == [
        v.ref() for v in student.trainable_variables
    ]
    assert teacher.trainable
    assert distiller.student is student


def test_teacher_runs_in_inference_mode():
    noisy = keras.Sequential([keras.layers.Dropout(0.9, input_shape=(5,)), keras.layers.Dense(3)])
    teacher = keras.Sequential([noisy, keras.layers.BatchNormalization()])
    teacher.build((None, 5))
    moving = teacher.layers[-1].moving_mean.numpy()
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    keras.backend.clear_session()
    distiller = Distiller(_net(), teacher, alpha=1)
    distiller.compile(keras.optimizers.SGD(0.0))
    first = distiller.fit(X, epochs=1, verbose=0).history["soft_loss"]
    second = distiller.fit(X, epochs=1, verbose=0).history["soft_loss"]
    np.testing.assert_allclose(first, second, rtol=1e-5)
    np.testing.assert_array_equal(teacher.layers[-1].moving_mean.numpy(), moving)


def test_evaluate_and_predict_are_the_students():
    student, teacher = _net(), _net()
    student.layers[0].kernel_regularizer = keras.regularizers.L2(0.1)
    student = keras.models.clone_model(student)
    distiller = Distiller(student, teacher)
    distiller.compile("adam", CE(from_logits=True), metrics=["accuracy"])
    student.compile("adam", CE(from_logits=True), metrics=["accuracy"])
    mine = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    theirs = student.evaluate(X, Y, verbose=0, return_dict=True)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        np.testing.assert_allclose(value, theirs[key], rtol=1e-5)
    predicted = distiller.predict(X, verbose=0)
    np.testing.assert_allclose(predicted, student.predict(X, verbose=0), rtol=1e-6)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_student_alone_learns_from_the_teacher_without_labels(activation):
    keras.utils.set_random_seed(1)
    teacher = _net(hidden=16)
    student = _net(hidden=16, activation=activation)
    distiller = Distiller(student, teacher, alpha=1.0)
    distiller.compile(keras.optimizers.Adam(2e-2))
    data = tf.data.Dataset.from_tensor_slices(X).batch(16)
    history = distiller.fit(data, epochs=40, verbose=0).history
    assert set(history) == {"loss", "soft_loss"}
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    agree = student.predict(X, verbose=0).argmax(-1) == teacher.predict(X, verbose=0).argmax(-1)
    assert agree.mean() > 0.9
    assert set(distiller.evaluate(data, verbose=0, return_dict=True)) == {"loss"}


def _two_heads(names=("cls", "reg"), bias=0.0):
    a, b = keras.Input((5,), name="in/a"), keras.Input((5,), name="in_b")
    h = keras.layers.Dense(8, activation="tanh")(keras.layers.Concatenate()([a, b]))
    made = {
        "cls": keras.layers.Dense(3, activation="softmax", name=names[0])(h),
        "reg": keras.layers.Dense(
            1, name=names[1], bias_initializer=keras.initializers.Constant(bias)
        )(h),
    }
    return keras.Model([a, b], [made["cls"], made["reg"]])


def test_several_inputs_and_outputs():
    student, teacher = _two_heads(), _two_heads(names=("t1", "t2"), bias=1.0)
    x = {"in/a": X, "in_b": X[::-1].copy()}
    s_cls, s_reg = student.predict(x, verbose=0)
    t_cls, t_reg = teacher.predict(x, verbose=0)
    soft = 2.0 * _kl(np.log(t_cls), np.log(s_cls), 2.0).mean() + 0.5 * ((t_reg - s_reg) ** 2).mean()
    distiller = Distiller(student, teacher, alpha=0.5)
    y = {"cls": Y, "reg": X[:, :1]}
    distiller.compile(
        keras.optimizers.SGD(0.0),
        loss={"cls": CE(), "reg": "mse"},
        loss_weights={"cls": 2.0, "reg": 0.5},
        metrics={"cls": ["accuracy"]},
    )
    assert distiller.kinds == ("softmax", "regression")
    history = distiller.fit(x, y, epochs=1, verbose=0).history
    np.testing.assert_allclose(history["soft_loss"][0], soft, rtol=1e-3)
    assert "cls_accuracy" in history
    hard = 2.0 * -np.log(s_cls[np.arange(64), Y]).mean() + 0.5 * ((X[:, :1] - s_reg) ** 2).mean()
    np.testing.assert_allclose(history["hard_loss"][0], hard, rtol=1e-3)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    np.testing.assert_allclose(
        distiller.fit(data, verbose=0).history["soft_loss"], [soft], rtol=1e-3
    )


@pytest.mark.parametrize("teacher_act", [None, "sigmoid"])
def test_binary_head(teacher_act):
    student, teacher = _net(1, "sigmoid"), _net(1, teacher_act)
    s, t = student.predict(X, verbose=0), teacher.predict(X, verbose=0)
    t = t if teacher_act else _sigmoid(t)
    z = [np.log(p / (1 - p)) for p in (t, s)]
    expected = _kl(*(np.concatenate([v, 0 * v], 1) for v in z), 2.0).mean()
    distiller = Distiller(student, teacher, alpha=0.5)
    distiller.compile(keras.optimizers.SGD(0.0), "binary_crossentropy")
    history = distiller.fit(X, (Y > 0).astype("float32"), epochs=1, verbose=0).history
    np.testing.assert_allclose(history["soft_loss"][0], expected, rtol=1e-3)


def test_sample_weights():
    student, teacher = _net(), _net()
    weight = RNG.random(64).astype("float32")
    s, t = student.predict(X, verbose=0), teacher.predict(X, verbose=0)
    distiller = Distiller(student, teacher)
    distiller.compile(keras.optimizers.SGD(0.0), CE(from_logits=True))
    history = distiller.fit(X, Y, sample_weight=weight, batch_size=64, verbose=0).history
    expected = (_kl(t, s, 2.0) * weight).mean()
    np.testing.assert_allclose(history["soft_loss"][0], expected, rtol=1e-3)


def test_callable_teacher():
    net = _net(activation="softmax", hidden=9)
    student = _net()
    plain = Distiller(student, net, alpha=1.0)
    by_function = Distiller(student, lambda x: net(x, training=False), alpha=1.0)
    values = []
    for distiller in (plain, by_function):
        distiller.compile(keras.optimizers.SGD(0.0))
        values.append(distiller.fit(X, verbose=0).history["soft_loss"][0])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    with pytest.raises(InputError, match="cannot be run"):
        Distiller(student, lambda x: 1 / 0)


def test_keras3_teacher():
    import keras as keras3

    teacher = keras3.Sequential([keras3.Input((5,)), keras3.layers.Dense(3, activation="softmax")])
    student = _net()
    distiller = Distiller(student, teacher, alpha=1.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    t, s = np.log(np.asarray(teacher(X))), student.predict(X, verbose=0)
    got = distiller.fit(X, verbose=0).history["soft_loss"][0]
    np.testing.assert_allclose(got, _kl(t, s, 2.0).mean(), rtol=1e-3)
    assert len(distiller.weights) >= len(student.weights)
    assert not {id(v) for v in distiller.weights} & {id(v) for v in teacher.weights}


def test_steps_per_execution_callbacks_and_saving(tmp_path):
    student = _net()
    distiller = Distiller(student, _net())
    distiller.compile("adam", CE(from_logits=True), ["accuracy"], steps_per_execution=4)
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(self.model.student)

    path = tmp_path / "best.h5"
    kept = keras.callbacks.ModelCheckpoint(str(path), monitor="val_loss", save_best_only=True)
    distiller.fit(
        X, Y, batch_size=8, epochs=2, validation_data=(X, Y), callbacks=[Spy(), kept], verbose=0
    )
    assert seen == [student]
    loaded = keras.models.load_model(path)
    assert loaded.count_params() == student.count_params()
    student.save(tmp_path / "s.keras")
    again = keras.models.load_model(tmp_path / "s.keras")
    np.testing.assert_array_equal(again.get_weights()[0], student.get_weights()[0])


def test_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        student, teacher = _net(), _net()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    distiller = Distiller(student, teacher)
    distiller.compile("adam", CE(from_logits=True))
    assert isinstance(distiller.optimizer, keras.mixed_precision.LossScaleOptimizer)
    history = distiller.fit(X, Y, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] != history[0]


@pytest.mark.parametrize("features", [None, "fitnet"])
def test_quantization_aware_student(features):
    from tests.distill_nets import X as IMAGES
    from tests.distill_nets import Y as LABELS
    from tests.distill_nets import net
    from tfedge import quant

    teacher = net(keras, 16, seed=2)
    student = quant.quantize_aware(net(keras, activation="softmax"), calibration=IMAGES)
    distiller = Distiller(student, teacher, "gap", features=features)
    distiller.compile("adam", "sparse_categorical_crossentropy")
    assert distiller.kinds == ("softmax",)
    if features:
        pairs = [(p.student.plain, p.teacher.plain) for p in distiller.core.bound[0].pairs]
        assert pairs[-1][0] in ("b", "relu") and len(pairs) == 2
    history = distiller.fit(IMAGES, LABELS, batch_size=16, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_bad_temperature(temperature):
    with pytest.raises(InputError, match="temperature must be"):
        Distiller(_net(), _net(), temperature=temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_bad_alpha(alpha):
    with pytest.raises(InputError, match="alpha must lie"):
        Distiller(_net(), _net(), alpha=alpha)


def test_models_that_do_not_fit():
    net = _net()
    with pytest.raises(InputError, match="numbers of classes. Found: 4 and 3"):
        Distiller(net, _net(4))
    with pytest.raises(InputError, match="different numbers of outputs|different inputs"):
        Distiller(net, _two_heads())
    other = keras.Sequential([keras.layers.Dense(3, input_shape=(6,))])
    with pytest.raises(InputError, match="inputs of different shapes"):
        Distiller(net, other)
    flat = keras.Sequential([keras.layers.Dense(6, input_shape=(5,)), keras.layers.Reshape((2, 3))])
    with pytest.raises(InputError, match="outputs of different shapes"):
        Distiller(net, flat)
    with pytest.raises(InputError, match="same model"):
        Distiller(net, net)
    with pytest.raises(InputError, match="no model"):
        Distiller(net, 3)
    with pytest.raises(ModelError, match="tf_keras"):
        Distiller(lambda x: x, net)
    with pytest.raises(ModelError, match="not known"):
        Distiller(keras.Sequential([keras.layers.Dense(3)]), net)


def test_bad_options():
    with pytest.raises(InputError, match="unknown kind"):
        Distiller(_net(), _net(), kind="softmx")
    with pytest.raises(InputError, match="unknown output"):
        Distiller(_net(), _net(), kind={"nope": "softmax"})
    with pytest.raises(InputError, match="teacher_activation"):
        Distiller(_net(), _net(), teacher_activation="relu")
    with pytest.raises(InputError, match="needs a loss on labels"):
        Distiller(_net(), _net()).compile("adam")
    distiller = Distiller(_net(), _net())
    distiller.compile("adam", CE(from_logits=True))
    with pytest.raises(InputError, match="holds no labels"):
        distiller.fit(X, verbose=0)

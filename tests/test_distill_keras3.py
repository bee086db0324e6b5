"""Students of Keras 3 in Keras 3's own fit; both Kerases with pruning, strategies, scaling."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.distill_nets import X, Y, cross_entropy, kl, net
from tfedge import prune
from tfedge._keras import keras, keras3, tf
from tfedge.distill import Distiller, FitNet
from tfedge.errors import InputError, ModelError

K3 = keras3()
BOTH = pytest.mark.parametrize("lib", [keras, K3], ids=["tf_keras", "keras3"])


def test_it_is_a_distiller_and_a_model_of_its_flavour():
    for lib, other in ((keras, K3), (K3, keras)):
        distiller = Distiller(net(lib), net(other, 16))
        assert isinstance(distiller, Distiller) and isinstance(distiller, lib.Model)
        assert not isinstance(distiller, other.Model)


@BOTH
def test_both_kerases_give_the_same_numbers(lib):
    student, teacher = net(lib), net(keras, 16, seed=2)
    start = net(keras, seed=1)
    student.set_weights(start.get_weights())
    distiller = Distiller(student, teacher, alpha=0.4)
    distiller.compile(
        lib.optimizers.SGD(0.1, momentum=0.9), cross_entropy(lib), metrics=["accuracy"]
    )
    s = net(keras, seed=1)(X, training=True).numpy()
    t = teacher(X).numpy()
    history = distiller.fit(X, Y, batch_size=64, epochs=3, shuffle=False, verbose=0).history
    assert set(history) == {"loss", "hard_loss", "soft_loss", "accuracy"}
    np.testing.assert_allclose(history["soft_loss"][0], kl(t, s, 2.0).mean(), rtol=1e-3)
    np.testing.assert_allclose(history["accuracy"][0], (s.argmax(1) == Y).mean(), rtol=1e-5)
    twin = Distiller(start, teacher, alpha=0.4)
    twin.compile(keras.optimizers.SGD(0.1, momentum=0.9), cross_entropy(keras))
    twin.fit(X, Y, batch_size=64, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(student.get_weights(), start.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_evaluate_and_predict_are_the_students():
    student = net(K3, seed=1)
    distiller = Distiller(student, net(K3, 16))
    distiller.compile("adam", cross_entropy(K3), metrics=["accuracy"])
    history = distiller.fit(X, Y, validation_data=(X, Y), verbose=0).history
    mine = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    assert history["val_loss"][0] == pytest.approx(mine["loss"], rel=1e-5)
    student.compile("adam", cross_entropy(K3), metrics=["accuracy"])
    theirs = student.evaluate(X, Y, verbose=0, return_dict=True)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        np.testing.assert_allclose(value, theirs[key], rtol=1e-5)
    np.testing.assert_allclose(distiller.predict(X, verbose=0), student.predict(X, verbose=0))


def test_without_labels_and_several_outputs():
    distiller = Distiller(net(K3), net(K3, 16), alpha=1)
    distiller.compile("adam", cross_entropy(K3), metrics=["accuracy"])
    assert set(distiller.fit(X, verbose=0).history) == {"loss", "soft_loss"}
    assert set(distiller.evaluate(X, verbose=0, return_dict=True)) == {"loss"}
    with pytest.raises(InputError, match="holds no labels"):
        wrong = Distiller(net(K3), net(K3, 16))
        wrong.compile("adam", cross_entropy(K3))
        wrong.fit(X, verbose=0)

    def heads(width):
        image = K3.Input((8, 8, 3))
        h = K3.layers.Dense(width, "relu")(K3.layers.Flatten()(image))
        outs = {"cls": K3.layers.Dense(3, "softmax", name="cls")(h),
                "num": K3.layers.Dense(1, name="num")(h)}  # fmt: skip
        return K3.Model(image, outs)

    student, teacher = heads(4), heads(8)
    both = Distiller(student, teacher)
    both.compile(
        K3.optimizers.SGD(0.0), loss={"cls": "sparse_categorical_crossentropy", "num": "mse"},
        loss_weights={"cls": 2.0, "num": 0.5},
    )  # fmt: skip
    s, t = student.predict(X, verbose=0), teacher.predict(X, verbose=0)
    y = {"cls": Y, "num": X[:, 0, 0, :1]}
    history = both.fit(X, y, batch_size=64, verbose=0).history
    soft = 2 * kl(np.log(t["cls"]), np.log(s["cls"]), 2.0).mean()
    soft += 0.5 * ((s["num"] - t["num"]) ** 2).mean()
    np.testing.assert_allclose(history["soft_loss"][0], soft, rtol=1e-3)


@BOTH
def test_mixed_precision_with_everything(lib):
    policy = lib.mixed_precision.set_global_policy
    policy("mixed_float16")
    try:
        student, teacher = net(lib), net(lib, 16)
    finally:
        policy("float32")
    distiller = Distiller(student, teacher, "curriculum", features=["fitnet", "attention"])
    distiller.compile("adam", cross_entropy(lib))
    assert "LossScale" in type(distiller.optimizer).__name__
    assert all(w.dtype == "float32" for a in distiller.core.extras for w in a.weights)
    before = student.get_weights()[0].copy()
    history = distiller.fit(X, Y, batch_size=16, epochs=2, verbose=0).history
    assert all(np.isfinite(v).all() for v in history.values())
    assert not np.array_equal(student.get_weights()[0], before)


@BOTH
def test_masks_of_pruning_hold_at_every_step_of_a_distillation(lib):
    student = net(lib, 16)
    pruner = prune.PruneChannels(0.5, round_to=1, schedule=prune.Constant(begin=0.0))
    distiller = Distiller(student, "self", "cosine", features=FitNet(weight=0.5))
    distiller.compile(lib.optimizers.SGD(0.05, momentum=0.9), cross_entropy(lib))
    dead, steps = [], []

    class Spy(lib.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = np.abs(np.asarray(student.get_layer("a").kernel)).sum((0, 1, 2))
            steps.append(int((kernel == 0).sum()))
            dead.append(tuple(np.flatnonzero(kernel == 0)))

    distiller.fit(X, Y, batch_size=8, epochs=2, callbacks=[pruner, Spy()], verbose=0)
    assert len(steps) == 16 and set(steps[1:]) == {8} and len(set(dead[1:])) == 1
    small = pruner.strip()
    assert small.get_layer("a").filters == 8 and isinstance(small, lib.Model)
    again = Distiller(small, net(lib, 16), features=FitNet(layers=["relu"], plan=pruner.plan))
    assert not again.core.extras


def test_what_is_no_student():
    with pytest.raises(ModelError, match="must be a tf_keras or Keras 3 model"):
        Distiller(K3.layers.Dense(3), net(K3))
    with pytest.raises(InputError, match="different numbers of classes"):
        image = K3.Input((8, 8, 3))
        four = K3.Model(image, K3.layers.Dense(4)(K3.layers.Flatten()(image)))
        Distiller(net(K3), four)
    assert Distiller(net(K3), lambda x: tf.zeros([len(x), 3])).supports_jit is False


MIRRORED = """
import sys
import numpy as np
from tests.distill_nets import X, Y, cross_entropy, net
from tfedge._keras import library, tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfedge.distill import Distiller, TeacherCache
folder, = sys.argv[1:]
for name in ("tf_keras", "keras3"):
    lib, results = library(name), []
    teacher = net(lib, 16, seed=2)
    cache = TeacherCache.write(f"{folder}/{name}", net(lib), teacher, X)
    two = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    for strategy in (tf.distribute.get_strategy(), two):
        with strategy.scope():
            student, copied = net(lib, seed=1), net(lib, 16, seed=2)
            student.get_layer("norm").trainable = False
            distiller = Distiller(student, copied, "linear", features=["fitnet", "attention"])
            distiller.compile(
                lib.optimizers.SGD(0.1, momentum=0.9), cross_entropy(lib), metrics=["accuracy"])
        for extra in distiller.core.extras:
            extra.set_weights([np.full(w.shape, 0.1, "float32") for w in extra.get_weights()])
        history = distiller.fit(X, Y, batch_size=32, epochs=2, shuffle=False, verbose=0).history
        results.append((history, student.get_weights()))
    assert results[0][0].keys() == results[1][0].keys()
    for key, value in results[0][0].items():
        # FitNet is scaled by its batch, which is half as large on a replica.
        np.testing.assert_allclose(results[1][0][key], value, rtol=2e-2, err_msg=name + key)
    np.testing.assert_allclose(results[1][0]["hard_loss"], results[0][0]["hard_loss"], rtol=1e-3)
    for a, b in zip(results[0][1], results[1][1]):
        np.testing.assert_allclose(a, b, rtol=5e-2, atol=2e-3)
    with two.scope():
        cached = Distiller(net(lib, seed=1), cache, "curriculum")
        cached.compile("sgd", cross_entropy(lib))
    assert np.isfinite(cached.fit(X, Y, batch_size=32, verbose=0).history["soft_loss"]).all()
    print(name, "agrees")
"""


@pytest.mark.slow
def test_two_replicas_learn_what_one_learns(tmp_path):
    root = Path(__file__).resolve().parents[1]
    argv = [sys.executable, "-c", MIRRORED, str(tmp_path)]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["tf_keras", "agrees", "keras3", "agrees"], done.stderr[-2000:]

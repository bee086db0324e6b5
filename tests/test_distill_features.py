"""Feature losses: values by hand, which layers are paired, channel maps, adapters."""

import numpy as np
import pytest

from tests.distill_nets import X, Y, cross_entropy, net
from tfedge import prune
from tfedge._keras import keras, keras3, tf
from tfedge.distill import (
    AttentionTransfer,
    ChannelKL,
    Distiller,
    FitNet,
    RelationalKD,
    SimilarityPreserving,
)
from tfedge.errors import InputError, PlanError

RNG = np.random.default_rng(3)
S, T = (RNG.normal(size=(5, 4, 3, 6)).astype("float32") for _ in range(2))


def mean(feature, s=S, t=T):
    return float(tf.reduce_mean(feature.loss(tf.constant(s), tf.constant(t))))


def rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_fitnet():
    np.testing.assert_allclose(mean(FitNet()), ((S - T) ** 2).mean() / (T**2).mean(), rtol=1e-5)


def test_attention():
    a, b = (rows((x**2).sum(-1).reshape(5, -1)) for x in (S, T))
    np.testing.assert_allclose(mean(AttentionTransfer()), ((a - b) ** 2).sum(1).mean(), rtol=1e-5)


def test_similarity():
    a, b = (rows(x.reshape(5, -1) @ x.reshape(5, -1).T) for x in (S, T))
    expected = ((a - b) ** 2).sum() / 25
    np.testing.assert_allclose(mean(SimilarityPreserving()), expected, rtol=1e-4)
    np.testing.assert_allclose(
        mean(SimilarityPreserving(), S, np.tile(S, (1, 1, 1, 2))), 0, atol=1e-9
    )


def huber(d):
    return np.where(np.abs(d) <= 1, d**2 / 2, np.abs(d) - 0.5)


def test_relational():
    distances, angles = [], []
    for x in (S, T):
        e = x.mean((1, 2))
        d = np.linalg.norm(e[:, None] - e[None], axis=-1)
        distances.append(d / d[d > 0].mean())
        table = np.zeros((5, 5, 5))
        for j in range(5):
            for i in range(5):
                for k in range(5):
                    if i != j and k != j:
                        u, v = e[i] - e[j], e[k] - e[j]
                        table[j, i, k] = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
        angles.append(table)
    d, a = huber(distances[0] - distances[1]).mean(), huber(angles[0] - angles[1]).mean()
    np.testing.assert_allclose(mean(RelationalKD(angle=0)), d, rtol=1e-4)
    np.testing.assert_allclose(mean(RelationalKD(angle=3)), d + 3 * a, rtol=1e-4)
    # Turned, moved and scaled points lie to each other as before.
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0].astype("float32")
    np.testing.assert_allclose(mean(RelationalKD(), S, 3 * S @ turn + 1), 0, atol=1e-5)


def test_channel_kl():
    def shares(x):
        z = x.reshape(5, 12, 6) / 2.5
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = shares(T), shares(S)
    expected = 2.5**2 * (p * np.log(p / q)).sum(1).mean()
    np.testing.assert_allclose(mean(ChannelKL(temperature=2.5)), expected, rtol=1e-4)


def pairs(distiller, number=0):
    return [(p.student.name, p.teacher.name) for p in distiller.core.bound[number].pairs]


def test_automatic_pairs():
    twin = Distiller(net(keras), net(keras, 16), features=["fitnet", "similarity"])
    assert pairs(twin) == [("relu", "relu"), ("b", "b")]
    assert pairs(twin, 1) == [("pool", "pool")]
    other = Distiller(net(keras), net(keras, 16, prefix="t_"), features=["fitnet", "relational"])
    assert pairs(other) == [("relu", "t_relu"), ("b", "t_b")]
    assert pairs(other, 1) == [("pool", "t_pool")]
    flat = [
        keras.Sequential(
            [keras.layers.Dense(w, "relu", input_shape=(5,), name="hidden"), keras.layers.Dense(3)]
        )
        for w in (4, 8)
    ]
    assert pairs(Distiller(*flat, features="fitnet")) == [("hidden", "hidden")]
    with pytest.raises(InputError, match="finds no layers of one spatial size"):
        Distiller(*flat, features="attention")
    with pytest.raises(InputError, match="compares positions"):
        Distiller(*flat, features=AttentionTransfer(layers=["hidden"]))


def test_sizes_that_are_free_are_paired_by_name():
    def free(width, name):
        image = keras.Input((None, None, 3))
        h = keras.layers.Conv2D(width, 3, name=name)(image)
        return keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalMaxPooling2D()(h)))

    assert pairs(Distiller(free(4, "c"), free(8, "c"), features="attention")) == [("c", "c")]
    with pytest.raises(InputError, match="Name the layers"):
        Distiller(free(4, "c"), free(8, "d"), features="attention")


def test_an_adapter_only_where_channels_do_not_correspond():
    same = Distiller(net(keras, seed=1), net(keras, seed=2), features="fitnet")
    assert not same.core.extras
    wide = Distiller(net(keras), net(keras, 16), features=[FitNet(), AttentionTransfer()])
    assert [v.shape for a in wide.core.extras for v in a.weights] == [(8, 16), (8, 16)]
    renamed = Distiller(net(keras, prefix="s_"), net(keras), features="fitnet")
    assert len(renamed.core.extras) == 2


@pytest.mark.parametrize("lib", [keras, keras3], ids=["tf_keras", "keras3"])
def test_adapters_train_and_are_no_part_of_the_student(lib, tmp_path):
    lib = lib() if lib is keras3 else lib
    student = net(lib)
    distiller = Distiller(
        student, net(lib, 16, seed=5), features=[FitNet(weight=3.0), "similarity"]
    )
    distiller.compile(lib.optimizers.Adam(1e-2), cross_entropy(lib))
    before = [np.asarray(v) for a in distiller.core.extras for v in a.weights]
    kept = lib.callbacks.ModelCheckpoint(str(tmp_path / "kept.keras"))
    history = distiller.fit(X, Y, batch_size=16, epochs=6, callbacks=[kept], verbose=0).history
    assert history["feature_loss"][-1] < 0.9 * history["feature_loss"][0]
    np.testing.assert_allclose(
        history["loss"][0],
        0.7 * history["soft_loss"][0] + 0.3 * history["hard_loss"][0] + history["feature_loss"][0]
        + float(sum(student.losses)),
        rtol=2e-2,
    )  # fmt: skip
    after = [np.asarray(v) for a in distiller.core.extras for v in a.weights]
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(distiller.trainable_variables) == len(student.trainable_variables) + 2
    loaded = lib.models.load_model(tmp_path / "kept.keras")
    assert [w.shape for w in loaded.get_weights()] == [w.shape for w in student.get_weights()]
    distiller.save_weights(str(tmp_path / "w.weights.h5"))
    twin = net(lib, seed=9)
    twin.load_weights(str(tmp_path / "w.weights.h5"))
    np.testing.assert_array_equal(twin.get_weights()[0], student.get_weights()[0])
    assert "call" not in vars(student.get_layer("relu"))


def test_the_teachers_maps_are_its_own():
    student, teacher = net(keras, seed=1), net(keras, seed=2)
    distiller = Distiller(student, teacher, features=FitNet(layers=["relu", "b"]))
    probes = [keras.Model(m.inputs, [m.get_layer(n).output for n in ("relu", "b")])
              for m in (student, teacher)]  # fmt: skip
    mine, theirs = probes[0](X, training=True), probes[1](X, training=False)
    expected = np.mean(
        [((a - b) ** 2).numpy().mean() / (b**2).numpy().mean()
         for a, b in zip(mine, theirs, strict=True)]
    )  # fmt: skip
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy(keras))
    got = distiller.fit(X, Y, batch_size=64, verbose=0).history["feature_loss"][0]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_layers_inside_a_frozen_nested_model():
    def wrap(base):
        image = keras.Input((8, 8, 3))
        h = keras.layers.Dense(3, name="head")(base(image, training=False))
        return keras.Model(image, h)

    student, teacher = wrap(net(keras)), wrap(net(keras, 16))
    frozen = student.layers[1].get_layer("norm")
    before = [np.array(w) for w in frozen.get_weights()[2:]]
    distiller = Distiller(student, teacher, features=["fitnet"])
    assert ("relu", "relu") in pairs(distiller)
    distiller.compile("adam", cross_entropy(keras))
    assert distiller.fit(X, Y, verbose=0).history["feature_loss"][0] > 0
    for a, b in zip(before, frozen.get_weights()[2:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lib", [keras, keras3], ids=["tf_keras", "keras3"])
def test_surviving_channels_from_a_plan(lib):
    lib = lib() if lib is keras3 else lib
    teacher = net(lib, 16, seed=4)
    done = prune.shrink(teacher, 0.5, round_to=1)
    names = ["norm", "relu", "b"]
    feature = FitNet(layers=names, plan=done.plan)
    distiller = Distiller(done.model, teacher, features=[feature, ChannelKL(plan=done.plan)])
    assert not distiller.core.extras
    cuts = done.plan.cuts()
    for pair in distiller.core.bound[0].pairs:
        group = "b" if pair.student.name == "b" else "a"
        assert list(pair.keep) == sorted(set(range(16)) - set(cuts[group].tolist()))
    # What stands before the first mixing of channels survives the cut as it is.
    keep = distiller.core.bound[0].pairs[0].keep
    for name in ("norm", "relu"):
        mine, theirs = (
            np.asarray(lib.Model(m.inputs, m.get_layer(name).output)(X))
            for m in (done.model, teacher)
        )
        np.testing.assert_allclose(mine, theirs[..., keep], rtol=1e-4, atol=1e-5)


def test_plans_that_follow_each_other():
    teacher = net(keras, 16, seed=4)
    one = prune.shrink(teacher, 0.5, round_to=1)
    two = prune.shrink(one.model, 0.5, round_to=1)
    feature = FitNet(layers=["relu"], plan=[one.plan, two.plan])
    distiller = Distiller(two.model, teacher, features=feature)
    (pair,) = distiller.core.bound[0].pairs
    first = np.delete(np.arange(16), one.plan.cuts()["a"])
    np.testing.assert_array_equal(pair.keep, np.delete(first, two.plan.cuts()["a"]))
    with pytest.raises(InputError, match="does not have the channels"):
        Distiller(two.model, teacher, features=FitNet(layers=["relu"], plan=one.plan))
    with pytest.raises(PlanError, match="another model"):
        Distiller(two.model, teacher, features=FitNet(layers=["relu"], plan=two.plan))
    with pytest.raises(InputError, match="no pruning plan"):
        Distiller(two.model, teacher, features=FitNet(layers=["relu"], plan="plan.json"))


def test_wrong_layers_and_features():
    student, teacher = net(keras), net(keras, 16)
    for features, text in (
        (FitNet(layers=["rel"]), "student has no layer 'rel'. Did you mean 'relu'"),
        (FitNet(layers={"relu": "reloo"}), "teacher has no layer 'reloo'. Did you mean 'relu'"),
        (FitNet(layers={"relu": "b"}), "one spatial size"),
        ("fitnett", "Did you mean 'fitnet'"),
        ({"name": "fitnet", "wait": 2}, "Did you mean 'weight'"),
        (3, "no feature loss"),
    ):
        with pytest.raises(InputError, match=text):
            Distiller(student, teacher, features=features)
    for other in (lambda x: teacher(x), [teacher, net(keras, 4)]):
        with pytest.raises(InputError, match="whose layers can be seen"):
            Distiller(student, other, features="fitnet")
    shared = keras.layers.Dense(4, name="twice")
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2, name="out")(shared(shared(image))))
    twin = keras.models.clone_model(model)
    with pytest.raises(InputError, match="called several times"):
        Distiller(model, twin, features=FitNet(layers=["twice"]))

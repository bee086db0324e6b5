"""Importances, scopes, budgets, floors; the group lasso; removing residual blocks."""

import numpy as np
import pytest

import tfedge
from tests.test_prune import Watch, data_for, wide
from tests.zoo import build, inputs_for, randomize
from tfedge._keras import keras, keras3, tf
from tfedge.errors import InputError, ModelError, PlanError
from tfedge.graph import analyse, trace
from tfedge.profile import profile
from tfedge.prune import (
    Activation,
    Iterative,
    PruneChannels,
    PruningPlan,
    Taylor,
    block_influence,
    remove_blocks,
    residual_blocks,
    shrink,
)
from tfedge.prune.importance import fpgm, l2, lamp
from tfedge.prune.selection import model_weights

L = keras.layers


def group_of(model, name):
    analysis = analyse(model)
    return next(g for g in analysis.groups if g.name == name), model_weights(analysis)


def test_fpgm_is_the_sum_of_distances():
    model = wide()
    group, weights = group_of(model, "mid")
    filters = model.get_layer("mid").kernel.numpy().reshape(-1, 20).T
    want = [sum(np.linalg.norm(a - b) for b in filters) for a in filters]
    np.testing.assert_allclose(fpgm(group, weights), want / np.mean(want), rtol=1e-4)


def test_fpgm_drops_the_double_not_the_small_filter():
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), L.Conv2D(6, 1, name="c"), L.Flatten(), L.Dense(2)]
    )
    kernel = np.eye(2, 6, dtype="float32")[None, None] * 5
    kernel[..., 2] = kernel[..., 3] = kernel[..., 4] = [[[1, 1]]]  # three alike, near the middle
    kernel[..., 5] = [[[-0.1, -0.1]]]
    model.get_layer("c").kernel.assign(kernel)
    kept = shrink(model, 0.5, importance="fpgm", round_to=1).model.get_layer("c").kernel.numpy()
    assert {5.0} <= set(kept.max(axis=(0, 1, 2)).tolist())


def test_lamp_keeps_the_order_of_l2_and_ends_at_one():
    group, weights = group_of(wide(), "mid")
    scores = lamp(group, weights)
    assert (np.argsort(scores) == np.argsort(l2(group, weights))).all()
    assert scores.max() == pytest.approx(1.0)


def test_taylor_is_activation_times_gradient():
    """Against the same thing computed from the activation, not from the weights."""
    keras.backend.clear_session()
    i = keras.Input((6, 6, 2))
    h = L.Conv2D(5, 3, activation="relu", name="c")(i)
    model = randomize(keras.Model(i, L.Conv2D(3, 1)(h)))
    x, y = inputs_for(model, 4), np.zeros((4, 4, 4, 3), "float32")
    probe, rest = keras.Model(i, h), model.layers[-1]
    with tf.GradientTape() as tape:
        a = probe(x)
        tape.watch(a)
        loss = tf.reduce_mean(tf.square(rest(a) - y))
    want = np.abs(np.sum(a * tape.gradient(loss, a), axis=(0, 1, 2)))
    taylor = Taylor((x, y), loss="mse", batch_size=4)
    np.testing.assert_allclose(taylor.measure(model, analyse(model))["c"], want, rtol=1e-4)


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_measured_importances_find_the_channels_that_matter(library):
    lib = keras if library == "tf_keras" else keras3()
    i = lib.Input((8,), name="x")
    h = lib.layers.Dense(8, "relu", name="h", kernel_initializer="ones")(i)
    h = lib.layers.BatchNormalization(name="bn")(h)
    model = lib.Model(i, lib.layers.Dense(1, name="out")(h))
    weights = np.zeros((8, 1), "float32")
    weights[[2, 5, 6]] = 1.0  # only these are read
    model.get_layer("out").set_weights([weights, np.zeros(1)])
    bias = np.zeros(8, "float32")
    bias[[0, 3]] = -100.0  # these never fire
    model.get_layer("h").set_weights([np.ones((8, 8), "float32") / 8, bias])
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 8), np.float32), rng.random((64, 1), np.float32)
    model.compile("sgd", "mse")
    for taylor in (Taylor((x, y)), Taylor([(x, y)], loss="mse")):
        plan = shrink(model, 0.6, importance=taylor, round_to=1).plan
        assert not {2, 5, 6} & set(plan.groups[0].cut)
    for statistic in ("magnitude", "nonzero", "variance"):
        importance = Activation({"x": x}, statistic)
        plan = shrink(model, 0.25, importance=importance, round_to=1).plan
        assert plan.groups[0].cut == (0, 3), statistic
        assert plan.settings["importance"] == "Activation"


def test_measured_importance_in_fit_and_over_the_zoo():
    model = wide()
    model.compile("sgd", "mse")
    x, y = data_for(model, 32)
    pruner = PruneChannels(0.5, Taylor((x, y), batches=2), "one_shot", round_to=1)
    model.fit(x, y, verbose=0, callbacks=[pruner])
    assert pruner.strip().get_layer("mid").filters == 10
    for name in ("attention", "recurrent", "multi_io", "tensorflow_ops", "concat"):
        model = build(name)
        x = inputs_for(model, 4)
        y = tf.nest.map_structure(lambda t: np.zeros(t.shape, "float32"), model(x))
        assert shrink(model, 0.5, Taylor([(x, y)], loss="mse"), 1).report.params
        assert shrink(model, 0.5, Activation([(x,)]), 1).report.params


def test_measured_importances_explain_what_they_need():
    model = wide()
    x, y = data_for(model, 8)
    with pytest.raises(InputError, match=r"Taylor\(data\)"):
        shrink(model, importance="taylor")
    with pytest.raises(InputError, match="not compiled"):
        shrink(model, importance=Taylor((x, y)))
    with pytest.raises(InputError, match="needs labels"):
        shrink(model, importance=Taylor(x, loss="mse"))
    with pytest.raises(InputError, match="no batch"):
        shrink(model, importance=Activation(iter(())))
    with pytest.raises(InputError, match="magnitude"):
        Activation(x, "mean")
    with pytest.raises(InputError, match="1 inputs"):
        shrink(model, importance=Activation([([x, x],)]))
    with pytest.raises(PlanError, match="no proper scores"):
        shrink(model, importance=lambda g, w: np.full(g.channels, np.nan))


def two_widths():
    """One convolution whose channels hardly matter, one whose channels do."""
    keras.backend.clear_session()
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(32, 3, padding="same", name="weak")(i)
    x = L.Conv2D(32, 3, padding="same", name="strong")(x)
    model = randomize(keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(x))))
    scale = np.linspace(0.01, 0.1, 32, dtype="float32")
    kernel = model.get_layer("weak").kernel
    kernel.assign(kernel * scale)
    return model


def by_sum(group, weights):
    piece = next(s for s in group.slices if s.role == "out")
    return np.abs(weights[piece.layer, piece.weight]).sum((0, 1, 2))


def test_global_scope_lets_groups_compete():
    done = shrink(two_widths(), 0.4, by_sum, 1, scope="global")
    kept = [done.model.get_layer(n).filters for n in ("weak", "strong")]
    assert kept == [6, 32]
    assert sum(len(g.cut) for g in done.plan.groups) == 26  # 40 % of 64, to the nearest
    floored = shrink(two_widths(), 0.4, by_sum, 1, scope="global", floor=0.5)
    assert floored.model.get_layer("weak").filters == 16
    least = shrink(two_widths(), 0.48, by_sum, 1, scope="global")
    assert least.model.get_layer("weak").filters == 4, "a tenth stays where floor says nothing"


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("round_to", [1, 4])
@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_budgets_are_met_within_two_percent(scope, round_to, target):
    model = two_widths()
    full = profile(model)
    for what, have in (("macs", full.macs), ("params", full.params), ("bytes", full.params * 4)):
        done = shrink(model, None, "l2", round_to, scope=scope, **{f"target_{what}": target})
        left = {"macs": done.report.macs[1]}.get(what, done.report.params[1])
        left *= 4 if what == "bytes" else 1
        assert left / have == pytest.approx(target, abs=0.02 if round_to == 1 else 0.03)
        absolute = {f"target_{what}": int(have * target)}
        again = shrink(model, None, "l2", round_to, scope=scope, **absolute)
        assert again.plan.cuts().keys() == done.plan.cuts().keys()


def test_budgets_out_of_reach_or_met_already():
    with pytest.raises(PlanError, match="cannot be met"):
        shrink(two_widths(), target_macs=0.3, floor=0.9)
    with pytest.raises(InputError, match="exactly one of"):
        shrink(two_widths(), 0.3, target_macs=0.5)
    with pytest.raises(PlanError, match="already"):
        shrink(two_widths(), target_params=10**9)
    for bad in (0, 1, -3, 1.5, "half"):
        with pytest.raises(InputError, match="target_bytes must"):
            shrink(two_widths(), target_bytes=bad)
    with pytest.raises(InputError, match="global"):
        shrink(two_widths(), scope="globl")
    with pytest.raises(InputError, match="floor"):
        shrink(two_widths(), floor=1.0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "legacy"])
@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_group_lasso_draws_doomed_channels_to_zero(optimizer, library):
    if library == "keras":
        if optimizer == "legacy":
            pytest.skip("Keras 3 has no legacy optimizers")
        lib = keras3()
        i = lib.Input((6,))
        model = lib.Model(i, lib.layers.Dense(2)(lib.layers.Dense(16, "relu", name="a")(i)))
    else:
        lib = keras
        model = lib.Sequential([lib.Input((6,)), L.Dense(16, "relu", name="a"), L.Dense(2)])
    rate = lib.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.9)
    model.compile(
        {
            "adam": lambda: lib.optimizers.Adam(rate),
            "sgd": lambda: lib.optimizers.SGD(rate, momentum=0.5),
            "legacy": lambda: keras.optimizers.legacy.Adam(rate),
        }[optimizer](),
        "mse",
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)).astype("float32"), rng.normal(size=(64, 2)).astype("float32")
    pruner = PruneChannels(0.5, schedule=Iterative(1, 0.9, 1.0), round_to=1, group_lasso=1.0)
    norms = []

    class Norms(lib.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = np.asarray(self.model.get_layer("a").kernel)
            norms.append(np.linalg.norm(kernel, axis=0))

    model.fit(x, y, batch_size=8, epochs=6, verbose=0, callbacks=[pruner, Norms()])
    dead = pruner._dead[0]
    before = norms[42]  # the schedule cuts at step 43.2 of 48
    assert dead.sum() == 8
    assert before[dead].max() < 0.5 * norms[0][dead].max()
    assert before[~dead].min() > before[dead].max()


def test_group_lasso_needs_time():
    with pytest.raises(InputError, match="time"):
        PruneChannels(0.5, schedule="one_shot", group_lasso=0.1)
    with pytest.raises(InputError, match="group_lasso"):
        PruneChannels(0.5, group_lasso=-1)


def test_iterative_schedule():
    schedule = Iterative(4, 0.2, 0.8)
    assert [schedule(s, 100) for s in (0, 19, 20, 39, 40, 60, 80, 99)] == [
        0, 0, 0.25, 0.25, 0.5, 0.75, 1, 1,
    ]  # fmt: skip
    for bad in ({"steps": 0}, {"begin": 0.7, "end": 0.7}):
        with pytest.raises(InputError):
            Iterative(**bad)
    model = wide()
    model.compile("adam", "mse")
    x, y = data_for(model, 40)
    pruner = PruneChannels(0.5, schedule="iterative", round_to=1)
    watch = Watch(pruner)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[pruner, watch])
    assert len(set(watch.share)) == 5 and max(watch.worst) == 0.0


def blocks_model(lib):
    i = lib.Input((6, 6, 4), name="image")
    x = lib.layers.Conv2D(8, 3, padding="same", name="stem")(i)
    for n in range(3):
        h = lib.layers.BatchNormalization(name=f"bn{n}")(x)
        h = lib.layers.Conv2D(8, 3, padding="same", activation="relu", name=f"a{n}")(h)
        h = lib.layers.Conv2D(8, 1, name=f"b{n}")(h)
        x = lib.layers.Add(name=f"add{n}")([h, x]) if n else x + h
    s = lib.layers.Conv2D(6, 1, name="side")(x)
    x = lib.layers.Add(name="projected")([s, lib.layers.Conv2D(6, 3, padding="same")(x)])
    return lib.Model(i, lib.layers.Dense(3, name="head")(lib.layers.GlobalMaxPooling2D()(x)))


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_blocks_go_as_if_their_branch_were_zero(library):
    lib = keras if library == "tf_keras" else keras3()
    model = blocks_model(lib)
    found = residual_blocks(model)
    assert [b.layers for b in found] == [(f"bn{n}", f"a{n}", f"b{n}") for n in range(3)]
    assert "a1" in str(found[1])
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    small = remove_blocks(model, [found[0].name, "add2"])
    assert type(small).__module__.split(".")[0] == library
    assert {"a0", "a2", "add2"}.isdisjoint(c.name for c in small.layers)
    for n in (0, 2):  # the reference: the branch of the whole model answers zero
        for w in model.get_layer(f"b{n}").weights:
            w.assign(np.zeros(w.shape))
    np.testing.assert_allclose(np.asarray(small(x)), np.asarray(model(x)), rtol=1e-5, atol=1e-5)
    influence = block_influence(model, x)
    assert influence[found[0].name] == pytest.approx(0, abs=1e-6) and influence["add1"] > 0.01
    fewer = remove_blocks(model, 2, data=x)
    assert {"a0", "a2"}.isdisjoint(layer.name for layer in fewer.layers)


def test_blocks_and_channels_in_one_plan(tmp_path):
    model = blocks_model(keras)
    done = shrink(model, 0.5, round_to=1, blocks=["add1"])
    assert done.plan.blocks == ("add1",) and done.model.get_layer("stem").filters == 4
    done.plan.save(tmp_path / "p.json")
    again = shrink(model, plan=PruningPlan.load(tmp_path / "p.json")).model
    for a, b in zip(again.get_weights(), done.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    half = shrink(model, target_params=0.5, round_to=1, blocks="add1")
    assert half.report.params[1] / model.count_params() == pytest.approx(0.5, rel=0.03)
    with pytest.raises(ModelError, match="add1"):
        shrink(model, 0.5, blocks=["ad1"])
    with pytest.raises(InputError, match="needs data"):
        remove_blocks(model, 1)
    with pytest.raises(InputError, match="3 residual blocks"):
        remove_blocks(model, 4, data=np.zeros((1, 6, 6, 4)))


def test_what_is_no_block():
    i = keras.Input((4, 4, 2))
    x = L.Conv2D(2, 1, name="x")(i)
    seen = L.Conv2D(2, 1, name="seen")(x)
    x = L.Add(name="read_outside")([x, L.Conv2D(2, 1)(seen)])
    x = L.Add(name="other_source")([x, L.Multiply()([L.Conv2D(2, 1)(x), i])])
    x = L.Add(name="doubled")([x, x])
    y = L.Add(name="last")([x, L.Conv2D(2, 1)(x)])
    model = keras.Model(i, [y, seen])
    assert [b.name for b in residual_blocks(model)] == ["last"]
    with pytest.raises(ModelError, match="output of the model"):
        remove_blocks(model, ["last"])
    assert trace(model).calls and tfedge.prune.ResidualBlock

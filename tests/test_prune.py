"""Choosing channels, plans, and pruning during fit."""

import json

import numpy as np
import pytest

import tfedge
from tests.zoo import build, inputs_for, randomize
from tfedge._keras import keras, tf
from tfedge.errors import InputError, ModelError, PlanError
from tfedge.profile import profile
from tfedge.prune import IMPORTANCE, OneShot, PruneChannels, PruningPlan, shrink
from tfedge.prune.schedules import Constant, PolynomialDecay, get_schedule

L = keras.layers


def wide():
    keras.backend.clear_session()
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(i)
    a = x = L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2D(20, 3, padding="same", activation="relu", name="mid")(x)
    x = L.Conv2D(16, 3, padding="same", name="last")(x)
    x = L.Add()([x, a])
    return randomize(keras.Model(i, L.Dense(4, name="head")(L.GlobalAveragePooling2D()(x))))


def data_for(model, n=64):
    x = inputs_for(model, n)
    y = np.random.default_rng(0).normal(size=(n, *model.output_shape[1:])).astype("float32")
    return x, y


def test_sparsity_and_rounding():
    small = shrink(wide(), 0.5, round_to=1).model
    assert [small.get_layer(n).filters for n in ("stem", "mid", "last")] == [8, 10, 8]
    done = shrink(wide(), 0.5)
    assert [done.model.get_layer(n).filters for n in ("stem", "mid")] == [8, 8]
    assert (
        done.report.macs[1] < done.report.macs[0] and done.report.params[1] < done.report.params[0]
    )
    assert any("output of the model" in s for s in done.report.skipped)


def test_a_group_that_rounding_keeps_whole_is_reported():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            L.Conv2D(8, 1, name="small"),
            L.Conv2D(32, 1, name="big"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    done = shrink(model, 0.5)
    assert done.model.get_layer("small").filters == 8
    assert any(s.startswith("small") and "round_to=8" in s for s in done.report.skipped)


@pytest.mark.parametrize("what", ["target_macs", "target_params"])
@pytest.mark.parametrize("target", [0.25, 0.6])
def test_budgets_are_met(what, target):
    model = wide()
    done = shrink(model, round_to=1, **{what: target})
    before, after = done.report.macs if what == "target_macs" else done.report.params
    assert after / before == pytest.approx(target, abs=0.04)
    counted = profile(done.model)
    assert after == (counted.macs if what == "target_macs" else counted.params)


def test_budget_out_of_reach():
    with pytest.raises(PlanError, match="cannot be met"):
        shrink(wide(), target_params=0.01)


def test_skip_and_overrides():
    small = shrink(wide(), 0.5, round_to=1, skip=["stem"], overrides={"mi.*": 0.75}).model
    assert [small.get_layer(n).filters for n in ("stem", "mid", "last")] == [16, 5, 16]
    with pytest.raises(InputError, match="matches no layer.*stem"):
        shrink(wide(), 0.5, skip="stemm")
    with pytest.raises(InputError, match="regex"):
        shrink(wide(), 0.5, skip="(")


@pytest.mark.parametrize("bad", [0, 1, 1.0, -0.1, 2, float("nan")])
def test_bad_sparsity(bad):
    with pytest.raises(InputError, match="between 0 and 1"):
        shrink(wide(), bad)


def test_unknown_words():
    with pytest.raises(InputError, match="'l2'"):
        shrink(wide(), importance="l22")
    with pytest.raises(InputError, match="target_macs"):
        shrink(wide(), target_mac=0.5)
    with pytest.raises(InputError, match="polynomial"):
        PruneChannels(schedule="polynomal")


@pytest.mark.parametrize("name", IMPORTANCE)
def test_importance_prefers_heavy_channels(name):
    model = wide()
    heavy = [1, 4, 7, 9]
    for layer, axis in (("stem", 3), ("last", 3), ("mid", 2), ("head", 0)):
        variable = model.get_layer(layer).kernel
        value = variable.numpy()
        value[(slice(None),) * axis + (heavy,)] *= 50
        variable.assign(value)
    bn = next(layer for layer in model.layers if isinstance(layer, L.BatchNormalization))
    gamma = np.ones(16, "float32")
    gamma[heavy] = 9
    bn.gamma.assign(gamma)
    plan = shrink(model, 0.75, importance=name, round_to=1).plan
    kept = set(range(16)) - set(plan.groups[0].cut)
    assert len(kept) == 4
    if name != "random":
        assert kept == set(heavy)


def test_nan_weights_are_named():
    model = wide()
    model.get_layer("mid").kernel.assign(np.full((3, 3, 16, 20), np.nan))
    with pytest.raises(ModelError, match="mid"):
        shrink(model, 0.5)


def test_plan_is_data(tmp_path):
    model = wide()
    done = shrink(model, 0.5, round_to=1)
    done.plan.save(tmp_path / "p.json")
    assert PruningPlan.load(tmp_path / "p.json") == done.plan
    again = shrink(model, plan=tmp_path / "p.json").model
    for a, b in zip(again.get_weights(), done.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    value = json.loads((tmp_path / "p.json").read_text())
    value["groups"][1]["cut"] = [0, 1]
    (tmp_path / "p.json").write_text(json.dumps(value))
    assert shrink(model, plan=tmp_path / "p.json").model.get_layer("mid").filters == 18


def test_bad_plans(tmp_path):
    plan = shrink(wide(), 0.5, round_to=1).plan
    with pytest.raises(PlanError, match="another model"):
        shrink(build("chain"), plan=plan)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match="not a pruning plan"):
        shrink(wide(), plan=tmp_path / "x.json")
    with pytest.raises(InputError, match="cannot be read"):
        shrink(wide(), plan=tmp_path / "none.json")


def dead_weights(pruner, model):
    """Largest magnitude among the weights of masked channels."""
    worst = 0.0
    for group, dead in zip(pruner._analysis.groups, pruner._dead, strict=True):
        for s in group.slices:
            if s.weight_name.startswith("moving"):
                continue
            value = model.get_layer(s.layer).get_weights()[s.weight]
            picked = np.take(value, s.index[dead[s.channel]], axis=s.axis)
            worst = max(worst, float(np.abs(picked).max(initial=0)))
    return worst


class Watch(keras.callbacks.Callback):
    def __init__(self, pruner):
        super().__init__()
        self.pruner, self.worst, self.share = pruner, [], []

    def on_train_batch_end(self, batch, logs=None):
        self.worst.append(dead_weights(self.pruner, self.model))
        self.share.append(sum(int(d.sum()) for d in self.pruner._dead))


@pytest.mark.parametrize("steps_per_execution", [1, 8])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "legacy", "adamw"])
def test_masks_hold_at_every_step(steps_per_execution, optimizer):
    model = wide()
    made = {
        "adam": lambda: keras.optimizers.Adam(0.01),
        "sgd": lambda: keras.optimizers.SGD(0.001, momentum=0.9),
        "legacy": lambda: keras.optimizers.legacy.Adam(0.01),
        "adamw": lambda: keras.optimizers.AdamW(0.01, use_ema=True),
    }[optimizer]()
    model.compile(made, "mse", steps_per_execution=steps_per_execution)
    x, y = data_for(model, 64)
    model.fit(x, y, batch_size=4, verbose=0)  # momentum, and a traced step without masks
    pruner = PruneChannels(0.5, round_to=1)
    watch = Watch(pruner)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[pruner, watch])
    assert max(watch.worst) == 0.0
    assert watch.share[0] < watch.share[-1] == sum(pruner._goal)
    assert watch.share == sorted(watch.share)
    small = pruner.strip()
    want = model.predict(x, verbose=0)
    scale = np.abs(want).max()
    np.testing.assert_allclose(small.predict(x, verbose=0) / scale, want / scale, atol=1e-5)
    assert all(w.constraint is None for w in model.weights)
    assert pruner.report.macs[1] < pruner.report.macs[0]


def test_masks_hold_inside_one_execution():
    """Without the callback's help: 8 steps in one graph call leave the masked weights at zero."""
    model = wide()
    model.compile(keras.optimizers.Adam(0.05), "mse", steps_per_execution=8)
    x, y = data_for(model, 32)
    pruner = PruneChannels(0.5, schedule=OneShot(), round_to=1)
    pruner.set_model(model)
    pruner.params = {"steps": 8, "epochs": 1}
    pruner.on_train_begin()
    step = model.make_train_function()
    data = iter(tf.data.Dataset.from_tensor_slices((x, y)).batch(4).repeat())
    step(data)
    assert dead_weights(pruner, model) == 0.0 and int(model.optimizer.iterations) == 8


def test_user_constraints_are_kept():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, kernel_constraint=keras.constraints.NonNeg(), name="a"),
            L.Dense(2),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x, y = np.random.default_rng(0).normal(size=(32, 6)), np.zeros((32, 2))
    pruner = PruneChannels(0.5, schedule="one_shot", round_to=1)
    model.fit(x, y, verbose=0, callbacks=[pruner])
    assert (model.get_layer("a").kernel.numpy() >= 0).all()
    assert isinstance(model.get_layer("a").kernel.constraint, keras.constraints.NonNeg)
    assert pruner.strip().get_layer("a").units == 4


def test_fit_twice_and_resume():
    model = wide()
    model.compile("adam", "mse")
    x, y = data_for(model, 32)
    pruner = PruneChannels(0.5, schedule="constant", round_to=1)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[pruner])
    state = pruner.get_state()
    model.fit(x, y, epochs=1, verbose=0, callbacks=[pruner])
    assert pruner.get_state() == state
    other = PruneChannels(0.5, round_to=1)
    other.set_model(model)
    other.set_state(state)
    assert other.get_state() == state
    with pytest.raises(InputError, match="another model"):
        other.set_state({})


def test_strip_needs_a_fit_and_the_schedule_a_length():
    with pytest.raises(InputError, match="strip"):
        PruneChannels(0.5).strip()
    model = build("mlp")
    model.compile("sgd", "mse")
    x, y = data_for(model, 8)
    endless = tf.data.Dataset.from_generator(
        lambda: iter([(x, y)]),
        output_signature=(tf.TensorSpec((None, 7)), tf.TensorSpec((None, 3))),
    )
    with pytest.raises(InputError, match="unknown length"):
        model.fit(endless, verbose=0, callbacks=[PruneChannels(0.5, round_to=1)])
    model.fit(endless, verbose=0, callbacks=[PruneChannels(0.5, schedule="one_shot", round_to=1)])


def test_early_stop_still_gives_the_size_asked_for():
    model = wide()
    model.compile("sgd", "mse")
    x, y = data_for(model, 32)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    pruner = PruneChannels(0.5, schedule=PolynomialDecay(0.5, 1.0), round_to=1)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[pruner, Stop()])
    assert pruner.strip().get_layer("mid").filters == 10


def test_schedules():
    poly = PolynomialDecay(0.2, 0.6)
    assert [poly(s, 100) for s in (0, 20, 60, 99)] == [0, 0, 1, 1] and 0 < poly(30, 100) < 1
    assert [Constant(0.5)(s, 10) for s in (4, 5)] == [0, 1]
    assert get_schedule(lambda s, t: 0.3)(1, 2) == 0.3
    with pytest.raises(InputError):
        PolynomialDecay(0.7, 0.2)
    with pytest.raises(InputError):
        Constant(1.0)


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelError):
        shrink("model.keras", 0.5)


def test_public_words():
    groups = tfedge.prune.channel_groups(build("residual"))
    assert any(g.blocked for g in groups) and not all(g.blocked for g in groups)

"""Cutting is exact: the pruned model equals the one in which the channels do not exist."""

import numpy as np
import pytest

from tests.reference import Reference, difference, random_cuts
from tests.zoo import ZOO, build, inputs_for
from tfedge._keras import keras, library, tf
from tfedge.errors import ModelError, PlanError
from tfedge.graph import RULES, along, analyse, channel_groups, cut, trace
from tfedge.prune import shrink

L = keras.layers


def outputs(model, x):
    return [np.asarray(t) for t in tf.nest.flatten(model(x, training=False))]


@pytest.mark.parametrize("name", ZOO)
def test_cut_equals_the_network_without_those_channels(name):
    model = build(name)
    x = inputs_for(model)
    before = [w.copy() for w in model.get_weights()]
    analysis = analyse(model)
    cuts = random_cuts(analysis, seed=3)
    assert cuts, "the topology has something to cut"
    small = cut(model, cuts, analysis)
    assert small.count_params() < model.count_params()
    want = Reference(analysis, cuts)(x if isinstance(x, list) else [x])
    assert difference(outputs(small, x), want) < 1e-4
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert small.input_names == model.input_names
    assert small.output_names == model.output_names or not isinstance(model.output, dict)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_an_empty_cut_and_a_reload_change_nothing(name, tmp_path):
    model = build(name)
    x = inputs_for(model)
    same = cut(model, {})
    for got, want in zip(outputs(same, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    small = cut(model, random_cuts(analyse(model), seed=5))
    small.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for got, want in zip(outputs(again, x), outputs(small, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "concat", "channel_shuffle", "reshaping"])
def test_the_pruned_model_trains(name):
    model = build(name)
    small = cut(model, random_cuts(analyse(model), seed=7))
    x = inputs_for(model, batch=8)
    y = np.zeros((8, *small.output_shape[1:]), "float32")
    small.compile("sgd", "mse")
    assert np.isfinite(small.fit(x, y, verbose=0).history["loss"][0])


class Doubled(L.Layer):
    def call(self, x):
        return x * 2.0


class PlainConv(L.Conv2D):
    """A subclass that adds nothing to the computation."""


class OtherConv(L.Conv2D):
    def call(self, x):
        return super().call(x) + tf.reduce_sum(x)


def with_layer(layer):
    i = keras.Input((6, 6, 2))
    x = layer(L.Conv2D(8, 1, name="first")(i))
    return keras.Model(i, L.Conv2D(2, 1)(x))


def test_an_unknown_layer_blocks_its_group_until_it_has_a_rule():
    model = with_layer(Doubled(name="twice"))
    group = channel_groups(model)[0]
    assert "twice" in group.blocked and "Doubled" in group.blocked and "RULES" in group.blocked
    with pytest.raises(PlanError, match="twice"):
        cut(model, {"first": [0]})
    RULES[Doubled] = lambda site: site.inputs[0]
    try:
        assert not channel_groups(model)[0].blocked
        assert cut(model, {"first": [0]}).get_layer("first").filters == 7
    finally:
        del RULES[Doubled]


class Gate(L.Layer):
    def call(self, inputs):
        t, a, b = inputs
        return t * a + (1 - t) * b


class MeanNorm(L.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.gamma * x / (1.0 + tf.reduce_mean(tf.abs(x), -1, keepdims=True))


def norm_rule(site):
    channels = site.vector(-1)
    site.bind("gamma", 0, channels)
    site.counts(channels)
    return site.inputs[0]


def test_the_documented_rules_of_layers_cut_exactly():
    i = keras.Input((5,))
    x = Gate()([L.Dense(6, "sigmoid", name="t")(i), L.Dense(6)(i), L.Dense(6)(i)])
    gated = keras.Model(i, L.Dense(2)(x))
    normed = keras.Model(i, L.Dense(2)(MeanNorm()(L.Dense(6, "relu", name="t")(i))))
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    RULES.update({Gate: RULES["Add"], MeanNorm: norm_rule})
    try:
        analysis = analyse(gated)
        cuts = {"t": [0, 3]}
        want = Reference(analysis, cuts)([x])[0]
        assert difference(outputs(cut(gated, cuts, analysis), x)[0], want) < 1e-5
        small = cut(normed, cuts)
    finally:
        del RULES[Gate], RULES[MeanNorm]
    kernels = [np.array(w) for w in normed.get_weights()]
    h = np.maximum(x @ kernels[0] + kernels[1], 0)[:, [1, 2, 4, 5]]
    h = kernels[2][[1, 2, 4, 5]] * h / (1 + np.abs(h).mean(-1, keepdims=True))
    want = h @ kernels[3][[1, 2, 4, 5]] + kernels[4]
    np.testing.assert_allclose(outputs(small, x)[0], want, rtol=1e-4, atol=1e-5)


def test_a_subclass_inherits_the_rule_only_with_the_call():
    assert not channel_groups(with_layer(PlainConv(4, 1)))[0].blocked
    assert channel_groups(with_layer(OtherConv(4, 1)))[0].blocked


def test_a_wrong_rule_is_an_error_that_names_the_layer():
    model = with_layer(Doubled(name="twice"))
    for wrong in (
        lambda s: s.inputs[0].map(lambda labels: labels + 10**6),
        lambda s: along(s.vector(-1)[:4], 3, 4),
        lambda s: s.vector(-1),
        lambda s: [s.inputs[0]] * 2,
        lambda s: s.tie(s.vector(-1), s.vector(-1) + 10**6),
        lambda s: s.block(s.vector(-1) + 10**6, "no"),
        lambda s: s.vector(7),
        lambda s: None,
    ):
        RULES[Doubled] = wrong
        try:
            with pytest.raises(ModelError, match="twice"):
                channel_groups(model)
        finally:
            del RULES[Doubled]


@pytest.mark.parametrize(
    "cuts", [{"nowhere": [0]}, {"conv2d": [8]}, {"conv2d": [-1]}, {"conv2d": list(range(8))}]
)
def test_a_bad_cut_is_refused(cuts):
    with pytest.raises(PlanError):
        cut(build("chain"), cuts)


def test_a_slice_never_runs_empty():
    i = keras.Input((4, 4, 2))
    x = L.Conv2D(8, 1, name="c")(i)
    model = keras.Model(i, [L.Conv2D(2, 1)(x), L.Conv2D(2, 1)(x[:, :, :, 2:4])])
    with pytest.raises(PlanError, match="lose all"):
        cut(model, {"c": [2, 3]})
    model.get_layer("c").kernel.assign(tf.ones((1, 1, 2, 8)) * [9, 9, 0.1, 0.2, 9, 9, 9, 9.0])
    done = shrink(model, 0.75, round_to=1)
    assert (
        not {2, 3} <= set(done.plan.cuts()["c"].tolist()) and done.model.get_layer("c").filters == 2
    )


def test_a_user_activation_and_regularizer_survive():
    def bent(x):
        return tf.nn.relu(x) * 0.5

    i = keras.Input((4, 4, 2))
    x = L.Conv2D(8, 1, activation=bent, kernel_regularizer=keras.regularizers.L2(0.1), name="c")(i)
    model = keras.Model(i, L.Conv2D(2, 1)(x))
    small = cut(model, {"c": [0, 1]})
    assert small.get_layer("c").activation is bent
    assert float(small.get_layer("c").kernel_regularizer.l2) == pytest.approx(0.1)


@pytest.mark.parametrize("flavour", ["tf_keras", "keras3"])
def test_a_regularizer_that_wants_all_channels_keeps_them(flavour):
    lib = library(flavour)

    class Square(lib.regularizers.Regularizer):  # as of the transforms of PointNet
        def __call__(self, x):
            return tf.reduce_sum(tf.reshape(x, (-1, 4, 4)))

    class Any(lib.regularizers.Regularizer):
        def __call__(self, x):
            return tf.reduce_sum(tf.square(x))

    i = lib.Input((5,))
    x = lib.layers.Dense(16, activity_regularizer=Square(), name="square")(i)
    x = lib.layers.Dense(6, activity_regularizer=Any(), name="any")(x)
    groups = {g.name: g.blocked for g in channel_groups(lib.Model(i, lib.layers.Dense(2)(x)))}
    assert groups["square"] == (
        "'square' (Dense) has the activity regularizer 'Square', which wants all its channels"
    )
    assert not groups["any"]


@pytest.mark.parametrize("flavour", ["tf_keras", "keras3"])
def test_initial_values_of_the_old_shape_are_left_out(flavour, tmp_path):
    lib = library(flavour)
    constant = lib.initializers.Constant
    i = lib.Input((5,), dtype="int32")
    x = lib.layers.Embedding(10, 8, embeddings_initializer=constant(np.ones((10, 8))))(i)
    recurrent = lib.layers.LSTM(4, kernel_initializer=constant(np.ones((8, 16)).tolist()))
    x = lib.layers.Bidirectional(recurrent, name="both")(x)
    x = lib.layers.Dense(6, kernel_initializer=lambda shape, dtype=None: np.ones((8, 6)))(x)
    model = lib.Model(i, lib.layers.Dense(2, bias_initializer=constant(0.5), name="out")(x))
    small = shrink(model, 0.5, round_to=1).model
    assert small.get_layer("both").forward_layer.units == 2
    assert small.get_layer("out").bias_initializer.value == 0.5
    small.save(tmp_path / "m.keras")
    again = lib.models.load_model(tmp_path / "m.keras")
    x = np.arange(10).reshape(2, 5)
    np.testing.assert_allclose(np.asarray(again(x)), np.asarray(small(x)), rtol=1e-5)


def test_subclassed_and_unbuilt_models_are_refused():
    class Mine(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="subclassed"):
        trace(Mine())
    with pytest.raises(ModelError, match="input shape"):
        trace(keras.Sequential([L.Dense(2)]))


def test_a_group_prints_what_is_coupled():
    text = str(channel_groups(build("residual"))[0])
    assert text.startswith("conv2d: 8 channels") and "<- conv2d_1.kernel, axis 2: 8" in text


class Projection(L.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")

    def call(self, x):
        return tf.matmul(x, self.w)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def projection_rule(site):
    out = site.new(site.layer.units)
    site.bind("w", 0, site.vector(-1))
    site.bind("w", 1, out, "out")
    site.size("units", out)
    return along(out, -1, 2)


def test_a_users_rule_with_weights_cuts_exactly():
    i = keras.Input((5,))
    model = keras.Model(i, L.Dense(2)(Projection(6, name="mine")(L.Dense(8, "relu")(i))))
    assert "mine" in channel_groups(model)[0].blocked
    RULES[Projection] = projection_rule
    try:
        analysis = analyse(model)
        cuts = random_cuts(analysis, 3)
        small = cut(model, cuts, analysis)
        x = inputs_for(model)
        assert small.get_layer("mine").units == 3 and small.get_layer("mine").w.shape == (4, 3)
        assert difference(outputs(small, x), Reference(analysis, cuts)([x])) < 1e-4
    finally:
        del RULES[Projection]


def test_a_rule_that_raises_is_an_error_that_names_it():
    def failing(site):
        return site.inputs[3]

    RULES[Doubled] = failing
    try:
        with pytest.raises(ModelError, match="twice.*IndexError"):
            channel_groups(with_layer(Doubled(name="twice")))
    finally:
        del RULES[Doubled]


def test_groups_never_share_a_name():
    i = keras.Input((4, 3))
    back = L.LSTM(4, go_backwards=True, return_sequences=True)
    x = L.Bidirectional(L.LSTM(6, return_sequences=True), backward_layer=back, name="both")(i)
    x = L.Dense(6, name="attend.heads")(x)
    x = L.MultiHeadAttention(2, 3, name="attend")(x, x)
    x = L.RNN([L.GRUCell(5), L.GRUCell(5)], name="stack")(x)
    groups = channel_groups(keras.Model(i, L.Dense(2)(x)))
    names = [g.name for g in groups]
    assert len(set(names)) == len(names) == 10
    assert {"both", "both_1", "attend.heads", "attend.heads_1", "stack.cell0"} <= set(names)
    for group in groups:
        text = str(group)
        assert text.startswith(f"{group.name}: {group.channels} channels") and "->" in text

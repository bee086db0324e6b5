"""Cutting is exact: the pruned model equals the one in which the channels do not exist."""

import numpy as np
import pytest

from tests.zoo import ZOO, build, inputs_for
from tfedge._keras import keras, tf
from tfedge.errors import ModelError, PlanError
from tfedge.graph import RULES, analyse, channel_groups, cut, replay, trace
from tfedge.prune import shrink

L = keras.layers


def outputs(model, x):
    return [np.asarray(t) for t in tf.nest.flatten(model(x, training=False))]


def masked_reference(analysis, cuts):
    """The original layers, every dead channel's activation multiplied by zero after each call.

    Built from activations only: no weight is touched. Layers that count channels (layer norm) are
    replaced by their formula over the kept channels.
    """
    groups = {g.name: i for i, g in enumerate(analysis.groups)}
    dead = {(groups[n], int(c)) for n, cs in cuts.items() for c in cs}
    stays = {root: place not in dead for root, place in analysis.position.items()}
    graph = analysis.graph
    masks = {
        i: np.vectorize(lambda v: 1.0 if v < 0 or stays[v] else 0.0)(labels).astype("float32")
        for i, labels in analysis.tensor_labels.items()
    }
    calls = iter(graph.calls)

    def make(name, layer):
        if isinstance(layer, (L.RNN, L.Bidirectional, L.MultiHeadAttention)):
            layer = without_inner_channels(layer, name, analysis, dead)
        if name != layer.name:  # nested models may use a name twice
            renamed = type(layer).from_config({**layer.get_config(), "name": name})
            renamed.build(layer.input_shape)
            renamed.set_weights(layer.get_weights())
            layer = renamed

        def run(*args, **kwargs):
            call = next(calls)
            if isinstance(layer, L.LayerNormalization):
                y = kept_layer_norm(layer, args[0], masks[call.inputs[0]])
            elif isinstance(layer, L.GroupNormalization) and layer.groups == 2:
                y = kept_group_norm(layer, args[0], masks[call.inputs[0]])
            else:
                y = layer(*args, **kwargs)
            flat = [t * masks[n] for t, n in zip(tf.nest.flatten(y), call.outputs, strict=True)]
            return tf.nest.pack_sequence_as(y, flat)

        return run

    return replay(graph, make)


def kept_layer_norm(layer, x, mask):
    keep = np.broadcast_to(mask.reshape(-1), (x.shape[-1],))
    n = float(keep.sum())
    mean = tf.reduce_sum(x * keep, -1, keepdims=True) / n
    var = tf.reduce_sum(keep * (x - mean) ** 2, -1, keepdims=True) / n
    return (x - mean) / tf.sqrt(var + layer.epsilon) * layer.gamma + layer.beta


def kept_group_norm(layer, x, mask):
    keep = mask.reshape(2, -1)
    y = tf.reshape(x, (-1, x.shape[1] * x.shape[2], 2, x.shape[3] // 2))
    n = keep.sum() / 2 * y.shape[1]
    mean = tf.reduce_sum(y * keep, [1, 3], keepdims=True) / n
    var = tf.reduce_sum(keep * (y - mean) ** 2, [1, 3], keepdims=True) / n
    y = tf.reshape((y - mean) / tf.sqrt(var + layer.epsilon), (-1, *x.shape[1:]))
    return y * layer.gamma + layer.beta


def without_inner_channels(layer, name, analysis, dead):
    """A copy whose dead inner channels say nothing.

    Recurrent layers: what other units hear of a dead unit. Attention: what the output hears of a
    dead head or value, and the query's dead coordinates (the scale of the scores stays the old).
    """
    copy = type(layer).from_config(layer.get_config())
    silent = {}
    for group in (analysis.groups[g] for g, _ in dead):
        lost = [c for g, c in dead if analysis.groups[g] is group]
        for s in group.slices:
            inner = "recurrent_kernel" in s.weight_name and s.axis == 0
            inner |= s.weight_name == "_output_dense.kernel" and s.axis < 2
            inner |= s.weight_name.startswith("_query_dense") and group.name.endswith(".key")
            if s.layer == name and inner:
                silent.setdefault(s.weight, []).append((s.axis, s.index[np.isin(s.channel, lost)]))
    if isinstance(layer, L.MultiHeadAttention):
        copy(tf.zeros((1, 6, 8)), tf.zeros((1, 6, 8)))
    else:
        copy.build(layer.input_shape)
    values = layer.get_weights()
    for weight, cuts in silent.items():
        for axis, index in cuts:
            values[weight][(slice(None),) * axis + (index,)] = 0
    copy.set_weights(values)
    return copy


def random_cuts(analysis, seed):
    """About half of every group, never all of a part."""
    rng = np.random.default_rng(seed)
    cuts = {}
    for g, parts in zip(analysis.groups, analysis.parts, strict=True):
        free = {c for c in range(g.channels) if not g.fixed[c]} - {min(p) for p in parts}
        if not g.blocked and g.channels > 1 and free:
            count = min(max(1, g.channels // 2), g.channels - 1, len(free))
            cuts[g.name] = np.sort(rng.permutation(sorted(free))[:count])
    return cuts


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
    for got, want in zip(
        outputs(small, x), outputs(masked_reference(analysis, cuts), x), strict=True
    ):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-4)
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


def test_a_subclass_inherits_the_rule_only_with_the_call():
    assert not channel_groups(with_layer(PlainConv(4, 1)))[0].blocked
    assert channel_groups(with_layer(OtherConv(4, 1)))[0].blocked


def test_a_wrong_rule_is_an_error_that_names_the_layer():
    model = with_layer(Doubled(name="twice"))
    for wrong in (
        lambda s: s.inputs[0] + 10**6,
        lambda s: s.inputs[0][0],
        lambda s: [s.inputs[0]] * 2,
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

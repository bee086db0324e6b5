"""The prune stage: keys that look at the training data, blocks, the way through both Kerases."""

import numpy as np
import pytest

from tests.test_prune_choice import blocks_model
from tfedge import stages
from tfedge._keras import flavour, keras, keras3
from tfedge.errors import InputError
from tfedge.prune import PruneChannels, shrink
from tfedge.specs import PruneSpec
from tfedge.task import Task

X = np.random.default_rng(0).normal(size=(96, 6, 6, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 96)


def training():
    return stages.Training(Task((X, Y), (X[:8], Y[:8])))


def test_blocks_by_influence_then_channels_by_taylor_with_a_lasso():
    model = blocks_model(keras)
    spec = PruneSpec(
        target_params=0.5, round_to=1, blocks=1, importance="taylor", group_lasso=0.1,
        schedule="iterative", steps=2, epochs=1, batch_size=16,
    )  # fmt: skip
    made = stages.prune(model, spec, training())
    assert len(made.plan.blocks) == 1
    assert made.plan.blocks[0] not in {layer.name for layer in made.model.layers}
    assert made.model.count_params() / model.count_params() == pytest.approx(0.5, abs=0.02)
    again = shrink(model, plan=made.plan).model
    assert [w.shape for w in again.weights] == [w.shape for w in made.model.weights]


@pytest.mark.parametrize("importance", ["taylor", "activation"])
@pytest.mark.parametrize("library", [keras, keras3])
def test_at_once_in_either_keras(library, importance):
    lib = library() if library is keras3 else library
    model = blocks_model(lib)
    spec = PruneSpec(sparsity=0.5, round_to=1, blocks=("add1",), importance=importance, epochs=0)
    made = stages.prune_at_once(model, spec, training().task)
    assert flavour(made.model) == flavour(model)
    assert made.plan.blocks == ("add1",) and made.model.get_layer("a0").filters == 4


def test_a_rehearsal_needs_no_data():
    spec = PruneSpec(sparsity=0.5, round_to=1, blocks=2, importance="taylor", group_lasso=0.1)
    assert stages.needs_data(spec)
    bare = stages.without_data(spec)
    assert not stages.needs_data(bare)
    assert stages.prune_at_once(blocks_model(keras), bare).plan.cuts()
    with pytest.raises(InputError, match="needs data"):
        stages.prune_at_once(blocks_model(keras), spec)


@pytest.mark.parametrize("library", [keras, keras3])
def test_a_model_class_keeps_its_train_step_through_fit_and_strip(library):
    lib = library() if library is keras3 else library

    class Mine(lib.Model):
        own_steps = 0

        def train_step(self, data):
            Mine.own_steps += 1
            return super().train_step(data)

    i = lib.Input((6,))
    model = Mine(i, lib.layers.Dense(2)(lib.layers.Dense(8, "relu", name="a")(i)))
    model.compile("sgd", "mse")
    pruner = PruneChannels(0.5, schedule="one_shot", round_to=1)
    x, y = np.ones((8, 6), "float32"), np.zeros((8, 2), "float32")
    model.fit(x, y, verbose=0, callbacks=[pruner])
    small = pruner.strip()
    assert type(small) is Mine and Mine.own_steps and small.get_layer("a").units == 4
    np.testing.assert_allclose(np.asarray(small(x)), np.asarray(model(x)), atol=1e-6)

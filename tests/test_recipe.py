"""Recipes: strict reading, overrides, round trip, legal order."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfedge import recipe as recipes
from tfedge import specs
from tfedge.errors import RecipeError

PLAIN = {
    "name": "demo",
    "seed": 3,
    "data": "fashion_mnist",
    "stages": [
        {"stage": "train", "epochs": 1},
        {"stage": "prune", "sparsity": 0.5, "overrides": {"conv.*": 0.25}},
        {"stage": "distill"},
        {"stage": "qat", "distill": True},
        {"stage": "convert", "schemes": ["w8a8", "w8a16"]},
        {"stage": "benchmark", "runs": 5},
    ],
}


def stage(name):
    return {"stage": name, **({"sparsity": 0.5} if name == "prune" else {})}


def message(value):
    with pytest.raises(RecipeError) as caught:
        recipes.from_dict(value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_stage(**keys):
    return {"name": "x", "stages": [keys]}


def test_reads_values_and_defaults():
    recipe = recipes.from_dict(PLAIN)
    prune, qat = recipe.stages[1], recipe.stages[3]
    assert (recipe.seed, prune.sparsity, prune.overrides) == (3, 0.5, {"conv.*": 0.25})
    assert (prune.round_to, prune.importance, qat.scheme, qat.distill) == (8, "l2", "w8a8", True)
    assert recipe.stages[4].schemes == ("w8a8", "w8a16")


def test_misspelt_key_names_the_place_and_the_right_key():
    text = message(with_stage(stage="prune", sparcity=0.5))
    assert text == "stages.0 (prune): unknown key 'sparcity'. Did you mean 'sparsity'?"
    assert message({"nam": "x", "stages": []}) == "unknown key 'nam'. Did you mean 'name'?"
    assert "Did you mean 'prune'?" in message(with_stage(stage="prun"))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"stage": "prune", "sparsity": 1.0}, "sparsity must be between 0 and 1, both excluded"),
        ({"stage": "prune", "sparsity": 0}, "both excluded. Found: 0"),
        ({"stage": "prune", "sparsity": "half"}, "sparsity must be a number"),
        ({"stage": "prune", "sparsity": True}, "sparsity must be a number"),
        ({"stage": "prune", "sparsity": float("nan")}, "finite"),
        ({"stage": "prune"}, "exactly one of sparsity, target_macs, target_params, target_bytes"),
        ({"stage": "prune", "target_bytes": 1.5}, "whole number above 1"),
        ({"stage": "prune", "sparsity": 0.5, "steps": 3}, "has no steps"),
        ({"stage": "prune", "sparsity": 0.5, "blocks": 1.5}, "blocks must be a whole number"),
        ({"stage": "prune", "sparsity": 0.5, "blocks": [1]}, "a list of names"),
        ({"stage": "prune", "sparsity": 0.5, "epochs": 0, "group_lasso": 1}, "needs training"),
        ({"stage": "prune", "sparsity": 0.5, "target_macs": 0.5}, "Found: sparsity, target_macs"),
        ({"stage": "prune", "sparsity": 0.5, "begin": 0.9, "end": 0.1}, "begin must lie before"),
        ({"stage": "prune", "sparsity": 0.5, "schedule": "constant", "end": 1}, "has no end"),
        ({"stage": "prune", "sparsity": 0.5, "schedule": "one_shot", "begin": 0}, "has no begin"),
        ({"stage": "prune", "sparsity": 0.5, "begin": 0.75}, "begin must lie before"),
        ({"stage": "prune", "sparsity": 0.5, "round_to": 2.5}, "round_to must be a whole number"),
        ({"stage": "prune", "sparsity": 0.5, "schedule": "linear"}, "unknown schedule"),
        ({"stage": "prune", "sparsity": 0.5, "skip": ["conv("]}, "neither a name nor a regular"),
        ({"stage": "prune", "sparsity": 0.5, "overrides": {"a": 1.0}}, "overrides.a must be"),
        ({"stage": "prune", "sparsity": 0.5, "overrides": [1]}, "overrides must be a mapping"),
        ({"stage": "distill", "temperature": 0}, "temperature must be more than 0"),
        ({"stage": "distill", "temperature": "cosin"}, "Did you mean 'cosine'?"),
        ({"stage": "distill", "temperature": {"start": 3}}, "unknown temperature"),
        ({"stage": "distill", "temperature": {"name": "gap", "bse": 3}}, "Did you mean 'base'?"),
        ({"stage": "distill", "temperature": {"name": "gap", "base": True}}, "must be a number"),
        ({"stage": "distill", "features": ["fitnett"]}, "Did you mean 'fitnet'?"),
        ({"stage": "distill", "features": 3}, "features must be a list"),
        ({"stage": "distill", "features": "fitnet", "cache_teacher": "c"}, "whose layers can be"),
        ({"stage": "distill", "features": "fitnet", "teacher": ["a", "b"]}, "Found: 2 teachers"),
        ({"stage": "distill", "teacher": []}, "at least one teacher"),
        ({"stage": "distill", "combine": "confidence"}, "needs several teachers"),
        ({"stage": "distill", "cache_teacher": 3}, "cache_teacher must be a path"),
        ({"stage": "distill", "alpha": 1.5}, "alpha must be between 0 and 1"),
        ({"stage": "distill", "epochs": None}, "epochs must be a whole number"),
        ({"stage": "qat", "scheme": "float16"}, "unknown scheme. Found: 'float16'"),
        ({"stage": "qat", "distill": "yes please"}, "distill must be true or false"),
        ({"stage": "qat", "overrides": {"head": "flaot"}}, "Did you mean 'float'?"),
        ({"stage": "qat", "overrides": {"(": "float"}}, "neither a name nor a regular expression"),
        ({"stage": "qat", "overrides": "float"}, "a mapping of layer name or regex to scheme"),
        ({"stage": "qat", "epochs": 0, "start_step": 5}, "need training"),
        ({"stage": "qat", "start_step": 9, "freeze_ranges_step": 5}, "before quantization begins"),
        ({"stage": "qat", "ranges": "learnt"}, "Did you mean 'learned'?"),
        ({"stage": "qat", "freeze_ranges_step": -1}, "freeze_ranges_step must be 0 or more"),
        ({"stage": "convert", "schemes": ["w8a9"]}, "Did you mean 'w8a8'?"),
        ({"stage": "convert", "schemes": ["w8a8", "w8a8"]}, "twice"),
        ({"stage": "convert", "schemes": []}, "at least one scheme"),
        ({"stage": "convert", "io": "bool"}, "unknown io"),
        ({"stage": "benchmark", "runs": 0}, "runs must be 1 or more"),
        ({"stage": "benchmark", "targets": []}, "at least one target"),
        ({"stage": "benchmark", "samples": 5}, "samples have no meaning without eval"),
        ({"sparsity": 0.5}, "is not a stage"),
    ],
)
def test_bad_values_are_refused_with_their_place(keys, expected):
    text = message(with_stage(**keys))
    assert expected in text
    assert text.startswith("stages.0")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["stages"], "a recipe is a mapping"),
        ({"stages": []}, "no 'name'"),
        ({"name": "x"}, "no 'stages'"),
        ({"name": "x", "stages": {}}, "stages must be a list"),
        ({"name": "x", "stages": []}, "at least one stage"),
        ({"name": 7, "stages": [stage("prune")]}, "name must be text"),
        ({"name": "x", "seed": -1, "stages": [stage("prune")]}, "seed must be"),
        ({"name": "x", "seed": 0.5, "stages": [stage("prune")]}, "seed must be"),
        ({"name": "x", "data": "a", "task": "b:c", "stages": [stage("prune")]}, "either data or"),
    ],
)
def test_bad_recipes_are_refused(value, expected):
    assert expected in message(value)


def test_numbers_in_exponent_form_are_numbers():
    value = recipes.read_yaml("{name: x, stages: [{stage: distill, learning_rate: 1e-3}]}")
    assert recipes.from_dict(value).stages[0].learning_rate == 1e-3


def test_files_are_read_strictly(tmp_path):
    path = tmp_path / "r.yaml"
    for text, expected in (
        ("name: x\nname: y\nstages: []", "the key 'name' is written twice"),
        ("name: [x", "is not a YAML file"),
        ("{[1]: 2}", "not"),
    ):
        path.write_text(text)
        with pytest.raises(RecipeError, match=expected):
            recipes.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not a text file"):
        recipes.load(path)
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        recipes.load(tmp_path / "none.yaml")


def test_overrides_set_values_and_leave_the_source_alone():
    before = repr(PLAIN)
    changed = recipes.from_dict(
        recipes.with_overrides(
            PLAIN,
            [
                "stages.1.sparsity=null",
                "stages.1.target_macs=0.4",
                "stages.1.overrides.block.1/conv=0.1",
                "stages.4.schemes.1=float16",
                "stages.2.learning_rate=5e-4",
                "seed=9",
            ],
        )
    )
    prune = changed.stages[1]
    assert (prune.sparsity, prune.target_macs, changed.seed) == (None, 0.4, 9)
    assert prune.overrides == {"conv.*": 0.25, "block.1/conv": 0.1}
    assert changed.stages[4].schemes == ("w8a8", "float16")
    assert changed.stages[2].learning_rate == 5e-4
    assert repr(PLAIN) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages.1.sparcity=0.6", "Did you mean 'sparsity'?"),
        ("stages.9.sparsity=0.6", "counted 0 to 5"),
        ("stags.1.sparsity=0.6", "Did you mean 'stages'?"),
        ("stages.1.sparsity", "needs path=value"),
        ("name.x=1", "no keys of its own"),
        ("stages.4.schemes.7=w8a8", "no entry '7'"),
        ("stages.1.sparsity=[", "not a YAML"),
    ],
)
def test_overrides_of_paths_that_do_not_exist(text, expected):
    with pytest.raises(RecipeError) as caught:
        recipes.with_overrides(PLAIN, [text])
    assert expected in str(caught.value)


def test_dump_reads_back_equal():
    recipe = recipes.from_dict(PLAIN)
    assert recipes.from_dict(recipes.read_yaml(recipes.dump(recipe))) == recipe


@settings(max_examples=30, deadline=None)
@given(
    st.floats(1e-6, 1 - 1e-6),
    st.integers(0, 2**31 - 1),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1),
)
def test_dump_reads_back_equal_for_any_values(sparsity, seed, name):
    recipe = recipes.Recipe(name, seed, (specs.PruneSpec(sparsity=sparsity),))
    assert recipes.from_dict(recipes.read_yaml(recipes.dump(recipe))) == recipe


@pytest.mark.parametrize("cls", specs.STAGES.values(), ids=specs.STAGES)
def test_hash_covers_every_key(cls):
    base = cls(**({"sparsity": 0.5} if cls is specs.PruneSpec else {}))
    assert base.hash() == dataclasses.replace(base).hash()
    for name, value in CHANGED[cls.stage].items():
        assert dataclasses.replace(base, **value).hash() != base.hash(), name
    assert set(CHANGED[cls.stage]) == set(cls.key_names())


TRAINING = {
    "batch_size": {"batch_size": 3},
    "optimizer": {"optimizer": "sgd"},
    "weight_decay": {"weight_decay": 1e-4},
    "steps_per_execution": {"steps_per_execution": 8},
}
CHANGED = {
    "train": {
        "epochs": {"epochs": 3},
        **TRAINING,
        "learning_rate": {"learning_rate": 0.5},
        "retrain": {"retrain": True},
    },
    "prune": {
        "sparsity": {"sparsity": 0.4},
        "target_macs": {"sparsity": None, "target_macs": 0.5},
        "target_params": {"sparsity": None, "target_params": 0.5},
        "target_bytes": {"sparsity": None, "target_bytes": 70000},
        "scope": {"scope": "global"},
        "importance": {"importance": "l1"},
        "round_to": {"round_to": 1},
        "floor": {"floor": 0.2},
        "blocks": {"blocks": 2},
        "group_lasso": {"group_lasso": 0.1},
        "steps": {"schedule": "iterative", "steps": 3},
        "schedule": {"schedule": "constant"},
        "begin": {"begin": 0.1},
        "end": {"end": 0.9},
        "epochs": {"epochs": 7},
        **TRAINING,
        "learning_rate": {"learning_rate": 0.5},
        "skip": {"skip": ("a",)},
        "overrides": {"overrides": {"a": 0.5}},
    },
    "distill": {
        "epochs": {"epochs": 1},
        "temperature": {"temperature": {"name": "cosine", "start": 6}},
        "alpha": {"alpha": 1},
        "features": {"features": ("attention",)},
        **TRAINING,
        "learning_rate": {"learning_rate": 0.5},
        "teacher": {"teacher": "t.keras"},
        "combine": {"teacher": ("baseline", "t.keras"), "combine": "confidence"},
        "cache_teacher": {"cache_teacher": "outputs"},
    },
    "qat": {
        "scheme": {"scheme": "w8a16"},
        "overrides": {"overrides": {"head": "float"}},
        "strict": {"strict": True},
        "ranges": {"ranges": "learned"},
        "preserve": {"preserve": "sparsity"},
        "start_step": {"start_step": 1},
        "freeze_ranges_step": {"freeze_ranges_step": 1},
        "freeze_batch_norm_step": {"freeze_batch_norm_step": 1},
        "epochs": {"epochs": 0},
        **TRAINING,
        "learning_rate": {"learning_rate": 0.5},
        "calibration": {"calibration": 1},
        "distill": {"distill": True},
        "temperature": {"temperature": 9},
        "alpha": {"alpha": 1},
    },
    "convert": {
        "schemes": {"schemes": ("w8a8",)},
        "baseline": {"baseline": ()},
        "stages": {"stages": False},
        "io": {"io": "float"},
        "batch": {"batch": 2},
        "ptq": {"ptq": ("bias",)},
        "calibration": {"calibration": 1},
        "cpu": {"cpu": "arm64"},
        "depthwise": {"depthwise": "float"},
        "verify": {"verify": 1},
    },
    "benchmark": {
        "targets": {"targets": ("other",)},
        "runs": {"runs": 1},
        "threads": {"threads": 2},
        "eval": {"eval": True},
        "samples": {"eval": True, "samples": 5},
    },
}

LEGAL_PAIRS = {
    ("train", "prune"),
    ("train", "distill"),
    ("train", "qat"),
    ("train", "convert"),
    ("prune", "prune"),
    ("prune", "distill"),
    ("prune", "qat"),
    ("prune", "convert"),
    ("distill", "prune"),
    ("distill", "distill"),
    ("distill", "qat"),
    ("distill", "convert"),
    ("qat", "convert"),
    ("convert", "convert"),
    ("convert", "benchmark"),
    ("benchmark", "benchmark"),
}


@pytest.mark.parametrize("pair", list(itertools.product(specs.STAGES, repeat=2)), ids="-".join)
def test_order_of_every_pair(pair):
    names = ("convert", *pair) if pair == ("benchmark", "benchmark") else pair
    value = {"name": "x", "stages": [stage(n) for n in names]}
    if pair in LEGAL_PAIRS:
        assert [s.stage for s in recipes.from_dict(value).stages] == list(names)
    elif pair[1] == "benchmark":
        assert "needs a stage 'convert' before it" in message(value)
    else:
        text = message(value)
        assert f"stages.1 ({pair[1]}) must not come after stages.0 ({pair[0]}): " in text
        assert specs.REFUSED_ORDER[pair] in text


def test_order_is_checked_across_stages_between():
    names = ("qat", "convert", "prune")
    assert "must not come after stages.0 (qat)" in message(
        {"name": "x", "stages": [stage(n) for n in names]}
    )


def test_names_of_distillation_are_those_of_its_package():
    from tfedge import distill, spec_keys

    for table, classes in (
        (spec_keys.TEMPERATURES, distill.TEMPERATURES),
        (spec_keys.FEATURES, distill.FEATURES),
    ):
        assert set(table) == set(classes)
        for name, parameters in table.items():
            fields = {f.name for f in dataclasses.fields(classes[name])} - {"plan"}
            assert set(parameters) == fields, name


def test_temperatures_and_features_keep_their_normal_form():
    text = "{stage: distill, temperature: {name: linear, start: 1e1}, features: [attention]}"
    spec = specs.stage_from_dict(recipes.read_yaml(text), "stages.0")
    assert spec.temperature == {"name": "linear", "start": 10.0}
    assert spec.features == ({"name": "attention"},)
    recipe = recipes.Recipe("x", 0, (spec,))
    assert recipes.from_dict(recipes.read_yaml(recipes.dump(recipe))) == recipe
    assert specs.DistillSpec(temperature="4").temperature == 4.0


def test_order_table_names_known_stages_only():
    words = {w for pair in specs.REFUSED_ORDER for w in pair}
    assert words <= set(specs.STAGES)
    assert not set(specs.REFUSED_ORDER) & LEGAL_PAIRS


def test_optimizers_are_those_of_training():
    from tfedge.train import OPTIMIZERS

    assert set(specs.OPTIMIZERS) == set(OPTIMIZERS)


def test_schedules_are_those_of_pruning():
    from tfedge.prune import SCHEDULES

    assert set(specs.SCHEDULE_TIMES) == set(SCHEDULES)
    for name, times in specs.SCHEDULE_TIMES.items():
        assert callable(SCHEDULES[name](**times))

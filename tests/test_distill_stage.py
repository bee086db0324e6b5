"""The distill stage and command: every key has its effect."""

import numpy as np
import pytest

from tests import tiny
from tfedge import api, pipeline, stages
from tfedge.cli.main import main
from tfedge.distill import Distiller, TeacherCache
from tfedge.errors import InputError
from tfedge.prune import PruningPlan, shrink
from tfedge.specs import DistillSpec
from tfedge.task import Task


def data():
    x, y = tiny.data()
    return Task((x, y), (x[:16], y[:16]))


def made(**keys):
    student = shrink(tiny.model(), 0.5, round_to=1).model
    return stages.make_distiller(student, [tiny.model()], DistillSpec(**keys))


def test_temperature_and_alpha():
    distiller = made(temperature={"name": "cosine", "start": 6}, alpha=0.25)
    assert (distiller.temperature.start, distiller.temperature.end) == (6.0, 1.0)
    assert distiller.alpha == 0.25
    assert made(temperature=3).temperature == 3.0


def test_features_take_the_plan():
    spec = DistillSpec(features=["fitnet", {"name": "attention", "weight": 2}])
    teacher = tiny.model()
    done = shrink(teacher, 0.5, round_to=1)
    training = stages.Training(data())
    with_plan = stages.make_distiller(done.model, [teacher], spec, [done.plan], training.task)
    assert not with_plan.core.extras and len(with_plan.core.bound) == 2
    assert with_plan.core.bound[1].feature.weight == 2
    assert with_plan.core.bound[0].pairs[0].keep is not None
    alone = stages.make_distiller(done.model, [teacher], spec)
    assert len(alone.core.extras) == 2


def test_several_teachers_and_confidence():
    spec = DistillSpec(teacher=["baseline", "other.keras"], combine="confidence", epochs=1)
    teacher, other, student = tiny.model(), tiny.model(), tiny.model()
    result = stages.distill(student, [teacher, other], spec, stages.Training(data()))
    assert result.history["soft_loss"][0] >= 0
    assert stages.make_distiller(student, [teacher, other], spec).core.combine == "confidence"


def test_the_cache_is_written_once_and_used(tmp_path, monkeypatch):
    spec = DistillSpec(cache_teacher=str(tmp_path / "c"), epochs=2, batch_size=16)
    training = stages.Training(data())
    teacher, student = tiny.model(), shrink(tiny.model(), 0.5, round_to=1).model
    first = stages.distill(student, [teacher], spec, training).history
    assert np.isfinite(first["soft_loss"]).all()
    assert isinstance(TeacherCache(tmp_path / "c" / "teacher_0"), TeacherCache)
    monkeypatch.setattr(TeacherCache, "write", lambda *a, **k: pytest.fail("written again"))
    stages.distill(student, [teacher], spec, training)
    with pytest.raises(InputError, match="another teacher"):
        stages.distill(student, [shrink(teacher, 0.25, round_to=1).model], spec, training)


RECIPE = {
    "name": "tiny",
    "seed": 1,
    "stages": [
        {"stage": "prune", "sparsity": 0.5, "round_to": 1, "epochs": 1, "batch_size": 32},
        {
            "stage": "distill",
            "epochs": 1,
            "batch_size": 32,
            "temperature": {"name": "linear", "start": 5, "end": 2},
            "features": ["fitnet", "similarity"],
        },
    ],
}


def test_a_recipe_with_features_follows_the_plan_of_its_pruning(tmp_path, monkeypatch):
    made = []
    real = stages.make_distiller
    monkeypatch.setattr(
        stages, "make_distiller", lambda *a, **k: made.append(real(*a, **k)) or made[-1]
    )
    records = pipeline.compress(
        RECIPE, tmp_path / "w", model=tiny.write_model(tmp_path / "m.keras"),
        data=tiny.write_data(tmp_path / "d.npz"),
    )  # fmt: skip
    assert records[-1].label == "pruned + distilled"
    assert len(made) == 2  # the rehearsal, and the stage
    for distiller in made:
        assert isinstance(distiller, Distiller)
        assert not distiller.core.extras and distiller.core.bound[0].pairs[0].keep is not None
    assert {"temperature", "feature_loss"} <= set(made[1].history.history)


def test_a_recipe_that_cannot_work_fails_before_training(tmp_path):
    files = {
        "model": tiny.write_model(tmp_path / "m.keras"),
        "data": tiny.write_data(tmp_path / "d.npz"),
    }
    for change, text in (
        ("stages.1.features=[{name: fitnet, layers: [cnov]}]", "Did you mean 'conv'"),
        ("stages.1.temperature={name: linear, start: -1}", "start of LinearTemperature"),
        ("stages.1.teacher=none.tflite", "no such teacher"),
    ):
        with pytest.raises(InputError, match=text):
            pipeline.compress(RECIPE, tmp_path / "w", **files, overrides=[change])
        assert not (tmp_path / "w" / "01_prune").exists()


def test_command(tmp_path, capsys):
    model = tiny.write_model(tmp_path / "m.keras")
    file, small, plan = (str(tmp_path / n) for n in ("m.tflite", "s.keras", "plan.json"))
    assert main(["convert", f"--model={model}", f"--output={file}", "--scheme=float32"]) == 0
    shrinking = ["--sparsity=0.5", "--round_to=1", f"--plan_out={plan}"]
    assert main(["prune", f"--model={model}", f"--output={small}", *shrinking]) == 0
    base = ["distill", f"--student={small}", f"--output={tmp_path / 'o.keras'}", "--epochs=1",
            f"--data={tiny.write_data(tmp_path / 'd.npz')}", "--batch_size=32"]  # fmt: skip
    featured = ["--features=fitnet", "--features={name: attention, weight: 2}", f"--plan={plan}"]
    warm = "--temperature={name: gap, base: 3}"
    assert main([*base, f"--teacher={model}", *featured, warm]) == 0
    assert (
        api.load_model(tmp_path / "o.keras").count_params() == api.load_model(small).count_params()
    )
    cached = [f"--cache_teacher={tmp_path / 'c'}", "--temperature=entropy"]
    both = [f"--teacher={model}", f"--teacher={file}", "--combine=confidence"]
    assert main([*base, *both, *cached]) == 0
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["teacher_0", "teacher_1"]
    text = capsys.readouterr().out
    assert "teacher 2" in text and "student after" in text
    assert PruningPlan.load(plan).cuts()
    for wrong, said in (
        ([f"--teacher={model}", f"--plan={plan}"], "a plan is of no use here"),
        ([f"--teacher={model}", "--features=fitnett"], "Did you mean 'fitnet'"),
        ([f"--teacher={model}", "--temperature=hot"], "unknown temperature"),
        ([f"--teacher={model}", "--temperature={name: gap"], "not a YAML"),
        ([f"--teacher={model}", "--combine=confidence"], "needs several teachers"),
    ):
        assert main([*base, *wrong]) == 1
        assert said in capsys.readouterr().err


def test_command_on_keras_3_models_with_their_plan(tmp_path):
    import keras as keras3

    from tests.distill_nets import X, Y, net

    model, small, plan = (str(tmp_path / n) for n in ("m.keras", "s.keras", "plan.json"))
    net(keras3, 16).save(model)
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
    shrinking = ["--sparsity=0.5", "--round_to=1", f"--plan_out={plan}"]
    assert main(["prune", f"--model={model}", f"--output={small}", *shrinking]) == 0
    flags = [f"--teacher={model}", f"--plan={plan}", "--features=fitnet", "--epochs=1"]
    data = [f"--data={tmp_path / 'd.npz'}", f"--output={tmp_path / 'o.keras'}"]
    assert main(["distill", f"--student={small}", *flags, *data]) == 0
    assert isinstance(api.load_model(tmp_path / "o.keras"), keras3.Model)


def test_adapters_and_a_learnt_temperature_resume(tmp_path):
    """What trains beside the student is in the checkpoint, and schedules go on where they were."""
    from tests.test_train import Stopper
    from tfedge import train

    spec = train.TrainSpec(epochs=4, batch_size=16, learning_rate=1e-2, seed=2)
    teacher = tiny.model()

    def distiller():
        return made(temperature="curriculum", features=["fitnet"])

    whole = distiller()
    expected = train.fit(whole, data(), spec)
    with pytest.raises(KeyboardInterrupt):
        train.fit(distiller(), data(), spec, callbacks=[Stopper(2, 1)], checkpoint_dir=tmp_path)
    resumed = distiller()
    resumed.core.extras[0].set_weights([0 * w for w in resumed.core.extras[0].get_weights()])
    got = train.fit(resumed, data(), spec, checkpoint_dir=tmp_path)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, values in got.items():
        assert values == pytest.approx(expected[name], rel=1e-5)
    assert len(set(expected["temperature"])) == 4
    assert len(whole.get_weights()) > len(teacher.get_weights())

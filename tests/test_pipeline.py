"""The pipeline: a recipe from end to end, resume, interrupts, full disks."""

import errno
import json
from pathlib import Path

import pytest

from tests import tiny
from tfedge import pipeline, stages, train
from tfedge import recipe as recipes
from tfedge.errors import ConversionError, InputError, PlanError, RecipeError
from tfedge.record import read_jsonl
from tfedge.tflite import TFLiteModel
from tfedge.workdir import StageFolder, locked

FULL = {
    "name": "tiny",
    "seed": 1,
    "stages": [
        {"stage": "prune", "sparsity": 0.5, "epochs": 1, "batch_size": 16},
        {"stage": "distill", "epochs": 2, "batch_size": 16, "learning_rate": 1e-2},
        {"stage": "qat", "epochs": 1, "batch_size": 16, "distill": True, "calibration": 32},
        {"stage": "convert", "schemes": ["float16", "w8a8", "w8a16"], "verify": 8,
         "baseline": ["float32"], "calibration": 16},
        {"stage": "benchmark", "runs": 3, "eval": True, "samples": 24},
    ],
}  # fmt: skip
SHORT = {
    "name": "short",
    "stages": [
        {"stage": "prune", "sparsity": 0.5, "epochs": 0},
        {"stage": "distill", "epochs": 3, "batch_size": 32},
        {"stage": "convert", "schemes": ["float32"], "baseline": [], "stages": False, "verify": 2},
    ],
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    return {
        "model": tiny.write_model(folder / "model.keras"),
        "data": tiny.write_data(folder / "data.npz"),
    }


@pytest.fixture(scope="module")
def full(inputs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("full")
    return workdir, pipeline.compress(FULL, workdir, **inputs)


def done_stages(text):
    return [line.split(":")[0] for line in text.splitlines() if "done before, skipped" in line]


def test_every_stage_leaves_its_rows(full):
    _, records = full
    rows = [(r.stage, r.scheme) for r in records]
    assert rows == [
        ("00_baseline", "keras"),
        ("00_baseline", "float32"),
        ("01_prune", "keras"),
        ("01_prune", "float32"),
        ("02_distill", "keras"),
        ("02_distill", "float32"),
        ("02_distill", "float16"),
        ("03_qat", "keras"),
        ("03_qat", "w8a8"),
        ("03_qat", "w8a16"),
    ]
    assert records[-1].label == "pruned + distilled + QAT"


def test_rows_are_complete(full):
    workdir, records = full
    for row in records:
        assert (workdir / row.path).is_file()
        assert 0 <= row.metrics["accuracy"] <= 1
        assert row.params > 0 < row.macs
        if row.scheme != "keras":
            assert row.bytes == (workdir / row.path).stat().st_size
            assert row.drift.samples == 8
            assert len(row.certificate) >= 5
            assert sum(row.size_by_layer.values()) > 0
            assert len(row.timing) == 1
            assert row.timing[0].p50_ms > 0
    base, pruned = records[1], records[3]
    assert pruned.macs < 0.5 * base.macs
    assert base.timing[0].ratio_p50 == 1.0


def test_scores_are_those_of_the_files(full, inputs):
    workdir, records = full
    x, y = tiny.data()
    row = records[-2]
    outputs = TFLiteModel.load(workdir / row.path).predict(x[:32])["logits"]
    assert row.metrics["accuracy"] == pytest.approx((outputs.argmax(1) == y[:32]).mean())


def test_outputs_of_the_run(full):
    workdir, records = full
    assert [r.path for r in read_jsonl(workdir / "records.jsonl")] == [r.path for r in records]
    assert "plotly-graph-div" in (workdir / "report.html").read_text()
    again = recipes.load(workdir / "recipe.yaml")
    assert [s.stage for s in again.stages] == [s["stage"] for s in FULL["stages"]]
    plan = json.loads((workdir / "01_prune" / "plan.json").read_text())
    assert any(g["cut"] for g in plan["groups"])
    assert not list(workdir.glob("*.partial"))


def test_second_run_skips_everything(full, inputs, capsys, monkeypatch):
    workdir, records = full
    monkeypatch.setattr(train, "fit", None)
    again = pipeline.compress(FULL, workdir, **inputs)
    assert done_stages(capsys.readouterr().err) == [
        "00_baseline", "01_prune", "02_distill", "03_qat", "04_convert", "05_benchmark",
    ]  # fmt: skip
    assert [r.timing for r in again] == [r.timing for r in records]


def test_files_are_scored_on_the_targets_too(full):
    _, records = full
    scored = [t.score for r in records if r.scheme != "keras" for t in r.timing]
    assert scored and all(s.scores == s.host and s.samples == 24 for s in scored)


@pytest.fixture
def short(inputs, tmp_path):
    pipeline.compress(SHORT, tmp_path, **inputs)
    return tmp_path


def run_again(workdir, inputs, capsys, *, change=(), **other):
    capsys.readouterr()
    pipeline.compress(SHORT, workdir, **{**inputs, **other}, overrides=list(change))
    return done_stages(capsys.readouterr().err)


def test_a_changed_stage_redoes_itself_and_the_later_ones(short, inputs, capsys):
    done = run_again(short, inputs, capsys, change=["stages.1.alpha=0.3"])
    assert done == ["00_baseline", "01_prune"]


@pytest.mark.slow
def test_a_changed_seed_or_model_or_data_redoes_all(short, inputs, capsys, tmp_path):
    assert run_again(short, inputs, capsys, change=["seed=5"]) == []
    other = tiny.model()
    other.get_layer("logits").bias.assign([1.0, 2.0, 3.0])
    assert run_again(short, inputs, capsys, model=other) == []
    data = tiny.write_data(tmp_path / "other.npz")
    assert run_again(short, inputs, capsys, data=data) == []


def test_a_damaged_file_is_made_again(short, inputs, capsys):
    (short / "01_prune" / "model.keras").write_bytes(b"damaged")
    done = run_again(short, inputs, capsys)
    assert done[0] == "00_baseline"
    assert "01_prune" not in done


def test_an_interrupt_in_a_stage_goes_on_at_its_epoch(inputs, tmp_path, monkeypatch, capsys):
    import tfedge.checkpoint as checkpoint

    write = checkpoint.write
    epochs = []

    def interrupted(folder, model, callbacks, saved):
        write(folder, model, callbacks, saved)
        epochs.append(saved.epoch)
        if epochs == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.compress(SHORT, tmp_path / "a", **inputs)
    assert (tmp_path / "a" / "01_prune" / "done").is_file()
    assert not (tmp_path / "a" / "02_distill").exists()
    interrupted_then = pipeline.compress(SHORT, tmp_path / "a", **inputs)
    assert epochs == [1, 2, 3]
    assert done_stages(capsys.readouterr().err) == ["00_baseline", "01_prune"]
    assert not list((tmp_path / "a").glob("*.partial"))
    whole = pipeline.compress(SHORT, tmp_path / "b", **inputs)
    assert interrupted_then[-1].metrics == whole[-1].metrics
    assert interrupted_then[-1].drift == whole[-1].drift


def test_an_interrupt_between_files_keeps_those_made(inputs, tmp_path, monkeypatch):
    from tfedge import stage_files

    recipe = {**SHORT, "stages": [{**SHORT["stages"][2], "schemes": ["float32", "float16"]}]}
    convert, made = stage_files.convert_for, []

    def counted(model, scheme, spec, task):
        made.append(scheme)
        if made == ["float32", "float16"]:
            raise KeyboardInterrupt
        return convert(model, scheme, spec, task)

    monkeypatch.setattr(stage_files, "convert_for", counted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.compress(recipe, tmp_path, **inputs)
    records = pipeline.compress(recipe, tmp_path, **inputs)
    assert made == ["float32", "float16", "float16"]
    assert all(r.bytes for r in records[1:])


def test_a_full_disk_leaves_a_consistent_directory(inputs, tmp_path, monkeypatch):
    save = pipeline.save_model
    calls = []

    def full(model, path, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(model, path, **kwargs)

    monkeypatch.setattr(pipeline, "save_model", full)
    with pytest.raises(OSError, match="No space"):
        pipeline.compress(SHORT, tmp_path, **inputs)
    assert [p.name for p in sorted(tmp_path.glob("0*"))] == ["00_baseline", "01_prune.partial"]
    assert len(pipeline.compress(SHORT, tmp_path, **inputs)) == 4


def test_one_scheme_that_fails_does_not_stop_the_others(inputs, tmp_path, monkeypatch):
    from tfedge import stage_files

    convert = stage_files.convert_for

    def fails(model, scheme, spec, task):
        if scheme == "w8a16":
            raise ConversionError("no kernel for 16x8", "ELU")
        return convert(model, scheme, spec, task)

    monkeypatch.setattr(stage_files, "convert_for", fails)
    value = {**SHORT, "stages": [{**SHORT["stages"][2], "schemes": ["w8a16", "float32"]}]}
    records = pipeline.compress(value, tmp_path, **inputs)
    bad = next(r for r in records if r.scheme == "w8a16")
    assert bad.notes == ["not made: no kernel for 16x8. Found: ELU."]
    assert next(r for r in records if r.scheme == "float32").bytes
    assert pipeline.missing_files(recipes.from_dict(value), records) == [bad]
    with monkeypatch.context() as now:
        made = []

        def works(model, scheme, spec, task):
            made.append(scheme)
            return convert(model, "float16", spec, task)

        now.setattr(stage_files, "convert_for", works)
        again = pipeline.compress(value, tmp_path, **inputs)
        assert made == ["w8a16"]  # the other file is kept
        assert all(r.bytes for r in again if r.scheme != "keras")
    only = {**SHORT, "stages": [{**SHORT["stages"][2], "schemes": ["w8a16"]}]}
    with pytest.raises(ConversionError, match="no file could be made"):
        pipeline.compress(only, tmp_path / "other", **inputs)


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"importance": "l3"}, InputError, "unknown importance"),
        ({"skip": ["dense_.*"]}, InputError, "dense_"),
        ({"overrides": {"nothing": 0.5}}, InputError, "nothing"),
        ({"sparsity": 0.01}, PlanError, "no channel"),
    ],
)
def test_what_cannot_work_fails_before_any_training(change, error, expected, inputs, tmp_path):
    value = {**SHORT, "stages": [SHORT["stages"][0] | change, *SHORT["stages"][1:]]}
    with pytest.raises(error, match=expected):
        pipeline.compress(value, tmp_path, **inputs)
    assert not list(tmp_path.glob("0*_*/done"))


def test_unknown_target_and_teacher_fail_at_once(inputs, tmp_path):
    target = {**SHORT, "stages": [*SHORT["stages"], {"stage": "benchmark", "targets": ["hots"]}]}
    with pytest.raises(Exception, match="host"):
        pipeline.compress(target, tmp_path / "a", **inputs)
    with pytest.raises(InputError, match="no such teacher"):
        pipeline.compress(
            SHORT, tmp_path / "a", **inputs, overrides=["stages.1.teacher=none.keras"]
        )
    assert not (tmp_path / "a").exists()


def test_a_run_needs_data_and_a_trained_model(inputs, tmp_path):
    with pytest.raises(InputError, match="there is no data"):
        pipeline.compress(SHORT, tmp_path, model=inputs["model"])
    with pytest.raises(InputError, match="there is no model"):
        pipeline.compress(SHORT, tmp_path, data=inputs["data"])
    with pytest.raises(InputError, match="either data or a task"):
        pipeline.compress(SHORT, tmp_path, **inputs, task="a:b")
    with pytest.raises(RecipeError, match="mapping"):
        pipeline.compress([1], tmp_path)


@pytest.mark.slow
def test_train_stage_makes_the_baseline_or_leaves_a_given_model(inputs, tmp_path, capsys):
    from tfedge.task import Task

    x, y = tiny.data()
    task = Task((x, y), (x[:32], y[:32]), name="tiny", build=tiny.model)
    value = {**SHORT, "stages": [{"stage": "train", "epochs": 4, "batch_size": 16},
                                 SHORT["stages"][2]]}  # fmt: skip
    trained = pipeline.compress(value, tmp_path / "a", task=task)
    given = pipeline.compress(value, tmp_path / "b", **inputs)
    assert "the model that was given is the baseline" in capsys.readouterr().err
    assert trained[0].stage == given[0].stage == "00_baseline"
    assert trained[0].metrics["accuracy"] > given[0].metrics["accuracy"]
    again = pipeline.compress(value, tmp_path / "c", **inputs, overrides=["stages.0.retrain=true"])
    assert again[0].metrics != given[0].metrics


def test_a_model_with_own_layers_goes_through(inputs, tmp_path):
    from tfedge._keras import keras

    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2.0 * x

    image = keras.Input((8, 8, 1), name="image")
    h = keras.layers.Flatten()(Doubled()(image))
    model = keras.Model(image, keras.layers.Dense(3)(h))
    value = {**SHORT, "stages": [{"stage": "distill", "epochs": 1}, SHORT["stages"][2]]}
    records = pipeline.compress(value, tmp_path, model=model, data=inputs["data"])
    assert records[-1].bytes


def test_two_runs_in_one_directory_are_refused(short, inputs):
    with locked(short), pytest.raises(InputError, match="another run"):
        pipeline.compress(SHORT, short, **inputs)


def test_work_directory_that_is_a_file(inputs, tmp_path):
    (tmp_path / "w").write_text("")
    with pytest.raises(InputError, match="is a file"):
        pipeline.compress(SHORT, tmp_path / "w", **inputs)


def test_a_swap_that_was_cut_short_is_completed(tmp_path):
    folder = StageFolder(tmp_path, "01_prune")
    for text in ("old", "new"):
        target, scratch = folder.begin(text)
        (target / "file").write_text(text)
        (scratch / "checkpoint").write_text("x")
        folder.finish(text)
    assert [p.name for p in sorted(folder.path.iterdir())] == ["done", "file"]
    # Cut short after the old folder was moved away: the new one is complete and takes its place.
    folder.path.rename(folder.partial)
    old = Path(f"{folder.path}.old")
    old.mkdir()
    assert folder.outputs("new") is not None
    assert (folder.path / "file").read_text() == "new"
    # Cut short before the new one was complete: the old one comes back.
    folder.path.rename(old)
    assert folder.outputs("new") is not None
    assert folder.outputs("other") is None


def test_stages_take_up_only_work_for_the_same_key(tmp_path):
    folder = StageFolder(tmp_path, "01_prune")
    target, scratch = folder.begin("a")
    (scratch / "epoch").write_text("1")
    assert (folder.begin("a")[1] / "epoch").is_file()
    assert not (folder.begin("b")[1] / "epoch").exists()


def test_qat_with_distillation_needs_a_teacher(inputs):
    from tfedge import api
    from tfedge.specs import QatSpec
    from tfedge.task import get_task

    model = api.load_model(inputs["model"])
    training = stages.Training(get_task(inputs["data"], model=model))
    with pytest.raises(InputError, match="needs a teacher"):
        stages.quantize(model, QatSpec(epochs=1, distill=True), training)

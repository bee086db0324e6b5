"""Bad input: one clear line, exit status not 0, no traceback, nothing lost."""

import errno

import numpy as np
import pytest

from tests import tiny
from tfedge._keras import keras
from tfedge.cli.main import main


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.keras").write_text("not a model")
    (folder / "text.tflite").write_text("not a model")
    np.savez(folder / "shape.npz", image=np.zeros((4, 8, 8, 3), np.float32))
    x = np.zeros((4, 8, 8, 1), np.float32)
    x[1, 2] = np.nan
    np.savez(folder / "nan.npz", image=x)
    np.savez(folder / "name.npz", imag=np.zeros((4, 8, 8, 1)), other=np.zeros(4))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    tiny.write_data(folder / "data.npz")
    tiny.write_model(folder / "model.keras")
    return folder


def run(capsys, *arguments, status=1):
    """Runs a command that must fail; returns its one line of error."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == status
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("tfedge: error: ")]
    assert len(errors) == 1, captured.err
    assert "Traceback" not in captured.err
    assert captured.err.splitlines()[-1] == errors[0]
    return errors[0]


def recipe(folder, text):
    path = folder / "recipe.yaml"
    path.write_text("name: x\nstages:\n" + text)
    return f"--recipe={path}"


def test_misspelt_recipe_key(files, tmp_path, capsys):
    flag = recipe(tmp_path, "  - {stage: prune, sparcity: 0.5}\n")
    text = run(capsys, "compress", flag, f"--workdir={tmp_path / 'w'}")
    assert "unknown key 'sparcity'. Did you mean 'sparsity'?" in text
    assert not (tmp_path / "w").exists()


def test_misspelt_override(files, tmp_path, capsys):
    flag = recipe(tmp_path, "  - {stage: prune, sparsity: 0.5}\n")
    text = run(capsys, "compress", flag, "--workdir=w", "--set", "stages.0.sparcity=0.6")
    assert "Did you mean 'sparsity'?" in text


def test_stages_in_an_order_that_loses_work(files, tmp_path, capsys):
    flag = recipe(tmp_path, "  - {stage: qat}\n  - {stage: prune, sparsity: 0.5}\n")
    text = run(capsys, "compress", flag, "--workdir=w")
    assert "stages.1 (prune) must not come after stages.0 (qat): what is pruned" in text


def test_sparsity_of_one(files, tmp_path, capsys):
    flags = [f"--model={files / 'model.keras'}", f"--output={tmp_path / 'o.keras'}"]
    text = run(capsys, "prune", *flags, "--sparsity=1.0")
    assert "sparsity must be between 0 and 1, both excluded. Found: 1.0" in text
    flag = recipe(tmp_path, "  - {stage: prune, sparsity: 1.0}\n")
    assert "stages.0 (prune): sparsity" in run(capsys, "compress", flag, "--workdir=w")


def test_pattern_that_matches_no_layer(files, tmp_path, capsys):
    flags = [f"--model={files / 'model.keras'}", f"--output={tmp_path / 'o.keras'}"]
    assert "'dense_.*'" in run(capsys, "prune", *flags, "--skip=dense_.*")
    assert "'nothing'" in run(capsys, "prune", *flags, "--override=nothing=0.3")
    assert not (tmp_path / "o.keras").exists()


def test_unknown_words(files, tmp_path, capsys):
    model = f"--model={files / 'model.keras'}"
    out = f"--output={tmp_path / 'o.keras'}"
    assert "Choose one of" in run(capsys, "prune", model, out, "--importance=xyz")
    text = run(capsys, "convert", model, f"--output={tmp_path / 'o.tflite'}", "--scheme=w8a9")
    assert "Did you mean 'w8a8'?" in text


@pytest.mark.parametrize("command", ["prune", "convert", "inspect"])
def test_model_file_that_is_not_one(command, files, tmp_path, capsys):
    out = [] if command == "inspect" else [f"--output={tmp_path / 'o.keras'}"]
    text = run(capsys, command, f"--model={files / 'text.keras'}", *out)
    assert "text.keras" in text
    text = run(capsys, command, f"--model={files / 'none.keras'}", *out)
    assert "none.keras" in text


def test_tflite_file_that_is_not_one(files, capsys):
    bad = files / "text.tflite"
    assert "text.tflite" in run(capsys, "inspect", f"--model={bad}")
    assert "text.tflite" in run(capsys, "benchmark", f"--model={bad}")
    flags = [f"--model={files / 'model.keras'}", f"--tflite={bad}", "--data=random:2"]
    assert "text.tflite" in run(capsys, "verify", *flags)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_subclassed_model(tmp_path, capsys):
    from tfedge.errors import ModelError
    from tfedge.prune import shrink

    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    with pytest.raises(ModelError) as caught:
        shrink(model)
    assert "ubclass" in str(caught.value)
    model.save(str(tmp_path / "saved"), save_format="tf")
    flags = [f"--model={tmp_path / 'saved'}", f"--output={tmp_path / 'o.keras'}"]
    assert "tfedge: error: " in run(capsys, "prune", *flags)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("shape.npz", "(4, 8, 8, 3)"),
        ("nan.npz", "NaN"),
        ("name.npz", "image"),
        ("none.npz", "none.npz"),
        ("objects.npy", "objects.npy"),
        ("random:none", "random:none"),
    ],
)
def test_calibration_data(data, expected, files, tmp_path, capsys):
    out = tmp_path / "f.tflite"
    spec = data if data.startswith("random") else files / data
    flags = [f"--model={files / 'model.keras'}", f"--output={out}", f"--calibration={spec}"]
    assert expected in run(capsys, "convert", *flags)
    assert not out.exists()


def test_calibration_that_is_missing(files, tmp_path, capsys):
    out = tmp_path / "f.tflite"
    text = run(capsys, "convert", f"--model={files / 'model.keras'}", f"--output={out}")
    assert "calibration" in text


def test_output_that_cannot_be_written(files, tmp_path, capsys):
    model = f"--model={files / 'model.keras'}"
    text = run(capsys, "prune", model, f"--output={tmp_path / 'none' / 'o.keras'}")
    assert "folder does not exist" in text
    assert "End the name in" in run(capsys, "prune", model, f"--output={tmp_path / 'o.pb'}")
    data = f"--data={files / 'data.npz'}"
    text = run(capsys, "qat", model, data, f"--output={tmp_path / 'o.keras'}")
    assert "saved as .h5" in text


def test_data_and_task_that_are_missing_or_wrong(files, tmp_path, capsys):
    flags = ["distill", f"--student={files / 'model.keras'}", f"--teacher={files / 'model.keras'}"]
    flags += [f"--output={tmp_path / 'o.keras'}", "--epochs=1"]
    assert "exactly one of --data and --task" in run(capsys, *flags)
    assert "no_such_module" in run(capsys, *flags, "--task=no_such_module:task")
    assert "none.npz" in run(capsys, *flags, f"--data={tmp_path / 'none.npz'}")
    assert "alpha" in run(capsys, *flags, f"--data={files / 'data.npz'}", "--alpha=1.5")


def test_full_disk_leaves_the_old_file(files, tmp_path, capsys, monkeypatch):
    out = tmp_path / "small.keras"
    flags = ["prune", f"--model={files / 'model.keras'}", f"--output={out}"]
    assert main([*flags, "--sparsity=0.5"]) == 0
    before = out.read_bytes()

    def full(self, path, **kwargs):
        from pathlib import Path

        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(keras.Model, "save", full)
    assert "the disk is full" in run(capsys, *flags, "--sparsity=0.6")
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["small.keras"]


def test_debug_shows_the_traceback(files, capsys):
    assert main(["inspect", f"--model={files / 'text.keras'}", "--debug"]) == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.splitlines()[-1].startswith("tfedge: error: ")

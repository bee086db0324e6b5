"""benchmarks/baselines.py: trains once, keeps float16 weights, loads them again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tfedge.errors import InputError

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "baselines.py"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script, writing below tmp_path, on 1,000 random images."""
    monkeypatch.syspath_prepend(SCRIPT.parent)  # as for a script that is run
    found = importlib.util.spec_from_file_location("baselines_script", SCRIPT)
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "baselines_script", module)
    found.loader.exec_module(module)
    from tfedge import datasets

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5200, 28, 28), dtype=np.uint8)
    y = (x[:, :14].mean((1, 2)) > x[:, 14:].mean((1, 2))).astype(np.uint8)
    monkeypatch.setattr(datasets, "fashion_mnist", lambda: (x, y, x[:100], y[:100]))
    monkeypatch.setattr(module, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path / "runs")
    tiny = module.Baseline(task="fashion_mnist", build="resnet8", epochs=1)
    monkeypatch.setattr(module, "BASELINES", {"tiny": tiny})
    return module


@pytest.mark.slow
def test_trains_once_and_loads(script, capsys, monkeypatch):
    with pytest.raises(InputError, match="not trained yet"):
        script.load_baseline("tiny")
    assert script.main(["--only", "tiny"]) == 0
    row = json.loads((script.FOLDER / "tiny.json").read_text())
    assert row["params"] == 78426 and 0 <= row["test"]["accuracy"] <= 1
    assert len(row["history"]["loss"]) == 1
    kept = np.load(script.FOLDER / "tiny.npz")
    assert {a.dtype.name for a in kept.values()} == {"float16"}
    model = script.load_baseline("tiny")
    np.testing.assert_array_equal(
        model.get_layer("logits").kernel.numpy(), kept["logits/kernel"].astype(np.float32)
    )
    monkeypatch.setattr(script, "train", lambda name: pytest.fail("trained again"))
    assert script.main([]) == 0
    assert "tiny: accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_interrupted_or_changed_networks_are_trained_again(script, monkeypatch):
    assert script.main([]) == 0
    seconds = json.loads((script.FOLDER / "tiny.json").read_text())["seconds"]
    (script.FOLDER / "tiny.json").unlink()
    assert script.main([]) == 0
    assert json.loads((script.FOLDER / "tiny.json").read_text())["seconds"] == seconds > 0
    changed = script.Baseline(task="fashion_mnist", build="resnet8", epochs=1, seed=1)
    monkeypatch.setattr(script, "BASELINES", {"tiny": changed})
    assert script._kept("tiny") is None
    assert script.main(["--force"]) == 0
    assert script._kept("tiny")["seed"] == 1


def test_unknown_name(script, capsys):
    assert script.main(["--only", "tyny"]) == 1
    assert "Did you mean 'tiny'" in capsys.readouterr().err


def test_kept_weights_load(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    found = importlib.util.spec_from_file_location("kept_script", SCRIPT)
    module = importlib.util.module_from_spec(found)
    sys.modules["kept_script"] = module
    try:
        found.loader.exec_module(module)
        kept = {name: module._kept(name) for name in module.BASELINES}
        assert kept["resnet8"]
        for name, row in kept.items():
            if row is None:  # its images are not the project's to keep
                continue
            assert module.load_baseline(name).count_params() == row["params"]
    finally:
        del sys.modules["kept_script"]

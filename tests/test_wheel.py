"""The wheel, in an empty environment and outside the checkout: every command runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.zoo import build

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def run(*argv, cwd, timeout=900):
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(a) for a in argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an environment that holds the wheel, a model and data."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "-w", folder, ROOT, cwd=folder)
    run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    wheel = next(folder.glob("tfedge-*.whl"))
    own = [folder / "env" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*own, "install", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    build("flatten_dense").save(folder / "m.keras")
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 6, 6, 2), np.float32), rng.integers(0, 4, 64)
    np.savez(folder / "d.npz", x_train=x, y_train=y, x_test=x[:16], y_test=y[:16])
    np.savez(folder / "x.npz", x=x)
    (folder / "r.yaml").write_text(
        "name: tiny\nseed: 1\nstages:\n"
        "  - {stage: prune, sparsity: 0.5, epochs: 1, round_to: 1}\n"
        "  - {stage: distill, epochs: 1}\n"
        "  - {stage: qat, scheme: w8a8, epochs: 1}\n"
        "  - {stage: convert, schemes: [w8a8, w8a16]}\n"
        "  - {stage: benchmark, runs: 5}\n"
    )
    return folder


def test_every_command_from_another_folder(place):
    def tfedge(*argv):
        return run(place / "env" / "bin" / "tfedge", *argv, cwd=place)

    tfedge("prune", "--model=m.keras", "--output=p.keras", "--sparsity=0.5", "--round_to=1")
    tfedge(
        "distill", "--student=p.keras", "--teacher=m.keras", "--data=d.npz",
        "--output=s.keras", "--epochs=1",
    )  # fmt: skip
    tfedge("qat", "--model=s.keras", "--data=d.npz", "--output=q.h5", "--scheme=w8a8", "--epochs=1")
    tfedge("convert", "--model=q.h5", "--output=q.tflite", "--scheme=w8a8", "--certificate=c.json")
    tfedge("convert", "--model=m.keras", "--output=f.tflite", "--scheme=float32")
    tfedge("verify", "--model=q.h5", "--tflite=q.tflite", "--data=x.npz", "--json=v.json")
    tfedge("benchmark", "--model=f.tflite", "--model=q.tflite", "--runs=5", "--json=b.json")
    assert "flatten" in tfedge("inspect", "--model=m.keras").stdout
    assert "FULLY_CONNECTED" in tfedge("inspect", "--model=q.tflite").stdout
    tfedge("compress", "--recipe=r.yaml", "--workdir=w", "--model=m.keras", "--data=d.npz")
    assert json.loads((place / "c.json").read_text())
    assert "arm64:cortex-a53" in tfedge("target", "list").stdout
    assert list(place.glob("env/lib/python*/site-packages/tfedge/targets/arm64/mix.c"))
    assert (place / "w" / "report.html").stat().st_size > 100_000
    assert len((place / "w" / "records.jsonl").read_text().splitlines()) >= 5

"""The wheel, outside the checkout: what it holds and asks for, and that commands run from it."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import packages_distributions, requires
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
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    wheel = next(folder.glob("tfedge-*.whl"))
    run(*pip, "--python", folder / "env", "install", "--no-deps", wheel, cwd=folder)
    # Its requirements are taken from here: installing them anew takes minutes. A plain path in a
    # .pth file does not bring the checkout along.
    site = next((folder / "env").glob("lib/python*/site-packages"))
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
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


def test_commands_from_another_folder(place):
    def tfedge(*argv):
        return run(place / "env" / "bin" / "tfedge", *argv, cwd=place)

    tfedge(
        "convert", "--model=m.keras", "--output=q.tflite", "--scheme=w8a8",
        "--calibration=x.npz", "--certificate=c.json",
    )  # fmt: skip
    tfedge("compress", "--recipe=r.yaml", "--workdir=w", "--model=m.keras", "--data=d.npz")
    assert json.loads((place / "c.json").read_text())
    assert "arm64:cortex-a53" in tfedge("target", "list").stdout
    assert list(place.glob("env/lib/python*/site-packages/tfedge/targets/arm64/mix.c"))
    where = run(place / "env/bin/python", "-c", "import tfedge; print(tfedge.__file__)", cwd=place)
    assert Path(where.stdout.strip()).is_relative_to(place)
    assert (place / "w" / "report.html").stat().st_size > 100_000
    assert len((place / "w" / "records.jsonl").read_text().splitlines()) >= 5


def imported():
    """Top-level names that the package imports."""
    for path in (ROOT / "tfedge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (a.name.partition(".")[0] for a in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.partition(".")[0]


def test_all_that_is_imported_is_asked_for():
    wanted = {re.split(r"[^\w.-]", r)[0].lower().replace("_", "-") for r in requires("tfedge")}
    homes = packages_distributions()
    for name in set(imported()) - set(sys.stdlib_module_names) - {"tfedge"}:
        found = {h.lower().replace("_", "-") for h in homes.get(name, [name])}
        assert found & wanted, f"{name} of {found} is not in setup.cfg"

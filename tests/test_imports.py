"""Who may import whom (ARCHITECTURE.md), who owns which library, and what `import tfedge` costs."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tfedge

ROOT = Path(tfedge.__file__).parent

DATA = "_version errors record schemes recipe specs spec_keys data data_files shell files".split()
DATA += "progress facts workdir fingerprint capture user_code".split()
KERAS = "_keras bridge heads scoring sources streams augment task task_readers train".split()
KERAS += "checkpoint fit_progress models datasets activations saving quantized".split()
# Package or module -> what it may import besides itself.
ALLOWED = {
    **dict.fromkeys(DATA, DATA),
    "tflite": DATA,
    "targets": [*DATA, "tflite"],
    "bench": [*DATA, "tflite", "targets"],
    "report": [*DATA, "tflite", "targets", "bench"],
    "graph": ["_keras", "errors"],
    "profile": ["graph", "_keras"],
    **dict.fromkeys(KERAS, [*DATA, *KERAS, "graph", "profile"]),
    **dict.fromkeys(("prune", "quant"), [*DATA, *KERAS, "graph", "profile"]),
    # A teacher may be a .tflite file.
    "distill": [*DATA, *KERAS, "graph", "profile", "tflite"],
    "lower": [*DATA, *KERAS, "graph", "tflite"],
}
TOP = {
    "accuracy",
    "api",
    "agreement",
    "calibration",
    "checkup",
    "conversion",
    "describe",
    "mixed",
    "stages",
    "stage_files",
    "start",
    "pipeline",
    "cli",
    "__init__",
}
# Top-level modules of the verbs may not know those above them.
ABOVE = {
    "calibration": {"api", "cli", "mixed", "pipeline", "stages", "stage_files", "start"},
    "conversion": {"api", "cli", "mixed", "pipeline", "stages", "stage_files", "start"},
    "api": {"pipeline", "stages", "stage_files", "start", "cli"},
    "accuracy": {"api", "cli", "pipeline", "stages", "stage_files", "start"},
    "checkup": {"api", "cli", "pipeline"},
    "describe": {"cli", "pipeline"},
    "mixed": {"cli", "pipeline", "stages", "stage_files", "start"},
}
OWNERS = {
    "tensorflow_model_optimization": {"quant._tfmot"},
    "ai_edge_litert": {"tflite.interpreter", "tflite.flatbuffer"},
    "subprocess": {"shell"},
    "yaml": {"recipe"},
    "scipy": {"mixed.solver"},
    "plotly": {"report.html", "report.plots"},
    "h5py": {"bridge.loading", "bridge.files"},
    "PIL": {"data_files"},
    "tflite_micro": {"targets.tflm.worker"},
    "ethosu": set(),
    "tensorflow": {"_keras", "lower"},
    "tf_keras": {"_keras", "bridge.operations"},
    "keras": {"_keras"},
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(p for p in parts if p != "__init__") or "__init__", path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "tfedge":
                yield from (f"tfedge.{a.name}" for a in node.names)
            else:
                yield node.module


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: str(v)[-40:])
def test_import_rules(name, path):
    top = name.split(".")[0]
    for imported in imports(path):
        if imported.startswith("tfedge."):
            other = imported.split(".")[1]
            if top in TOP:
                assert other not in ABOVE.get(top, set()), f"{name} imports {imported}"
            else:
                assert top in ALLOWED, f"'{top}' has no place in the import table"
                allowed = {*ALLOWED[top], top}
                assert other in allowed, f"{name} imports {imported}"
        library = imported.split(".")[0]
        if library == "absl":
            assert top == "cli"
        elif library in OWNERS:
            assert name in OWNERS[library], f"{name} imports {imported}"


def test_every_module_has_a_docstring_and_stays_short():
    for name, path in modules():
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), name
        assert text.count("\n") <= 450, f"{name} is long"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_tfedge_is_cheap():
    code = (
        "import time; t = time.perf_counter(); import tfedge; d = time.perf_counter() - t;"
        "import sys; print(d, 'tensorflow' in sys.modules, 'numpy' in sys.modules)"
    )
    times = []
    for _ in range(3):
        seconds, tensorflow, _ = run(code).stdout.split()
        assert tensorflow == "False"
        times.append(float(seconds))
    assert min(times) < 0.3


@pytest.mark.parametrize(
    "name",
    [
        "tflite",
        "targets",
        "bench",
        "report",
        "recipe",
        "data",
        "targets.host_worker",
        "targets.arm64.target",
        "targets.ethosu.target",
        "targets.tflm.worker",
        "targets.adb.target",
        "targets.ssh.target",
    ],
)
def test_the_device_side_needs_no_tensorflow(name):
    heavy = {"tensorflow", "tf_keras"}
    code = f"import sys, tfedge.{name}; print(sorted({heavy} & set(sys.modules)))"
    done = run(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names_are_pinned():
    assert sorted(tfedge.__all__) == [
        "__version__", "allocate", "benchmark", "bridge", "compress", "convert", "distill",
        "doctor", "errors", "graph", "inspect", "load_model", "prune", "quant", "verify",
        "verify_ops",
    ]  # fmt: skip
    assert {"PruneChannels", "shrink", "channel_groups"} <= set(tfedge.prune.__all__)
    assert "Distiller" in tfedge.distill.__all__
    assert "quantize_aware" in tfedge.quant.__all__


def test_no_module_hides_a_verb():
    verbs = [n for n in tfedge.__all__ if n in tfedge._VERBS]
    for found in pkgutil.walk_packages(tfedge.__path__, "tfedge."):
        importlib.import_module(found.name)
    for verb in verbs:
        assert callable(getattr(tfedge, verb)), f"tfedge.{verb} is a {type(getattr(tfedge, verb))}"


def test_tensorflow_starts_quietly():
    done = run("from tfedge._keras import keras, tf; keras.Sequential(); tf.constant(1.0) + 1")
    assert done.returncode == 0 and done.stderr.strip() == "" and done.stdout.strip() == ""


def test_the_users_keras_choice_is_left_alone():
    code = (
        "import os, tfedge.quant; import tensorflow as tf;"
        "print(os.environ.get('TF_USE_LEGACY_KERAS'), tf.keras.__name__.split('.')[0])"
    )
    done = run(code)
    assert done.stdout.split()[:2] == ["None", "keras"], done.stdout + done.stderr

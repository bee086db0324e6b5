"""What makes two runs the same: fingerprints of models, data and tasks for the resume."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.workdir import digest, file_digest


def model_fingerprint(model: Any) -> str:
    """SHA-256 of a model: of its files, or of its configuration and weights.

    Args:
        model: A path (file or SavedModel folder) or a tf_keras model.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            return digest({p.relative_to(path).as_posix(): file_digest(p) for p in files})
        return file_digest(path)
    value = hashlib.sha256()
    for layer in model.layers:
        value.update(f"{type(layer).__name__} {_config(layer)}".encode())
    for weight in model.get_weights():
        array = np.ascontiguousarray(weight)
        value.update(f"{array.dtype} {array.shape}".encode())
        value.update(array.tobytes())
    return value.hexdigest()


def _config(layer: Any) -> str:
    """The layer's configuration as text; its name alone where it has none (own layers)."""
    try:
        return repr(layer.get_config())
    except NotImplementedError:
        return str(layer.name)


def task_fingerprint(spec: Any, task: Any) -> str:
    """SHA-256 of what a task is: where it comes from, and a sample of what it holds.

    Files and folders count by path, size and time of change; a function by the source file that it
    stands in; every task also by the sizes of its parts and a few of its samples. Honest limit:
    data that a function reads from elsewhere is noticed only where those samples change.

    Args:
        spec: What the user gave: a spec text or a Task.
        task: The Task, bound to the model.
    """
    origin = _origin(spec) if isinstance(spec, str) else "object"
    samples = {
        name: [str(a.dtype), list(a.shape), hashlib.sha256(a.tobytes()).hexdigest()]
        for name, a in task.calibration(16).items()
    }
    return digest(
        {
            "origin": origin,
            "name": task.name,
            "kind": list(task.kind),
            "sizes": [task.train.size, task.test.size],
            "preprocessing": {k: repr(v) for k, v in dict(task.preprocessing).items()},
            "labels": list(task.labels),
            "samples": samples,
        }
    )


def _origin(spec: str) -> Any:
    path = Path(spec)
    if path.exists():
        files = [path] if path.is_file() else _walk(path)
        stats = [(p.as_posix(), s.st_size, s.st_mtime_ns) for p in files for s in [p.stat()]]
        return digest([list(s) for s in stats])
    module = spec.rpartition(":")[0]
    source = Path(module) if module.endswith(".py") else _module_file(module)
    return [spec, file_digest(source) if source and source.is_file() else ""]


def _walk(folder: Path) -> Iterable[Path]:
    return sorted(Path(root) / f for root, _, names in os.walk(folder) for f in names)


def _module_file(name: str) -> Path | None:
    """The source file of a module by its dotted name, or None."""
    if not name:
        return None
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file else None
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found is not None and found.origin else None

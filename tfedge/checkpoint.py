"""Epoch checkpoints: weights, optimizer, callbacks and history in one file, written atomically."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge._keras import keras
from tfedge.errors import InputError

FILE = "checkpoint.npz"


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds besides the arrays.

    Attributes:
        epoch: Epochs finished.
        history: Lists by metric name, one value per finished epoch.
        run: What the run was made of; a checkpoint continues only the same run.
    """

    epoch: int
    history: dict[str, list[float]]
    run: dict[str, Any]


def read(folder: Path, run: Mapping[str, Any]) -> Saved | None:
    """Reads what a folder's checkpoint says, or None where there is none.

    Args:
        folder: The checkpoint folder.
        run: What the run to continue is made of (JSON values).

    Raises:
        InputError: The file is damaged, or belongs to another run.
    """
    path = folder / FILE
    if not path.exists():
        return None
    with _open(path) as arrays:
        saved = Saved(**json.loads(str(arrays["about"])))
    wanted = json.loads(json.dumps(dict(run)))
    if saved.run != wanted:
        keys = [k for k in wanted if saved.run.get(k) != wanted[k]]
        found = ", ".join(f"{k} {saved.run.get(k)!r} there, {wanted[k]!r} here" for k in keys)
        raise InputError(
            f"the checkpoint '{path}' belongs to another run",
            found[:300],
            "Remove it to start anew",
        )
    return saved


def write(folder: Path, model: Any, callbacks: Sequence[Any], saved: Saved) -> None:
    """Writes the checkpoint beside the old one and then replaces it in one step.

    Args:
        folder: Made where it does not exist.
        model: A compiled model whose optimizer is built.
        callbacks: Those with `get_state() -> dict` (values: arrays or JSON) are kept.
        saved: Epoch, history and run.

    Raises:
        InputError: The file cannot be written (disk full, no permission); the old one stays.
    """
    arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(vars(saved)))}
    arrays.update({f"weight_{i}": w for i, w in enumerate(model.get_weights())})
    variables = _optimizer_variables(model)
    arrays.update({f"optimizer_{i}": np.asarray(v) for i, v in enumerate(variables)})
    for name, callback in _stateful(callbacks).items():
        state = dict(callback.get_state())
        plain = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
        arrays[f"state/{name}"] = np.array(json.dumps(plain))
        kept = {f"state/{name}/{k}": v for k, v in state.items() if k not in plain}
        arrays.update(kept)
    part = folder / f"{FILE}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / FILE)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError("the checkpoint cannot be written", f"'{part}': {error}") from error


def restore(folder: Path, model: Any, callbacks: Sequence[Any]) -> None:
    """Puts weights, optimizer and callbacks back as they were.

    Args:
        folder: Holds a checkpoint of this run.
        model: Compiled, with the same variables as when it was written.
        callbacks: In the same order; those with `set_state(dict)` get theirs back.

    Raises:
        InputError: The variables are not the same.
    """
    path = folder / FILE
    with _open(path) as arrays:
        weights = _numbered(arrays, "weight")
        held = [v.shape for v in model.weights]
        if [w.shape for w in weights] != [tuple(s) for s in held]:
            raise InputError(f"the checkpoint '{path}' is of another model", "", "Remove it")
        model.set_weights(weights)
        variables = _optimizer_variables(model)
        values = _numbered(arrays, "optimizer")
        if len(values) != len(variables):
            raise InputError(f"the checkpoint '{path}' is of another optimizer", "", "Remove it")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        for name, callback in _stateful(callbacks).items():
            key = f"state/{name}"
            if key not in arrays:
                continue
            state = json.loads(str(arrays[key]))
            prefix = f"{key}/"
            state.update({k[len(prefix) :]: arrays[k] for k in arrays if k.startswith(prefix)})
            callback.set_state(state)


def _open(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError("the checkpoint is damaged", f"'{path}'", "Remove it") from error


def _numbered(arrays: Any, prefix: str) -> list[np.ndarray]:
    count = sum(k.startswith(f"{prefix}_") for k in arrays)
    return [arrays[f"{prefix}_{i}"] for i in range(count)]


def _stateful(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Callbacks that can be kept, by place and class."""
    return {
        f"{i}_{type(c).__name__}": c
        for i, c in enumerate(callbacks)
        if hasattr(c, "get_state") and hasattr(c, "set_state")
    }


def _optimizer_variables(model: Any) -> list[Any]:
    """The optimizer's variables, made first where the first step has not made them yet."""
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.legacy.Optimizer):
        optimizer.iterations  # noqa: B018 - made on first access
        optimizer._create_all_weights(model.trainable_variables)
        return list(optimizer.variables())
    optimizer.build(model.trainable_variables)
    return list(optimizer.variables)

"""Saving Keras models: atomically, in the formats that load again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tfedge.errors import InputError
from tfedge.files import replacing

SUFFIXES = (".keras", ".h5")


def check_output(path: str | Path, *, quantized: bool = False) -> Path:
    """Checks, before any work, that a model can be saved under this path.

    Args:
        path: Where the model is to go.
        quantized: The model will be quantize-aware, which is kept as .h5.

    Returns:
        The path.

    Raises:
        InputError: Another suffix, or a folder that does not exist.
    """
    path = Path(path)
    allowed = (".h5",) if quantized else SUFFIXES
    if path.suffix not in allowed:
        what = "a quantize-aware model is saved as .h5" if quantized else "unknown model format"
        raise InputError(what, f"'{path.name}'", f"End the name in {' or '.join(allowed)}")
    if not path.parent.is_dir():
        raise InputError("the output's folder does not exist", str(path.parent), "Create it first")
    return path


def save_model(model: Any, path: str | Path, *, quantized: bool = False) -> None:
    """Saves a tf_keras model; an older file is replaced on success.

    An .h5 file leaves the optimizer out; a .keras file of a compiled model always holds it.

    Args:
        model: A tf_keras model.
        path: Ends in ".keras" or ".h5".
        quantized: The model is quantize-aware.

    Raises:
        InputError: As `check_output`.
        OSError: The file cannot be written (a full disk); an older one is left as it was.
    """
    path = check_output(path, quantized=quantized)
    with replacing(path) as new, warnings.catch_warnings():
        # .h5 is chosen on purpose: it is what the quantize-aware models and older tools take.
        warnings.filterwarnings("ignore", message=".*saving your model as an HDF5 file.*")
        extra = {"include_optimizer": False} if path.suffix == ".h5" else {}
        model.save(str(new), **extra)


def custom_objects_of(model: Any) -> dict[str, Any]:
    """Classes of a model's own layers by name, so that a saved copy of it loads again.

    Args:
        model: A tf_keras model.
    """
    found: dict[str, Any] = {}
    for layer in getattr(model, "layers", ()):
        root = type(layer).__module__.split(".")[0]
        if root not in ("tf_keras", "keras", "tensorflow_model_optimization", "tfedge"):
            found[type(layer).__name__] = type(layer)
        found |= custom_objects_of(layer)
    return found

"""Files of Keras 2, from 2.2.4 to today's tf_keras: HDF5 and the zipped `.keras` format."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfedge._keras import keras
from tfedge.bridge.configs import mended

_OLD_WEIGHTS = ("2.12", "2.13", "2.14")
_OLD_CONTAINER = "_layer_checkpoint_dependencies"


def load_h5(path: Path, custom: Mapping[str, Any]) -> Any:
    """Loads a whole-model HDF5 file, without its optimizer.

    Args:
        path: The file.
        custom: The user's objects by name.

    Returns:
        A tf_keras model.

    Raises:
        ModelError: A Lambda layer whose function is not among the custom objects.
    """
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs["model_config"]
    config = json.loads(text.decode() if isinstance(text, bytes) else text)
    config = mended(config, custom, named_functions=True)
    model = keras.models.model_from_config(config, custom_objects=dict(custom))
    model.load_weights(str(path))
    return model


def load_zip(path: Path, custom: Mapping[str, Any]) -> Any:
    """Loads a `.keras` file of TensorFlow 2.12 or later, without its optimizer.

    Args:
        path: The file.
        custom: The user's objects by name.

    Returns:
        A tf_keras model.

    Raises:
        ModelError: A Lambda layer whose function is not among the custom objects.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        known = "metadata.json" in archive.namelist()
        version = json.loads(archive.read("metadata.json"))["keras_version"] if known else ""
        today = mended(config, custom, named_functions=False)
        if today == config and not version.startswith(_OLD_WEIGHTS):
            return keras.models.load_model(str(path), compile=False)
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = json.dumps(today).encode()
    if "model.weights.h5" in parts:
        parts["model.weights.h5"] = _weights(parts["model.weights.h5"])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        with zipfile.ZipFile(copy, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
        return keras.models.load_model(str(copy), compile=False)


def _weights(data: bytes) -> bytes:
    """Weights with the group names that TensorFlow 2.15 brought."""
    import h5py

    with h5py.File(io.BytesIO(data), "r") as old:
        if _OLD_CONTAINER not in old:
            return data
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as new:
            _copy(old, new, numbered_from_two=_numbered_from_two(old))
    return buffer.getvalue()


def _numbered_from_two(file: Any) -> bool:
    """TensorFlow 2.12 and 2.13 called the second layer of a class x_2, later versions x_1."""
    names: list[str] = []
    file.visit(names.append)
    known = set(names)
    second = [n.removesuffix("_2") for n in names if n.endswith("_2")]
    return any(n in known and f"{n}_1" not in known for n in second)


def _copy(old: Any, new: Any, numbered_from_two: bool) -> None:
    """Copies a group with its subgroups renamed."""
    for key, value in old.attrs.items():
        new.attrs[key] = value
    container = old.name.endswith(_OLD_CONTAINER)
    for key in old:
        name = "layers" if key == _OLD_CONTAINER else key
        match = re.fullmatch(r"(.+)_(\d+)", key)
        if container and numbered_from_two and match and match[1] in old:
            name = f"{match[1]}_{int(match[2]) - 1}"
        if hasattr(old[key], "shape"):
            old.copy(key, new, name=name)
        else:
            _copy(old[key], new.create_group(name), numbered_from_two)

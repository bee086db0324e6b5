"""Loading: whatever a user calls "my model" -> a Keras model of its own flavour."""

from __future__ import annotations

import contextlib
import importlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfedge._keras import flavour, keras, keras3, library, tf
from tfedge.bridge.files import load_h5, load_zip
from tfedge.bridge.layers import application_layers, class_flavour
from tfedge.errors import InputError, ModelError

_HDF5 = b"\x89HDF\r\n\x1a\n"


class ServingModel:
    """A SavedModel without Keras layers: it can be converted, verified and measured, no more.

    Attributes:
        path: The SavedModel folder.
        name: The folder's name.
        function: The concrete function of the signature.
        inputs: tf.TensorSpec by input name.
        output_names: Output names in the signature's order.
        reason: Why there are no layers.
    """

    reason = "a SavedModel without Keras layers"

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        try:
            self._loaded = tf.saved_model.load(str(path))
        except (OSError, ValueError, KeyError) as e:
            raise InputError("this SavedModel cannot be loaded", f"{path}: {_first(e)}") from e
        signatures = dict(self._loaded.signatures)
        if not signatures:
            raise ModelError(
                "this SavedModel has no serving signature",
                str(path),
                "Save it with signatures, or with model.export()",
            )
        key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        self.function = signatures[key]
        self.inputs: dict[str, Any] = dict(self.function.structured_input_signature[1])
        self.output_names = list(self.function.structured_outputs)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the signature on tensors by input name."""
        feed = {k: tf.cast(inputs[k], spec.dtype) for k, spec in self.inputs.items()}
        return dict(self.function(**feed))


def _first(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def load_model(model: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Loads a model, or checks one that is loaded already.

    Args:
        model: A model of either Keras, or the path of an `.h5` or `.keras` file that either Keras
            wrote, or of a SavedModel folder.
        custom_objects: Layers and functions by the name that the file uses for them.

    Returns:
        A model of the flavour that it was given in; for a SavedModel without Keras layers a
        `ServingModel`, which can only be converted, verified and benchmarked.

    Raises:
        InputError: No such file, or a file that is not a model.
        ModelError: A layer that is not known.
    """
    if not isinstance(model, (str, Path)):
        return _check_object(model)
    path = Path(model)
    if not path.exists():
        raise InputError("there is no such model file", str(path), "Check the path")
    if path.is_dir():
        return _load_folder(path, custom_objects)
    if zipfile.is_zipfile(path):
        kind = _flavour_of_zip(path)
    elif path.read_bytes()[:8] == _HDF5:
        kind = _flavour_of_h5(path)
    else:
        raise InputError(
            "this file is not a Keras model",
            str(path),
            "Pass an .h5 file, a .keras file or a SavedModel folder",
        )
    return _load(path, custom_objects, kind)


def _check_object(model: Any) -> Any:
    if isinstance(model, ServingModel):
        return model
    kind = flavour(model)
    if kind is None or not isinstance(model, library(kind).Model):
        raise ModelError(
            "this is not a Keras model", type(model).__name__, "Pass a model or the path of one"
        )
    return model


def _flavour_of_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise InputError("this zip file is not a .keras model", str(path))
        config = json.loads(archive.read("config.json"))
        meta = {}
        if "metadata.json" in archive.namelist():
            meta = json.loads(archive.read("metadata.json"))
    if "keras_version" in meta:
        return "keras3" if str(meta["keras_version"]).startswith("3") else "tf_keras"
    return "keras3" if str(config.get("module", "")).startswith("keras.src.models") else "tf_keras"


def _flavour_of_h5(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as f:
            attributes = dict(f.attrs)
    except OSError as e:
        raise InputError("this HDF5 file cannot be read", f"{path}: {_first(e)}") from e
    if "model_config" not in attributes:
        raise InputError(
            "this HDF5 file holds weights but no model",
            str(path),
            "Save the whole model with model.save(), not save_weights()",
        )
    version = attributes.get("keras_version", "2")
    version = version.decode() if isinstance(version, bytes) else str(version)
    return "keras3" if version.startswith("3") else "tf_keras"


def _load_folder(path: Path, custom_objects: Mapping[str, Any] | None) -> Any:
    if not (path / "saved_model.pb").exists():
        raise InputError(
            "this folder is not a SavedModel", str(path), "It should hold a saved_model.pb"
        )
    if (path / "keras_metadata.pb").exists():
        return _load(path, custom_objects, "tf_keras")
    return ServingModel(path)


def _load(path: Path, custom_objects: Mapping[str, Any] | None, kind: str) -> Any:
    custom = dict(custom_objects or {})
    register(kind)
    try:
        with _scope(kind, custom):
            if kind == "tf_keras" and path.is_file():
                model = (load_zip if zipfile.is_zipfile(path) else load_h5)(path, custom)
            else:
                model = library(kind).models.load_model(str(path), compile=False)
    except (ValueError, TypeError, KeyError, OSError, AttributeError, NotImplementedError) as e:
        raise ModelError(
            "this model file cannot be loaded",
            f"{path}: {_first(e)}",
            "If it names a layer or function of yours, give that: custom_objects={NAME: ...}, or "
            "--code=FILE.py on the command line",
        ) from e
    if not hasattr(model, "layers"):
        return ServingModel(path)
    return model


def register_code(module: Any) -> list[str]:
    """Makes the layers, functions and other classes of a user's module known by their names.

    Args:
        module: An imported module; what it only imports itself is left out.

    Returns:
        The names. Classes are known to the Keras that they belong to, others to both.
    """
    names = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        own = class_flavour(value) if isinstance(value, type) else None
        for kind in ("tf_keras", "keras3") if own is None else (own,):
            library(kind).saving.get_custom_objects()[name] = value
        names.append(name)
    return names


def register(kind: str) -> None:
    """Makes this package's own layers and functions known to a Keras."""
    module = "native" if kind == "keras3" else "carried"
    importlib.import_module(f"tfedge.bridge.{module}")


@contextlib.contextmanager
def _scope(kind: str, custom: Mapping[str, Any]) -> Iterator[None]:
    """The user's objects by name; carried Keras 3 layers in a tf_keras file need them as well."""
    with contextlib.ExitStack() as stack:
        if kind == "tf_keras":  # which does not find the layers of its own applications again
            stack.enter_context(keras.utils.custom_object_scope(application_layers(kind)))
        stack.enter_context(library(kind).utils.custom_object_scope(dict(custom)))
        if custom and kind == "tf_keras":
            own = {k: v for k, v in custom.items() if _is_keras3(v)}
            if own:
                stack.enter_context(keras3().utils.custom_object_scope(own))
        yield


def _is_keras3(value: Any) -> bool:
    return isinstance(value, type) and class_flavour(value) == "keras3"


def holds_quantizers(path: Path) -> bool:
    """True for a model file with tfmot's wrappers, which needs `tfedge.quant.custom_objects`."""
    if path.is_dir() or not path.exists():
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return "config.json" in names and b"QuantizeWrapper" in archive.read("config.json")
    if path.read_bytes()[:8] != _HDF5:
        return False
    import h5py

    with h5py.File(path, "r") as f:
        config = f.attrs.get("model_config", "")
    return "QuantizeWrapper" in (config.decode() if isinstance(config, bytes) else str(config))

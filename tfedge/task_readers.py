"""Makes tasks from what a command line can name: a function, an npz file, an image folder."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.data_files import read_arrays
from tfedge.errors import InputError, TfedgeError, did_you_mean
from tfedge.sources import ArraySource, ImageSource
from tfedge.task import Task
from tfedge.user_code import import_code

TEST_SPLIT = 0.2
SEED = 0
# What tf.io.decode_image reads.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_MAGIC = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG")
_VALIDATION_FOLDERS = ("val", "valid", "validation")
_FORMS = "Give fashion_mnist, module:function, file.npz or a folder of images"


def read(spec: Any, model: Any = None) -> Task:
    """Makes the task, not yet bound to the model (see `tfedge.task.get_task`).

    Args:
        spec: As in `get_task`.
        model: Passed to functions that ask for it; tells whether images are scaled.

    Raises:
        InputError: The spec or its data cannot be used.
    """
    if isinstance(spec, Task):
        return spec
    if not isinstance(spec, (str, Path)):
        raise InputError("this names no task", f"a {type(spec).__name__}", _FORMS)
    form, path = _form(str(spec))
    if form == "folder":
        return _from_folder(path, model)
    if form == "npz":
        return _from_npz(path, model)
    if form == "function":
        return _as_task(*_from_function(str(spec), model))
    return TASKS[str(spec)]()


def read_test(spec: Any, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Task:
    """Makes a task to measure with: only its test part is needed, and `train` may be None.

    Args:
        spec: As in `get_task`; a test part may stand alone there. So an .npz may have x_test and
            y_test only, or x and y (or a name per input and output, with or without _test), which
            are then test samples all of them; a folder may be ROOT/test/CLASS, or ROOT/CLASS, all
            of which is tested on; a function may return (x, y), {"x": ..., "y": ...}, or a dict of
            fields without "train". What a function may return may also be given itself.
        inputs: Names of the file's inputs.
        outputs: Names of its outputs: labels under them are found in an .npz.

    Raises:
        InputError: The spec or its data cannot be used, or hold no test part.
    """
    if isinstance(spec, (Mapping, tuple, list)):
        return _as_test(spec, "the task holds", "task")
    if not isinstance(spec, (str, Path)):
        return read(spec)
    form, path = _form(str(spec))
    if form == "folder":
        return _test_of_folder(path)
    if form == "npz":
        return _test_of_npz(path, inputs, outputs)
    if form == "function":
        return _as_test(*_from_function(str(spec), None))
    return TASKS[str(spec)]()


def _form(text: str) -> tuple[str, Path]:
    """What a name stands for: "known", "folder", "npz" or "function"; and its path."""
    path = Path(text).expanduser()
    if text in TASKS:
        return "known", path
    if path.is_dir():
        return "folder", path
    if path.suffix.lower() == ".npz":
        return "npz", path
    if ":" in text:
        return "function", path
    if path.exists():
        raise InputError("this file is no task data", f"'{text}'", _FORMS)
    near = did_you_mean(text, TASKS)
    hint = f"{near} " if near.startswith("Did you mean") else ""
    raise InputError("unknown task", f"'{text}'", hint + _FORMS)


def fashion_mnist() -> Task:
    """Fashion-MNIST: 28x28 grey images of 10 kinds of clothing, scaled to [0, 1].

    Validation is the last 5,000 of the 60,000 training images; the 10,000 test images are reported
    on only. The reference model is ResNet-8. Training images are mirrored half of the time: over 8
    epochs that gave 92.8 % on the validation part, against 91.8 % with random shifts by up to 2
    pixels as well (Adam at 3e-3, batch 128, one seed), for which 8 epochs are too short.
    """
    from tfedge import datasets
    from tfedge.augment import shift_and_flip
    from tfedge.models import resnet8

    x_train, y_train, x_test, y_test = datasets.fashion_mnist()
    scale = 1 / 255
    train = ArraySource.of(x_train[..., None], y_train.astype(np.int64), scale=scale)
    held = 5_000
    return Task(
        train=dataclasses.replace(train, indices=train.indices[:-held]),
        validation=dataclasses.replace(train, indices=train.indices[-held:]),
        test=ArraySource.of(x_test[..., None], y_test.astype(np.int64), scale=scale),
        name="fashion_mnist",
        kind="sparse",
        labels=datasets.FASHION_LABELS,
        preprocessing={"scale": scale, "offset": 0.0},
        augment=shift_and_flip(0),
        build=resnet8,
    )


TASKS: dict[str, Callable[[], Task]] = {"fashion_mnist": fashion_mnist}


def _from_function(spec: str, model: Any) -> tuple[Any, str, str]:
    """What the function returns, who messages say returned it, and its name."""
    module_name, _, function_name = spec.rpartition(":")
    module = import_code(module_name, "the task's")
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        fix = did_you_mean(function_name, known) if known else "Define it there"
        raise InputError(f"'{module_name}' has no function '{function_name}'", "", fix)
    takes_model = "model" in inspect.signature(function).parameters
    try:
        result = function(model=model) if takes_model else function()
    except TfedgeError:
        raise
    except Exception as error:
        raise InputError(f"'{spec}' failed", f"{type(error).__name__}: {error}") from error
    return result, f"'{spec}' returned", function_name


def _as_task(result: Any, who: str, name: str) -> Task:
    """A Task of what a user's function returned."""
    if isinstance(result, Task):
        return result
    if isinstance(result, Mapping):
        return _of_fields(result, who, name, needed=("train", "test"))
    if isinstance(result, (tuple, list)) and len(result) in (2, 3):
        return Task(*result, name=name)
    raise InputError(
        f"{who} no task",
        f"a {type(result).__name__}",
        "Return a Task, a dict of its fields, or (train, test)",
    )


def _of_fields(result: Mapping[str, Any], who: str, name: str, *, needed: tuple[str, ...]) -> Task:
    fields = [f.name for f in dataclasses.fields(Task) if f.name != "heads"]
    for key in result:
        if key not in fields:
            fix = did_you_mean(str(key), fields)
            raise InputError(f"{who} an unknown field", f"'{key}'", fix)
    for key in needed:
        if key not in result:
            raise InputError(f"{who} no '{key}'", str(list(result)))
    return Task(**{"train": None, "name": name, **result})


def _as_test(result: Any, who: str, name: str) -> Task:
    """As `_as_task`, for what may be test samples only."""
    if isinstance(result, Mapping) and set(result) == {"x", "y"}:
        return Task(None, (result["x"], result["y"]), name=name)
    if isinstance(result, Mapping):
        return _of_fields(result, who, name, needed=("test",))
    pair = isinstance(result, (tuple, list)) and len(result) == 2
    # A part of a task is a pair itself, or a dataset; inputs are arrays.
    if pair and (isinstance(result[0], Mapping) or hasattr(result[0], "shape")):
        return Task(None, tuple(result), name=name)
    return _as_task(result, who, name)


def _npz_parts(path: Path) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """Arrays by part ("train", "test", "val", or "" without one) and key; names of the classes."""
    arrays = read_arrays(path)
    labels = tuple(map(str, arrays.pop("class_names", ())))
    parts: dict[str, dict[str, np.ndarray]] = {"train": {}, "test": {}, "val": {}, "": {}}
    for key, array in arrays.items():
        stem, _, suffix = key.rpartition("_")
        split = stem and suffix in parts and suffix != ""
        parts[suffix if split else ""][stem if split else key] = array
    return parts, labels


def _keys(parts: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    names = [f"{k}_{part}" if part else k for part, arrays in parts.items() for k in arrays]
    return f"the keys {', '.join(names) or 'nothing'}"


def _test_of_npz(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Task:
    parts, labels = _npz_parts(path)
    part = parts["test"] or ({} if parts["train"] or parts["val"] else parts[""])
    if not part:
        fix = "Give x_test and y_test, or x and y"
        raise InputError(f"'{path}' holds no test part", _keys(parts), fix)
    return Task(None, _npz_part(part, path, inputs, outputs), name=path.stem, labels=labels)


def _from_npz(path: Path, model: Any) -> Task:
    parts, labels = _npz_parts(path)
    inputs = tuple(getattr(model, "input_names", ()))
    outputs = tuple(getattr(model, "output_names", ()))
    outputs = outputs if len(outputs) > 1 else ()
    made = {k: _npz_part(v, path, inputs, outputs) for k, v in parts.items() if v}
    common: dict[str, Any] = {"name": path.stem, "labels": labels}
    if "train" in made and "test" in made:
        return Task(made["train"], made["test"], made.get("val"), **common)
    if "" in made and len(made) == 1:
        train, test = made[""].split(TEST_SPLIT, SEED)
        return Task(train, test, **common)
    raise InputError(
        f"'{path}' does not hold a task",
        _keys(parts),
        "Give x_train, y_train, x_test and y_test, or x and y",
    )


def _npz_part(
    arrays: dict[str, np.ndarray], path: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> ArraySource:
    """Inputs and labels of one part; labels are y, label, labels or the model's output names."""
    if outputs and all(o in arrays and o not in inputs for o in outputs):
        y: Any = {o: arrays[o] for o in outputs}
    else:
        key = next((k for k in ("y", "label", "labels") if k in arrays and k not in inputs), None)
        if key is None:
            keys = f"the keys {', '.join(arrays)}"
            raise InputError(f"'{path}' holds no labels", keys, "Add them as y_train, y_test or y")
        outputs, y = [key], arrays[key]
    return ArraySource.of({k: v for k, v in arrays.items() if k not in outputs}, y)


def _from_folder(root: Path, model: Any) -> Task:
    folders = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    scale = 1.0 if model is not None and _rescales(model) else 1 / 255
    common: dict[str, Any] = {
        "name": root.resolve().name,
        "preprocessing": {"scale": scale, "offset": 0.0},
    }
    if "train" not in folders:
        classes = _classes(root)
        train, test = _images(root, classes, scale).split(TEST_SPLIT, SEED)
        return Task(train, test, labels=classes, **common)
    held = next((folders[n] for n in _VALIDATION_FOLDERS if n in folders), None)
    classes = _classes(folders["train"])
    train = _images(folders["train"], classes, scale)
    validation = None if held is None else _images(held, classes, scale)
    if "test" in folders:
        test = _images(folders["test"], classes, scale)
    elif validation is not None:
        # One held-out folder is the part to report on; what to choose by comes out of train.
        test, validation = validation, None
    else:
        raise InputError("the folder holds no test part", f"'{root}'", "Add ROOT/test/CLASS")
    return Task(train, test, validation, labels=classes, **common)


def _test_of_folder(root: Path) -> Task:
    folders = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    held = [folders[n] for n in ("test", *_VALIDATION_FOLDERS) if n in folders]
    if "train" in folders and not held:
        raise InputError("the folder holds no test part", f"'{root}'", "Add ROOT/test/CLASS")
    part = held[0] if held else root
    classes = _classes(folders.get("train", part))
    scale = 1 / 255
    return Task(
        None,
        _images(part, classes, scale),
        name=root.resolve().name,
        labels=classes,
        preprocessing={"scale": scale, "offset": 0.0},
    )


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    if len(classes) < 2:
        found = ", ".join(classes) or "no folders"
        raise InputError(f"'{folder}' needs one folder per class", found)
    return classes


def _images(folder: Path, classes: tuple[str, ...], scale: float) -> ImageSource:
    """Lists the images of a part; files that are no images are refused by name."""
    files: list[Path] = []
    labels: list[int] = []
    for child in sorted(p for p in folder.iterdir() if p.is_dir()):
        if child.name not in classes:
            fix = did_you_mean(child.name, classes)
            raise InputError(f"'{folder}' holds a class that train lacks", f"'{child.name}'", fix)
        found = sorted(p for p in child.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        files += found
        labels += [classes.index(child.name)] * len(found)
    if not files:
        raise InputError("no images in this folder", f"'{folder}'", "Read are jpg, png, gif, bmp")
    for path in files:
        with path.open("rb") as file:
            if not file.read(8).startswith(_MAGIC):
                raise InputError("this file is no image", f"'{path}'", "Mend or remove it")
    return ImageSource(
        np.arange(len(files)), tuple(files), np.asarray(labels, np.int64), scale=scale
    )


def _rescales(model: Any) -> bool:
    """True where the model itself brings pixels 0..255 to its range."""
    layers = getattr(getattr(model, "student", model), "_flatten_layers", None)
    names = {"Rescaling", "Normalization"}
    return layers is not None and any(type(layer).__name__ in names for layer in layers())

"""A teacher's outputs on disk: written once, read in every epoch after that.

Outputs are found by the sample itself: the key is a 64-bit hash of the input's bytes, so a cache
serves any order of the data, any batch size and plain arrays as well, and a sample that it does not
hold (other data, an augmented one) is an error and never another sample's output.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfedge._keras import flavour, tf
from tfedge.distill.teacher import RecordedTeacher, Teacher
from tfedge.errors import InputError
from tfedge.fingerprint import model_fingerprint
from tfedge.heads import Head
from tfedge.progress import track
from tfedge.sources import ArraySource, model_inputs
from tfedge.streams import as_source
from tfedge.task import Task
from tfedge.tflite import TFLiteModel
from tfedge.workdir import digest

_ABOUT = "cache.json"
_SHOWN = 64


class TeacherCache(RecordedTeacher):
    """The outputs that a teacher gave for some data; it stands in for the teacher.

    ```python
    cache = TeacherCache.write("teacher/", student, teacher, task)
    distiller = Distiller(student, cache)
    ```
    The folder holds `keys.npy` (uint64 [samples], ascending), `rows.npy` (where each sample's
    outputs stand), `output_<i>.npy` ([samples, ...], in the dtype that the teacher gives) and
    `cache.json`. Outputs are read through memory maps.

    Augmented samples are other samples. Where an augmentation has few outcomes it can name them:
    a function `augment` of a `Task` with the attribute `views`, a tuple of functions of a batch
    that give all that it may give; all of them are cached then. Any other is refused.

    Args:
        folder: A folder that `write` made.

    Attributes:
        heads: The teacher's outputs, in the order of the student that it was written for.
        teacher: Fingerprint of the teacher.
        data: Fingerprint of the data.

    Raises:
        InputError: It is no cache, or not a whole one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            about = json.loads((self.folder / _ABOUT).read_text())
            self._keys = np.load(self.folder / "keys.npy")
            self._rows = np.load(self.folder / "rows.npy")
            self._outputs = [
                np.load(self.folder / f"output_{i}.npy", mmap_mode="r")
                for i in range(len(about["outputs"]))
            ]
            self.heads = tuple(
                Head(o["name"], (None, *o["shape"]), o["activation"]) for o in about["outputs"]
            )
            self.teacher, self.data = about["teacher"], about["data"]
            self._inputs = [(i["name"], i["dtype"]) for i in about["inputs"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "this folder is no teacher cache", f"'{folder}'",
                "Write one with TeacherCache.write or `tfedge distill --cache_teacher=FOLDER`",
            ) from error  # fmt: skip
        self._failure: InputError | None = None

    def __call__(self, x: Any) -> list[Any]:
        """The teacher's outputs for a batch.

        Args:
            x: A tensor, or a dict by the student's input names.

        Returns:
            Tensors [N, ...] in the order of `heads`.
        """
        kinds = [tf.as_dtype(o.dtype) for o in self._outputs]
        found = tf.numpy_function(self._lookup, _flat(x, self._inputs), kinds)
        values = tf.nest.flatten(found)  # one output comes bare
        for value, head in zip(values, self.heads, strict=True):
            value.set_shape(head.shape)
        return values

    def failure(self) -> InputError | None:
        """See `RecordedTeacher.failure`."""
        found, self._failure = self._failure, None
        return found

    def _lookup(self, *arrays: np.ndarray) -> list[np.ndarray]:
        keys = keys_of(arrays)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        missing = int((self._keys[places] != keys).sum())
        if missing:
            self._failure = InputError(
                "the teacher cache does not hold these samples",
                f"{missing} of {len(keys)} in a batch, cache '{self.folder}'",
                "Train on the very samples that it was written for, without augmentation",
            )
            raise self._failure
        rows = self._rows[places]
        return [np.asarray(o[rows]) for o in self._outputs]

    def check(self, student: Any, teacher: Any, data: Any = None) -> None:
        """Makes sure that the cache is of this teacher and of this data.

        Args:
            student: The model that learns.
            teacher: As in `write`.
            data: As in `write`; None leaves it out.

        Raises:
            InputError: It is another's.
        """
        if self.teacher != teacher_fingerprint(teacher):
            raise InputError(
                "the cache was written by another teacher", f"'{self.folder}'",
                "Remove the folder, or name another",
            )  # fmt: skip
        if data is not None and self.data != data_fingerprint(student, data):
            raise InputError(
                "the cache was written for other data", f"'{self.folder}'",
                "Remove the folder, or name another",
            )  # fmt: skip

    @classmethod
    def write(
        cls, folder: str | Path, student: Any, teacher: Any, data: Any, batch_size: int = 128
    ) -> TeacherCache:
        """Runs a teacher once over some data and keeps what it gives.

        Args:
            folder: Where to; it must not exist, or be empty. It appears when it is complete.
            student: The model that learns: it says what goes in and in which order outputs come.
            teacher: A Keras model, a path, a .tflite file; not a function, which cannot be told
                from another.
            data: A `Task` (its training part, with the views of its augmentation), an array or a
                dict of arrays by input name, or a finite tf.data.Dataset of (x, y).
            batch_size: Samples per pass. A row is bit for bit what the teacher gives in a batch
                of this size; another size may round otherwise in the last bit.

        Raises:
            InputError: The teacher does not fit the student; the augmentation has no views; there
                is something in the folder already.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise InputError("the folder of the cache is not empty", f"'{folder}'")
        about = {
            "teacher": teacher_fingerprint(teacher),
            "data": data_fingerprint(student, data),
            "inputs": [{"name": s.name, "dtype": s.dtype} for s in model_inputs(student)],
        }
        ready = Teacher(teacher, student)
        about["outputs"] = [
            {"name": h.name, "shape": list(h.shape[1:]), "activation": h.activation}
            for h in ready.heads
        ]
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _fill(part, ready, student, data, batch_size)
            (part / _ABOUT).write_text(json.dumps(about, indent=1) + "\n")
            part.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return cls(folder)

    @classmethod
    def ensure(
        cls, folder: str | Path, student: Any, teacher: Any, data: Any, batch_size: int = 128
    ) -> TeacherCache:
        """Opens the cache of a teacher and data, or writes it where there is none yet.

        Args:
            folder: See `write`.
            student: See `write`.
            teacher: See `write`.
            data: See `write`.
            batch_size: See `write`.

        Raises:
            InputError: As `write` and `check`.
        """
        if (Path(folder) / _ABOUT).exists():
            cache = cls(folder)
            cache.check(student, teacher, data)
            return cache
        return cls.write(folder, student, teacher, data, batch_size)


def _fill(folder: Path, teacher: Teacher, student: Any, data: Any, batch_size: int) -> None:
    """Writes keys, rows and outputs."""
    source, views = _source(student, data), _views(data)
    count = source.size * len(views)
    inputs = [(s.name, s.dtype) for s in model_inputs(student)]
    run = tf.function(teacher.__call__, reduce_retracing=True)
    keys, files, done = [], [], 0
    for batch in track(
        source.epoch(batch_size), "asking the teacher", -(-source.size // batch_size)
    ):
        for view in views:
            x = view(batch[0])
            outputs = [o.numpy() for o in run(x)]
            found = keys_of([t.numpy() for t in _flat(x, inputs)])
            if not files:
                files = [
                    np.lib.format.open_memmap(
                        folder / f"output_{i}.npy", "w+", o.dtype, (count, *o.shape[1:])
                    )
                    for i, o in enumerate(outputs)
                ]
            for file, output in zip(files, outputs, strict=True):
                file[done : done + len(output)] = output
            keys.append(found)
            done += len(found)
    if done != count:
        raise InputError("the data gave another number of samples than it says", f"{done}, {count}")
    unique, rows = np.unique(np.concatenate(keys), return_index=True)
    for file in files:
        file.flush()
    np.save(folder / "keys.npy", unique)
    np.save(folder / "rows.npy", rows)


def keys_of(arrays: Any) -> np.ndarray:
    """uint64 [N]: the hash of each sample over all inputs (BLAKE2b of the bytes)."""
    parts = [np.ascontiguousarray(a) for a in arrays]
    out = np.empty(len(parts[0]), np.uint64)
    for i in range(len(out)):
        value = hashlib.blake2b(digest_size=8)
        for part in parts:
            value.update(part[i].tobytes())
        out[i] = int.from_bytes(value.digest(), "little")
    return out


def _flat(x: Any, inputs: list[tuple[str, str]]) -> list[Any]:
    """The inputs in order, in the dtypes that the student takes."""
    parts = [x[n] for n, _ in inputs] if isinstance(x, Mapping) else tf.nest.flatten(x)
    return [tf.cast(p, dtype) for p, (_, dtype) in zip(parts, inputs, strict=True)]


def _source(student: Any, data: Any) -> Any:
    """The samples to ask the teacher for, bound to the student's inputs."""
    if isinstance(data, Task):
        return data.for_model(student).train
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        first = next(iter(data.values())) if isinstance(data, Mapping) else data
        source: Any = ArraySource.of(data, np.zeros(len(first), np.int64))
    else:
        source = as_source(data)
    return source.bind(model_inputs(student))


def _views(data: Any) -> tuple[Callable[[Any], Any], ...]:
    """What a sample may look like when it is trained on."""
    augment = data.augment if isinstance(data, Task) else None
    if augment is None:
        return (lambda x: x,)
    views = getattr(augment, "views", None)
    if not views:
        raise InputError(
            "a teacher cache cannot hold what this augmentation makes",
            f"task '{data.name}'",
            "Train without augmentation, or without a cache",
        )
    return tuple(views)


def data_fingerprint(student: Any, data: Any) -> str:
    """Hash of the number of samples, the views and the first samples' keys."""
    source = _source(student, data)
    inputs = [(s.name, s.dtype) for s in model_inputs(student)]
    first = next(iter(source.epoch(_SHOWN)))[0]
    keys = keys_of([t.numpy() for t in _flat(first, inputs)])
    return digest({"size": source.size, "views": len(_views(data)), "keys": keys.tolist()})


def teacher_fingerprint(teacher: Any) -> str:
    """Hash of a teacher: of its configuration and weights, or of its file.

    Raises:
        InputError: A function, which cannot be told from another.
    """
    if isinstance(teacher, TFLiteModel):
        return hashlib.sha256(teacher.data).hexdigest()
    if isinstance(teacher, (str, Path)) or flavour(teacher) is not None:
        return model_fingerprint(teacher)
    raise InputError(
        "this teacher cannot be cached: it cannot be told from another",
        f"a {type(teacher).__name__}",
        "Give a Keras model or a .tflite file",
    )

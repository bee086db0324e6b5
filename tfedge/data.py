"""Data by input name: arrays, dicts, iterables, tf.data, files -> checked batches.

No TensorFlow here: a `tf.data.Dataset` is recognised by what it can do (`as_numpy_iterator`), so
the same readers serve a device that holds only numpy and the runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import InputError, did_you_mean

LABEL_KEYS = ("y", "label", "labels", "y_train", "y_test")
UNNAMED_KEYS = ("x", "X", "data", "inputs", "arr_0", "x_train", "x_test")


@dataclass(frozen=True)
class InputSpec:
    """What one input of a model takes.

    Attributes:
        name: The input's name; the key in dicts and npz files.
        shape: Axes, the batch first; None is free. The size of axis 0 never restricts the data:
            the caller of `as_batches` chooses the batch.
        dtype: numpy name of the element type, for example "float32". Values are the model's own
            (real) values; quantizing them to a file's codes is the interpreter's work.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    @property
    def needs(self) -> str:
        """The shape as messages show it, for example "(N, 28, 28, 1)"."""
        rest = ["any" if d is None else str(d) for d in self.shape[1:]]
        return f"({', '.join(['N', *rest])}{',' if not rest else ''})"


def as_batches(
    data: Any,
    specs: Sequence[InputSpec],
    *,
    batch: int = 1,
    limit: int | None = None,
    role: str = "data",
) -> Iterator[dict[str, np.ndarray]]:
    """Yields checked batches by input name, holding no more than a batch and one element at a time.

    Args:
        data: One of: an array [N, ...] (one-input models); a dict of arrays by input name; a list
            or tuple of arrays, one per input; an iterable (or a function that returns one, as
            TFLite's representative datasets are) of samples or batches, each an array, a dict, a
            list of arrays or a tuple (x, y) or (x, y, weight); a tf.data.Dataset of such elements,
            batched or not; a string that `load` understands. Whether an element is a sample or a
            batch is read from its rank. Labels and weights are left out.
        specs: The model's inputs, in order.
        batch: Samples per batch; the last one may be smaller.
        limit: At most so many samples; None means all.
        role: What the messages call the data, for example "calibration data".

    Yields:
        Dicts of arrays [b, ...] of the specs' dtypes, 1 <= b <= batch.

    Raises:
        InputError: A bad `batch` or `limit`; data that is empty, infinite without a limit, of the
            wrong shape, names, or type, or that holds NaN or infinity. Raised when the first batch
            (or the offending one) is asked for. Shapes are never mended silently: a missing
            channel axis is an error.
    """
    if batch < 1:
        raise InputError("batch must be at least 1", str(batch))
    if limit is not None and limit < 1:
        raise InputError("limit must be at least 1", str(limit))
    if not specs:
        raise InputError("the model has no inputs to feed")
    return _batches(_Reader(tuple(specs), role), data, batch, limit)


def repeatable(data: Any) -> Any:
    """Data that can be read twice, where an iterator was given: its batches are kept."""
    if not isinstance(data, Iterator):
        return data
    kept = list(data)
    return lambda: iter(kept)


def stack(
    data: Any, specs: Sequence[InputSpec], *, limit: int | None = None, role: str = "data"
) -> dict[str, np.ndarray]:
    """Returns all samples (or the first `limit`) as one array [N, ...] per input.

    Args:
        data: As in `as_batches`.
        specs: The model's inputs, in order.
        limit: At most so many samples; None means all (all of it is held in memory).
        role: What the messages call the data.

    Raises:
        InputError: As `as_batches`; also samples whose free axes differ in size.
    """
    parts = list(as_batches(data, specs, batch=256, limit=limit, role=role))
    return {s.name: _join([p[s.name] for p in parts], s, role) for s in specs}


@dataclass(frozen=True)
class _Reader:
    """Turns elements into checked dicts of arrays [b, ...]."""

    specs: tuple[InputSpec, ...]
    role: str

    def chunks(self, data: Any) -> Iterator[dict[str, np.ndarray]]:
        """Yields dicts of arrays of any batch size, in the order of the data."""
        if isinstance(data, (str, Path)):
            data = load(str(data), self.specs)
        if callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__array__"):
            data = data()
        if hasattr(data, "as_numpy_iterator"):
            yield from map(self.element, data.as_numpy_iterator())
            return
        whole = self._whole(data)
        if whole is not None:
            yield self._checked(whole, whole=True)
        elif isinstance(data, Iterable):
            yield from map(self.element, data)
        else:
            raise InputError(f"{self.role} cannot be read", f"a {type(data).__name__}", _KINDS)

    def _whole(self, data: Any) -> dict[str, Any] | None:
        """The data as arrays by name where it is held as whole arrays, else None."""
        if isinstance(data, Mapping):
            return self._named(data)
        if hasattr(data, "__array__"):
            return self._single(data)
        if not isinstance(data, (list, tuple)) or not data:
            return None
        if isinstance(data, tuple) and len(data) in (2, 3) and self._holds_inputs(data[0]):
            return self._whole(data[0])
        return self._positional(data)

    def _holds_inputs(self, x: Any) -> bool:
        """True where `x` alone could feed the model, so that (x, y) is inputs and labels."""
        if len(self.specs) == 1:
            rank = len(self.specs[0].shape)
            return hasattr(x, "__array__") and np.ndim(x) == rank or isinstance(x, Mapping)
        return isinstance(x, (Mapping, list, tuple)) and len(x) == len(self.specs)

    def _positional(self, data: Sequence[Any]) -> dict[str, Any] | None:
        """A list of whole arrays, one per input; None where it is a list of elements."""
        if len(data) != len(self.specs):
            return None
        if not all(hasattr(a, "__array__") for a in data):
            return None
        if len(data) == 1 and np.ndim(data[0]) != len(self.specs[0].shape):
            return None
        return {s.name: a for s, a in zip(self.specs, data, strict=True)}

    def element(self, element: Any) -> dict[str, np.ndarray]:
        """One element of an iterable (a sample or a batch) as checked arrays [b, ...]."""
        if isinstance(element, tuple):
            element = self._without_labels(element)
        if isinstance(element, Mapping):
            arrays = self._named(element)
        elif len(self.specs) == 1:
            # TFLite's representative datasets yield [x] for a model of one input.
            listed = isinstance(element, (list, tuple)) and len(element) == 1
            one = listed and hasattr(element[0], "__array__")
            arrays = self._single(element[0] if one else element)
        elif isinstance(element, (list, tuple)) and len(element) == len(self.specs):
            arrays = {s.name: a for s, a in zip(self.specs, element, strict=True)}
        else:
            found = f"{len(element)} arrays" if isinstance(element, (list, tuple)) else "one array"
            raise self._count_error(found)
        return self._checked(arrays, whole=False)

    def _without_labels(self, element: tuple) -> Any:
        """The x of (x, y) or (x, y, weight); a tuple of one array per input stays."""
        first = element[0] if element else None
        if len(self.specs) == 1:
            return first if len(element) in (1, 2, 3) else element
        nested = isinstance(first, (Mapping, list, tuple))
        return first if nested and len(element) in (1, 2, 3) else element

    def _count_error(self, found: str) -> InputError:
        names = ", ".join(f"'{s.name}'" for s in self.specs)
        return InputError(
            f"{self.role} does not match the model's {len(self.specs)} inputs",
            found,
            f"Give a dict with the keys {names}, or one array per input in this order",
        )

    def _single(self, array: Any) -> dict[str, Any]:
        if len(self.specs) != 1:
            raise self._count_error("one array")
        return {self.specs[0].name: array}

    def _named(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Checks the keys of a dict; label keys may stand beside the inputs."""
        names = [s.name for s in self.specs]
        unknown = [k for k in arrays if k not in names and k not in LABEL_KEYS]
        missing = [n for n in names if n not in arrays]
        if unknown:
            fix = did_you_mean(str(unknown[0]), missing or names)
            raise InputError(f"{self.role} has an unknown input name", f"'{unknown[0]}'", fix)
        if missing:
            keys = ", ".join(f"'{k}'" for k in arrays) or "no keys"
            raise InputError(f"{self.role} lacks the input '{missing[0]}'", keys)
        return {n: arrays[n] for n in names}

    def _checked(self, arrays: Mapping[str, Any], *, whole: bool) -> dict[str, np.ndarray]:
        """Checks shapes and values; adds the batch axis to a sample of an iterable."""
        out: dict[str, np.ndarray] = {}
        for spec in self.specs:
            array = _as_array(arrays[spec.name], spec, self.role)
            if not whole and array.ndim == len(spec.shape) - 1:
                array = array[None]
            _check_shape(array, spec, self.role, np.shape(arrays[spec.name]))
            out[spec.name] = array
        sizes = {name: len(a) for name, a in out.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f"{self.role} has inputs of different lengths", str(sizes))
        return out


_KINDS = (
    "Give an array, a dict of arrays by input name, a list of one array per input, an iterable of "
    "samples or batches, or a tf.data.Dataset"
)


def _as_array(value: Any, spec: InputSpec, role: str) -> np.ndarray:
    """The value as a numeric array (numbers only: no strings, no objects, no ragged lists)."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(
            f"{role} for input '{spec.name}' is not one array", "lists of different lengths"
        ) from error
    if array.dtype.kind not in "biuf" and not _is_extended_float(array.dtype):
        raise InputError(
            f"{role} for input '{spec.name}' is not numeric",
            f"dtype {array.dtype}",
            f"Needs numbers of dtype {spec.dtype}",
        )
    return array


def _is_extended_float(dtype: np.dtype) -> bool:
    """True for bfloat16 and its like, which numpy files under kind 'V' with a name."""
    return dtype.kind == "V" and dtype.name.startswith(("bfloat", "float"))


def _check_shape(array: np.ndarray, spec: InputSpec, role: str, found: tuple[int, ...]) -> None:
    """Raises where the shape does not fit; the message names the likely repair."""
    if _fits(array.shape, spec):
        return
    fix = f"Needs {spec.needs}"
    if _fits((*array.shape, 1), spec):
        fix += ": add the channel axis, x[..., None]"
    elif _fits((1, *array.shape), spec):
        fix += ": add the batch axis, x[None]"
    elif array.ndim == 4 and _fits(tuple(array.shape[i] for i in (0, 2, 3, 1)), spec):
        fix += ": move the channels last, x.transpose(0, 2, 3, 1)"
    raise InputError(f"{role} has the wrong shape", f"{found} for input '{spec.name}'", fix)


def _fits(shape: tuple[int, ...], spec: InputSpec) -> bool:
    pairs = zip(shape[1:], spec.shape[1:], strict=False)
    return len(shape) == len(spec.shape) and all(w is None or w == h for h, w in pairs)


def _cast(array: np.ndarray, spec: InputSpec, role: str) -> np.ndarray:
    """Casts to the spec's dtype; refuses NaN, infinity and values that the cast would change."""
    values = array.astype(np.float32) if array.dtype.kind == "V" else array
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        kind = "NaN" if np.isnan(values).any() else "infinity"
        raise InputError(f"{role} holds {kind}", f"in input '{spec.name}'", "Clean the data first")
    wanted = np.dtype(spec.dtype)
    cast = array.astype(wanted, copy=False)
    if wanted.kind in "iu" and not np.array_equal(cast.astype(np.float64), array):
        raise InputError(
            f"{role} for input '{spec.name}' does not fit its dtype",
            f"values from {array.min()} to {array.max()} of dtype {array.dtype}",
            f"Needs whole numbers in the range of {spec.dtype}",
        )
    return cast


def _join(parts: list[np.ndarray], spec: InputSpec, role: str) -> np.ndarray:
    """Concatenates along the batch; the free axes must agree."""
    if len(parts) == 1:
        return parts[0]
    if len({p.shape[1:] for p in parts}) > 1:
        shapes = " and ".join(str(s) for s in sorted({p.shape[1:] for p in parts})[:2])
        raise InputError(
            f"{role} has samples of different shapes in one batch",
            f"{shapes} for input '{spec.name}'",
            "Use batch=1, or pad the samples to one shape",
        )
    return np.concatenate(parts)


def _batches(
    reader: _Reader, data: Any, batch: int, limit: int | None
) -> Iterator[dict[str, np.ndarray]]:
    """Regroups chunks of any size to `batch` samples, streaming."""
    if limit is None and _is_infinite(data):
        raise InputError(f"{reader.role} never ends", "a repeated tf.data.Dataset", "Set a limit")
    left = float("inf") if limit is None else limit
    held: list[dict[str, np.ndarray]] = []
    count, empty = 0, True
    for chunk in reader.chunks(data):
        size = len(next(iter(chunk.values())))
        start = 0
        while start < size and left > 0:
            take = int(min(batch - count, size - start, left))
            held.append({k: v[start : start + take] for k, v in chunk.items()})
            start, count, left, empty = start + take, count + take, left - take, False
            if count == batch:
                yield _collect(reader, held)
                held, count = [], 0
        if left <= 0:
            break
    if held:
        yield _collect(reader, held)
    if empty:
        raise InputError(f"{reader.role} is empty", "no samples")


def _collect(reader: _Reader, held: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        s.name: _cast(_join([h[s.name] for h in held], s, reader.role), s, reader.role)
        for s in reader.specs
    }


def _is_infinite(data: Any) -> bool:
    """True for a tf.data.Dataset that says it repeats for ever (cardinality -1)."""
    cardinality = getattr(data, "cardinality", None)
    return callable(cardinality) and hasattr(data, "element_spec") and int(cardinality()) == -1


def load(
    spec: str,
    specs: Sequence[InputSpec],
    *,
    seed: int = 0,
    scale: float | None = None,
    offset: float = 0.0,
) -> Any:
    """Reads data named on a command line.

    Args:
        spec: "file.npz" (keys are input names; a single array under any of `UNNAMED_KEYS` serves a
            one-input model; label keys are left out), "file.npy", a folder of images (searched
            recursively, in a seeded order, so that a limited part holds all classes; needs Pillow),
            or "random:N" (N samples; floats uniform in [0, 1), uint8 and int8 over their range,
            other integers and booleans 0 or 1). Random data exercises a file; ranges calibrated on
            it are not worth much.
        specs: The model's inputs, in order.
        seed: Seed of "random:N" and of the order of images.
        scale: Images become pixel * scale + offset. None means 1/255 for float inputs and 1 for
            integer ones.
        offset: See `scale`.

    Returns:
        A dict of arrays by input name, or for a folder a re-iterable of samples by input name.

    Raises:
        InputError: The file is missing, is not an npz, holds pickled objects or the wrong keys;
            the folder has no images; N is no whole number; Pillow is not installed.
    """
    from tfedge.data_files import ImageFolder, named_arrays, random_arrays, read_arrays

    if spec.startswith("random:"):
        return random_arrays(spec, specs, seed)
    path = Path(spec).expanduser()
    if path.is_dir():
        return ImageFolder.open(path, specs, seed=seed, scale=scale, offset=offset)
    if path.suffix.lower() in (".npz", ".npy"):
        return named_arrays(path, read_arrays(path), specs)
    if path.exists():
        raise InputError("this data file cannot be read", f"'{spec}'", _FILES)
    raise InputError("the data was not found", f"'{spec}'", _FILES)


_FILES = "Give an .npz or .npy file, a folder of images, or random:N"

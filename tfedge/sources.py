"""Where a task's samples come from: arrays and image files (streams.py adds tf.data).

A source gives finite epochs of batches (inputs, labels) in an order that a key decides, can hold
out a part of itself, and can be bound to the inputs of a model.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.data import InputSpec, as_batches
from tfedge.errors import InputError, ModelError
from tfedge.graph.trace import dtype_name, functional_of, input_names


def model_inputs(model: Any) -> tuple[InputSpec, ...]:
    """The inputs of a built model of either Keras (of its student, for a Distiller).

    Raises:
        ModelError: The model has no symbolic inputs (subclassed, or a Sequential never built).
    """
    model = getattr(model, "student", model)
    if not getattr(model, "inputs", None):
        raise ModelError(
            "the model's inputs are not known",
            f"a {type(model).__name__} without symbolic inputs",
            "Use a functional model, or a Sequential with an input shape",
        )
    names = input_names(functional_of(model))
    return tuple(
        InputSpec(str(name), tuple(tensor.shape), dtype_name(tensor))
        for name, tensor in zip(names, model.inputs, strict=True)
    )


class Source(ABC):
    """Samples with labels. `size` is their number."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of samples."""

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs; one input may be unnamed and is then called "input"."""

    @abstractmethod
    def epoch(self, batch_size: int, key: Any = None) -> Any:
        """One epoch of batches.

        Args:
            batch_size: Samples per batch; the last may be smaller.
            key: int64 scalar tensor that decides the order; None keeps the order of the data.

        Returns:
            A tf.data.Dataset of (x, y): x is a tensor [b, ...] for one input, else a dict by name.
        """

    @abstractmethod
    def split(self, fraction: float, seed: int) -> tuple[Source, Source]:
        """Parts the samples in (rest, held out); about `fraction` of them are held out."""

    @abstractmethod
    def bind(self, specs: Sequence[InputSpec]) -> Source:
        """Checks the samples against a model's inputs and takes over the inputs' names.

        Raises:
            InputError: Wrong shapes, names or number of inputs.
        """

    @abstractmethod
    def sample_labels(self, n: int = 512) -> Any:
        """Labels of up to `n` samples, structured as the labels are."""

    def arrays(self, limit: int | None = None, key: int | None = None) -> tuple[dict, Any]:
        """Reads samples into memory.

        Args:
            limit: At most so many; None means all.
            key: Order of the samples; None keeps that of the data.

        Returns:
            (inputs by name, labels), numpy arrays with as many rows as samples.
        """
        order = None if key is None else tf.constant(key, tf.int64)
        size = min(256, limit or 256)
        batches = self.epoch(size, order).take(-1 if limit is None else -(-limit // size))
        parts = [batch[:2] for batch in batches.as_numpy_iterator()]
        if not parts:
            raise InputError("the data is empty", "no samples")
        x, y = tf.nest.map_structure(lambda *a: np.concatenate(a)[:limit], *parts)
        return (x if isinstance(x, dict) else {self.input_names[0]: x}), y


@dataclass(frozen=True, eq=False)
class Indexed(Source):
    """Samples that can be read by number: an order is a permutation of the numbers."""

    indices: np.ndarray

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def epoch(self, batch_size: int, key: Any = None) -> Any:
        """See `Source.epoch`."""
        order = tf.constant(self.indices, tf.int64)
        if key is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed=tf.stack([key, 7]))
        return self._read(tf.data.Dataset.from_tensor_slices(order), batch_size)

    @abstractmethod
    def _read(self, numbers: Any, batch_size: int) -> Any:
        """Dataset of sample numbers -> dataset of batches."""

    def split(self, fraction: float, seed: int) -> tuple[Source, Source]:
        """See `Source.split`; drawn at random by the seed, at least one sample on either side."""
        if self.size < 2:
            raise InputError(
                "too few samples to hold some out", str(self.size), "Give `validation` and `test`"
            )
        shuffled = np.random.default_rng(seed).permutation(self.indices)
        held = min(self.size - 1, max(1, round(self.size * fraction)))
        rest, out = np.sort(shuffled[held:]), np.sort(shuffled[:held])
        return dataclasses.replace(self, indices=rest), dataclasses.replace(self, indices=out)


@dataclass(frozen=True, eq=False)
class ArraySource(Indexed):
    """Arrays in memory; values are x * scale + offset where a scale is given.

    Attributes:
        indices: Numbers of the samples that belong to this source.
        x: Inputs by name, [N, ...].
        y: Labels: an array, or a dict or tuple of arrays for several outputs.
        scale: None leaves the values as they are.
        offset: Added after scaling.
    """

    x: dict[str, np.ndarray]
    y: Any
    scale: float | None = None
    offset: float = 0.0
    # Shared by the parts that `split` makes, so that the data is held once.
    _held: dict[int, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, x: Any, y: Any, *, scale: float | None = None, offset: float = 0.0) -> ArraySource:
        """Makes a source from arrays.

        Args:
            x: An array [N, ...], or a dict of arrays by input name.
            y: Labels [N, ...], or a dict, list or tuple of them, one per output.
            scale: Values are x * scale + offset, float32; None leaves them as they are.
            offset: See `scale`.

        Raises:
            InputError: No samples, or different numbers of them.
        """
        named = dict(x) if isinstance(x, Mapping) else {"input": x}
        named = {str(k): np.asarray(v) for k, v in named.items()}
        if isinstance(y, list) and y and getattr(y[0], "ndim", 0) > 0:
            y = tuple(y)
        if not isinstance(y, (Mapping, tuple)):
            y = np.asarray(y)
        y = tf.nest.map_structure(np.asarray, y)
        lengths = {len(a) if a.ndim else 0 for a in (*named.values(), *tf.nest.flatten(y))}
        if len(lengths) != 1:
            raise InputError("inputs and labels differ in number", str(sorted(lengths)))
        (count,) = lengths
        if not count:
            raise InputError("the data is empty", "no samples")
        return cls(np.arange(count), named, y, scale, offset)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self.x)

    def _tensor(self, array: np.ndarray) -> Any:
        if id(array) not in self._held:
            # Gathered on the host, where the input pipeline runs.
            with tf.init_scope(), tf.device("CPU:0"):
                as_given = array.dtype != np.float64
                self._held[id(array)] = tf.constant(array if as_given else array.astype("float32"))
        return self._held[id(array)]

    def _read(self, numbers: Any, batch_size: int) -> Any:
        x, y = tf.nest.map_structure(self._tensor, (self.x, self.y))
        scale, offset = self.scale, self.offset

        def read(index: Any) -> tuple:
            inputs = {k: tf.gather(v, index) for k, v in x.items()}
            if scale is not None:
                inputs = {k: tf.cast(v, tf.float32) * scale + offset for k, v in inputs.items()}
            labels = tf.nest.map_structure(lambda a: tf.gather(a, index), y)
            return (inputs if len(inputs) > 1 else next(iter(inputs.values()))), labels

        return numbers.batch(batch_size).map(read, num_parallel_calls=tf.data.AUTOTUNE)

    def bind(self, specs: Sequence[InputSpec]) -> Source:
        """See `Source.bind`."""
        x = self.x
        if len(specs) == len(x) == 1:
            x = {specs[0].name: next(iter(x.values()))}
        # One batch is enough for shapes and names; NaN is looked for in all of it.
        next(as_batches({k: v[:1] for k, v in x.items()}, specs, role="the task's data"))
        for name, values in x.items():
            if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
                raise InputError("the task's data holds NaN or infinity", f"in input '{name}'")
        return dataclasses.replace(self, x={s.name: x[s.name] for s in specs})

    def sample_labels(self, n: int = 512) -> Any:
        """See `Source.sample_labels`; all labels, for they are in memory anyway."""
        return tf.nest.map_structure(lambda a: a[self.indices], self.y)


@dataclass(frozen=True, eq=False)
class ImageSource(Indexed):
    """Image files with class numbers, decoded as they are needed.

    Attributes:
        indices: Numbers of the samples that belong to this source.
        files: All files.
        y: Class number of each file, int64 [N].
        spec: The model's input [N, H, W, C]; None until `bind`.
        scale: Values are pixel * scale + offset.
        offset: See `scale`.
    """

    files: tuple[Path, ...]
    y: np.ndarray
    spec: InputSpec | None = None
    scale: float = 1 / 255
    offset: float = 0.0

    @property
    def input_names(self) -> tuple[str, ...]:
        """The name of the one input."""
        return (self.spec.name if self.spec else "input",)

    def _read(self, numbers: Any, batch_size: int) -> Any:
        if self.spec is None:
            raise InputError(
                "the size of the images is not known", "", "Bind the task to a model: for_model()"
            )
        height, width, channels = self.spec.shape[1:]
        files, labels = tf.constant([str(f) for f in self.files]), tf.constant(self.y)

        def read(index: Any) -> tuple:
            image = tf.io.decode_image(
                tf.io.read_file(files[index]), channels=channels, expand_animations=False
            )
            image = tf.image.resize(image, (height, width), antialias=True)
            image.set_shape((height, width, channels))
            return image * self.scale + self.offset, labels[index]

        read_all = numbers.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        return read_all.batch(batch_size)

    def bind(self, specs: Sequence[InputSpec]) -> Source:
        """See `Source.bind`; the input's height, width and channels decide the decoding."""
        shape = specs[0].shape
        if len(specs) != 1 or len(shape) != 4 or None in shape[1:] or shape[3] not in (1, 3):
            raise InputError(
                "a folder of images feeds one input of fixed size with 1 or 3 channels",
                ", ".join(f"'{s.name}' {s.needs}" for s in specs),
            )
        return dataclasses.replace(self, spec=specs[0])

    def sample_labels(self, n: int = 512) -> Any:
        """See `Source.sample_labels`."""
        return self.y[self.indices]

    def first_unreadable(self) -> Path | None:
        """The first file that does not decode, or None; reads every file."""
        for index in self.indices:
            try:
                tf.io.decode_image(self.files[index].read_bytes(), expand_animations=False)
            except (tf.errors.InvalidArgumentError, OSError):
                return self.files[index]
        return None

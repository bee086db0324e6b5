"""tf.data.Dataset as a source of samples: counted, split and shuffled without holding it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.data import InputSpec
from tfedge.errors import InputError, did_you_mean
from tfedge.sources import ArraySource, Source

# A stream's shuffle buffer takes at most this much memory.
SHUFFLE_BYTES = 256 * 2**20
SHUFFLE_SAMPLES = 10_000
HASH_BUCKETS = 1000
_SET_SHAPE = "Set it in the dataset: tensor.set_shape(...)"


@dataclass(frozen=True, eq=False)
class StreamSource(Source):
    """A tf.data.Dataset of (x, y) or (x, y, weight), batched or not.

    Held-out parts are told by a hash of the sample's bytes, so they stay apart whatever the order
    of the dataset, and equal samples lie on one side. A dataset that augments at random changes the
    bytes: give such tasks their own `validation` and `test`. It is shuffled through a buffer of at
    most `SHUFFLE_BYTES`; one that shuffles itself does so on top, and then runs do not repeat.

    Attributes:
        dataset: The dataset, finite.
        names: Input names after `bind`.
        buckets: Hash buckets of this part, from the first to below the last, of `HASH_BUCKETS`.
        batched: Whether its elements are batches; read from the model by `bind`.
    """

    dataset: Any
    names: tuple[str, ...] = ()
    buckets: tuple[int, int] = (0, HASH_BUCKETS)
    batched: bool | None = None
    _count: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.names or ("input",)

    @property
    def size(self) -> int:
        """Number of samples; counted by reading once where the dataset does not know."""
        if "size" not in self._count:
            samples = self._samples()
            known = int(samples.cardinality())
            if known < 0:
                known = int(samples.reduce(np.int64(0), lambda n, *_: n + 1))
            self._count["size"] = known
        return self._count["size"]

    def _samples(self) -> Any:
        """Single samples of this part, (x, y, ...)."""
        if self.batched is None:
            raise InputError(
                "whether the dataset is batched is not known",
                "",
                "Bind the task to a model: for_model()",
            )
        samples = self.dataset.unbatch() if self.batched else self.dataset
        if self.buckets == (0, HASH_BUCKETS):
            return samples
        first, last = self.buckets
        return samples.filter(lambda *element: _in_buckets(element, first, last))

    def epoch(self, batch_size: int, key: Any = None) -> Any:
        """See `Source.epoch`."""
        samples = self._samples().map(self._named)
        if key is None:
            return samples.batch(batch_size)

        def shuffled(number: Any) -> Any:
            # TensorFlow's global seed would take part in the order, and a resumed run has another.
            graph = tf.compat.v1.get_default_graph()
            before, graph.seed = graph.seed, None
            try:
                return samples.shuffle(
                    self._buffer(samples), seed=number, reshuffle_each_iteration=False
                )
            finally:
                graph.seed = before

        return tf.data.Dataset.from_tensors(key).flat_map(shuffled).batch(batch_size)

    def _buffer(self, samples: Any) -> int:
        specs = tf.nest.flatten(samples.element_spec)
        sizes = [(s.shape.num_elements() or 4096) * s.dtype.size for s in specs]
        return max(64, min(SHUFFLE_SAMPLES, SHUFFLE_BYTES // max(1, sum(sizes))))

    def _named(self, x: Any, *rest: Any) -> tuple:
        if len(self.names) > 1 and not isinstance(x, Mapping):
            x = dict(zip(self.names, x, strict=True))
        elif len(self.names) == 1 and isinstance(x, Mapping):
            x = next(iter(x.values()))
        elif len(self.names) == 1 and isinstance(x, (tuple, list)):
            x = x[0]
        return (x, *rest)

    def split(self, fraction: float, seed: int) -> tuple[Source, Source]:
        """See `Source.split`; the seed does not matter, the hash decides."""
        first, last = self.buckets
        cut = first + min(last - first - 1, max(1, round((last - first) * fraction)))
        rest, held = (cut, last), (first, cut)
        return (
            dataclasses.replace(self, buckets=rest, _count={}),
            dataclasses.replace(self, buckets=held, _count={}),
        )

    def bind(self, specs: Sequence[InputSpec]) -> Source:
        """See `Source.bind`."""
        element = self.dataset.element_spec
        if not isinstance(element, tuple) or len(element) not in (2, 3):
            raise InputError("the dataset must yield (x, y)", f"elements of {element}")
        if int(self.dataset.cardinality()) == -1:
            raise InputError("the dataset never ends", "repeat()", "Give one pass over the data")
        given = _by_name(element[0], specs)
        batched = {_batched(given[s.name], s) for s in specs}
        if len(batched) != 1:
            raise InputError("some inputs of the dataset are batched and some are not", str(given))
        names = tuple(s.name for s in specs)
        return dataclasses.replace(self, names=names, batched=batched.pop(), _count={})

    def sample_labels(self, n: int = 512) -> Any:
        """See `Source.sample_labels`."""
        parts = [e[1] for e in self._samples().take(n).batch(n).as_numpy_iterator()]
        if not parts:
            raise InputError("the dataset is empty", "no samples")
        return parts[0]


def _in_buckets(element: tuple, first: int, last: int) -> Any:
    parts = [tf.io.serialize_tensor(t) for t in tf.nest.flatten(element)]
    bucket = tf.strings.to_hash_bucket_fast(tf.strings.join(parts), HASH_BUCKETS)
    return tf.logical_and(bucket >= first, bucket < last)


def _by_name(x: Any, specs: Sequence[InputSpec]) -> dict[str, Any]:
    """Tensor specs of a dataset's inputs by the model's input names."""
    if isinstance(x, Mapping):
        names = [s.name for s in specs]
        if len(x) == len(specs) == 1:
            return {names[0]: next(iter(x.values()))}
        missing = [n for n in names if n not in x]
        if missing:
            fix = did_you_mean(missing[0], x)
            raise InputError(f"the dataset lacks the input '{missing[0]}'", str(list(x)), fix)
        return {n: x[n] for n in names}
    parts = list(x) if isinstance(x, (tuple, list)) else [x]
    if len(parts) != len(specs):
        raise InputError(f"the model has {len(specs)} inputs", f"a dataset of {len(parts)}")
    return {s.name: p for s, p in zip(specs, parts, strict=True)}


def _batched(tensor: Any, spec: InputSpec) -> bool:
    """Whether a dataset's tensor is a batch of the input; raises where it is neither."""
    if tensor.shape.rank is None:
        raise InputError("the dataset's shapes are not known", f"input '{spec.name}'", _SET_SHAPE)
    shape = tuple(tensor.shape.as_list())
    for batched in (True, False):
        pairs = list(zip(shape[1:] if batched else shape, spec.shape[1:], strict=False))
        fits = all(w is None or h is None or w == h for h, w in pairs)
        if fits and len(shape) == len(spec.shape) - (not batched):
            return batched
    found = f"{shape} for input '{spec.name}'"
    raise InputError("the dataset has the wrong shape", found, f"Needs {spec.needs}")


def as_source(data: Any) -> Source:
    """Makes a source of what a user gave.

    Args:
        data: A Source, a tf.data.Dataset, or a pair (x, y): x an array or a dict of arrays.

    Raises:
        InputError: Anything else.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, tf.data.Dataset):
        return StreamSource(data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return ArraySource.of(*data)
    raise InputError(
        "this is no data that a task can read",
        f"a {type(data).__name__}",
        "Give a pair (x, y) of arrays or a tf.data.Dataset of (x, y)",
    )

"""A file's inputs and outputs, and how any number of samples is run through them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfedge.errors import ConversionError, InputError, did_you_mean
from tfedge.tflite import flatbuffer
from tfedge.tflite.tensors import TensorSpec, dequantize, quantize

Inputs = Any
"""An array (one input), a dict of arrays by input name, or a list of arrays in the file's order."""


class Ends:
    """What can be run from its inputs to its outputs: subclasses say how, in `run`.

    Attributes:
        inputs: The file's inputs, in its order.
        outputs: The file's outputs, in its order.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batch(self) -> int:
        """Samples of one run: the leading axis of the file's inputs."""
        return next((s.shape[0] for s in self.inputs if s.shape), 1)

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Runs the file once on elements exactly as it stores them; outputs by name."""
        raise NotImplementedError

    def run_each(self, pieces: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """`run` on each of several inputs of the file's own batch."""
        return (self.run(piece) for piece in pieces)

    def run_all(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """As `run`, for any number of samples: splits them into the file's batch.

        Args:
            inputs: Arrays [N, ...] of the inputs' own dtypes, N the same for all and at least 1.

        Returns:
            Outputs [N, ...] by name, of the file's own dtypes. The last batch is filled up with
            its last sample, and the filling is cut off again.

        Raises:
            InputError: As `run`; or an input or output without a batch axis.
            ConversionError: An op fails.
        """
        named = self.named(inputs)
        count, batch = self._count(named), self.batch
        parts: dict[str, list[np.ndarray]] = {s.name: [] for s in self.outputs}
        starts = range(0, count, batch)
        pieces = ({k: filled(v[s : s + batch], batch) for k, v in named.items()} for s in starts)
        for start, outputs in zip(starts, self.run_each(pieces), strict=True):
            real = min(batch, count - start)
            for name, value in outputs.items():
                parts[name].append(_unfilled(name, value, real, batch))
        return {name: np.concatenate(values) for name, values in parts.items()}

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Real values in, real values out, for any number of samples.

        Args:
            inputs: Arrays [N, ...] of real values (the Keras model's own), whatever the file
                stores: they are quantized as its inputs need, and saturate beyond their range.

        Returns:
            Outputs [N, ...] by name: float32, dequantized; integers that are no codes stay.

        Raises:
            InputError: A name or shape that does not fit, NaN, or a value that a plain integer
                input cannot hold.
            ConversionError: An op fails.
        """
        named = self.named(inputs)
        stored = self.run_all({s.name: quantize(named[s.name], s) for s in self.inputs})
        return {s.name: dequantize(stored[s.name], s) for s in self.outputs}

    def named(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Sorts inputs by name; shapes and dtypes are not looked at.

        Args:
            inputs: An array (one-input files), a dict by input name, or a list in order.

        Raises:
            InputError: A name that the file does not have, or an input that is missing.
        """
        names = [s.name for s in self.inputs]
        if isinstance(inputs, Mapping):
            for key in inputs:
                if key not in names:
                    raise InputError(
                        "the file has no such input", f"'{key}'", did_you_mean(str(key), names)
                    )
            given = {str(k): np.asarray(v) for k, v in inputs.items()}
        elif isinstance(inputs, (list, tuple)) and self._is_list_of_arrays(inputs):
            given = dict(zip(names, map(np.asarray, inputs), strict=False))
            if len(inputs) > len(names):
                raise InputError("too many inputs", f"{len(inputs)} for {names}")
        else:
            given = {names[0]: np.asarray(inputs)} if names else {}
        missing = [n for n in names if n not in given]
        if missing:
            raise InputError("an input is missing", ", ".join(f"'{n}'" for n in missing))
        return given

    def _is_list_of_arrays(self, inputs: Sequence[Any]) -> bool:
        """Tells [x] and [a, b] from one input's samples given as nested lists."""
        if len(self.inputs) > 1:
            return True
        rank = len(self.inputs[0].shape) if self.inputs else 0
        return len(inputs) == 1 and np.ndim(inputs[0]) == rank

    def typed(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """As `named`, for elements exactly as the file stores them.

        Raises:
            InputError: A name or a dtype that does not fit.
        """
        named = self.named(inputs)
        for spec in self.inputs:
            dtype = named[spec.name].dtype
            # The length of the longest text is part of numpy's name: "bytes8".
            if dtype.name != spec.dtype and not dtype.kind == spec.numpy_dtype.kind == "S":
                found = f"{named[spec.name].dtype} for input '{spec.name}'"
                fix = f"It stores {spec.dtype}; use predict() for real values"
                raise InputError("the input has the wrong dtype", found, fix)
        return named

    def resized(self, named: Mapping[str, np.ndarray]) -> bool:
        """True where free axes of inputs have another size than the file's; checks all shapes.

        Raises:
            InputError: A shape that cannot fit.
        """
        resize = False
        for spec in self.inputs:
            shape = named[spec.name].shape
            differ = [i for i, (a, b) in enumerate(zip(shape, spec.shape, strict=False)) if a != b]
            if len(shape) != len(spec.shape) or any(i not in spec.free for i in differ):
                needs = tuple("any" if i in spec.free else d for i, d in enumerate(spec.shape))
                raise InputError(
                    f"input '{spec.name}' has the wrong shape", str(shape), f"It needs {needs}"
                )
            resize = resize or bool(differ)
        return resize

    def _count(self, named: Mapping[str, np.ndarray]) -> int:
        for spec in self.inputs:
            if not spec.shape or not named[spec.name].ndim or spec.shape[0] != self.batch:
                raise InputError(
                    f"input '{spec.name}' has no batch axis to split",
                    f"shape {spec.shape} in the file, {named[spec.name].shape} given",
                    "Use run() with arrays exactly as the file stores them",
                )
        counts = {name: value.shape[0] for name, value in named.items()}
        if len(set(counts.values())) > 1:
            raise InputError("inputs differ in their number of samples", str(counts))
        count = next(iter(counts.values()), 0)
        if count < 1:
            raise InputError("there is no sample to run", "0 samples")
        return count


def end_specs(
    details: Sequence[Mapping[str, Any]], names: Mapping[str, int]
) -> Iterator[TensorSpec]:
    """The file's inputs or outputs, under the signature's names where it has them.

    Args:
        details: The runtime's details of the tensors, in the file's order.
        names: Tensor numbers by the signature's names.
    """
    by_index: dict[int, list[str]] = {}
    for name, index in names.items():
        by_index.setdefault(int(index), []).append(name)
    seen: set[int] = set()
    for entry in details:
        index = int(entry["index"])
        if index not in seen:  # A tensor that is returned twice stands in the list twice.
            seen.add(index)
            for name in by_index.get(index, [_plain(str(entry["name"]))]):
                yield TensorSpec.from_details(entry, name)


def file_ends(model: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as the file has them, without loading it into a runtime.

    Args:
        model: What `flatbuffer.read` gave.

    Raises:
        ConversionError: One is of a type that arrays have not.
    """
    graph = model.subgraphs[0]
    names = flatbuffer.get_signature(model) or ({}, {})

    def specs(numbers: Any, named: Mapping[str, int]) -> tuple[TensorSpec, ...]:
        details = [_details(graph.tensors[int(i)], int(i)) for i in _list(numbers)]
        return tuple(end_specs(details, named))

    try:
        return specs(graph.inputs, names[0]), specs(graph.outputs, names[1])
    except TypeError as error:
        raise ConversionError("an input or output has no array type", str(error)) from error


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)


def _details(tensor: Any, index: int) -> dict[str, Any]:
    """What the runtime says of a tensor."""
    code, shape = tensor.quantization, [int(d) for d in _list(tensor.shape)]
    return {
        "name": flatbuffer.tensor_name(tensor),
        "index": index,
        "dtype": flatbuffer.tensor_dtype(tensor),
        "shape": [1 if d < 0 else d for d in shape],
        "shape_signature": _list(tensor.shapeSignature) or shape,
        "quantization_parameters": {
            "scales": [] if code is None else _list(code.scale),
            "zero_points": [] if code is None else _list(code.zeroPoint),
            "quantized_dimension": 0 if code is None else code.quantizedDimension,
        },
    }


def _plain(name: str) -> str:
    """A tensor's name without what the converter wraps around a Keras input's name."""
    return name.removeprefix("serving_default_").removesuffix(":0") or name


def filled(part: np.ndarray, batch: int) -> np.ndarray:
    """Repeats the last sample of [n, ...], n at least 1, until there are `batch`."""
    lack = batch - len(part)
    return part if lack == 0 else np.concatenate([part, np.repeat(part[-1:], lack, axis=0)])


def _unfilled(name: str, value: np.ndarray, real: int, batch: int) -> np.ndarray:
    """Cuts the filling off; an output may hold several rows for each sample."""
    rows = np.atleast_1d(value)
    if len(rows) % batch:
        found = f"{value.shape} for a batch of {batch}"
        raise InputError(f"output '{name}' has no batch axis", found, "Use run(), batch by batch")
    return rows[: real * (len(rows) // batch)]

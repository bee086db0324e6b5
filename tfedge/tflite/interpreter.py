"""Running TFLite files: the only module that imports the LiteRT runtime.

A damaged or unsupported file can abort the whole process in here. Try a file that nobody has run
yet with `tfedge.tflite.check.check_runs` first, which does it in another process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import ConversionError, InputError, did_you_mean
from tfedge.tflite.quiet import quiet
from tfedge.tflite.tensors import TensorSpec, dequantize, quantize

_DELEGATE = "DELEGATE"

KERNELS = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
"""Kinds of kernels that can run a file -> the runtime's name of the resolver."""

Inputs = Any
"""An array (one input), a dict of arrays by input name, or a list of arrays in the file's order."""


@dataclass(frozen=True)
class OpInfo:
    """One op of the main subgraph, in execution order.

    Attributes:
        index: Position in the operator list.
        name: Builtin operator name, for example "CONV_2D".
        inputs: Tensor numbers; absent optional inputs are left out.
        outputs: Tensor numbers.
        partition: Number of the XNNPACK partition that runs it; None where it stays outside.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    partition: int | None

    @property
    def delegated(self) -> bool:
        """True where XNNPACK runs the op."""
        return self.partition is not None


class Interpreter:
    """A TFLite file, loaded and ready to run. Not safe to share between threads.

    Args:
        data: The whole file.
        threads: Threads of the kernels, at least 1.
        kernels: One of `KERNELS`: "xnnpack" lets XNNPACK take what it can (the runtime's own
            default), "builtin" keeps to the runtime's own optimised kernels, "reference" to its
            plain ones.
        keep_tensors: True keeps every intermediate tensor for `tensor()`; it needs the memory of
            all of them, and turns XNNPACK off, which fuses tensors away.

    Attributes:
        inputs: The file's inputs, in its order.
        outputs: The file's outputs, in its order.

    Raises:
        InputError: `threads` is below 1, or unknown kernels.
        ConversionError: The runtime cannot load or prepare the file.
    """

    def __init__(
        self, data: bytes, *, threads: int = 1, kernels: str = "xnnpack", keep_tensors: bool = False
    ) -> None:
        if threads < 1:
            raise InputError("threads must be at least 1", str(threads))
        if kernels not in KERNELS:
            raise InputError("unknown kernels", f"'{kernels}'", f"One of: {', '.join(KERNELS)}")
        self._keep_tensors = keep_tensors
        if keep_tensors and kernels == "xnnpack":
            kernels = "builtin"
        with quiet():
            self._runtime = _load(bytes(data), threads, kernels, keep_tensors)
            self._allocate()

    def _allocate(self) -> None:
        try:
            self._runtime.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                "the runtime cannot prepare the file", _one_line(error)
            ) from error
        self.inputs, self.outputs = _ends(self._runtime)

    @property
    def batch(self) -> int:
        """Samples of one run: the leading axis of the file's inputs."""
        return next((s.shape[0] for s in self.inputs if s.shape), 1)

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Runs the file once on elements exactly as it stores them.

        Args:
            inputs: Arrays of the inputs' own dtypes and shapes; a free axis may have another size.

        Returns:
            Outputs by name, of the file's own dtypes.

        Raises:
            InputError: A name, dtype or shape that does not fit.
            ConversionError: An op fails.
        """
        self.set_inputs(inputs)
        self.invoke()
        return {s.name: self._runtime.get_tensor(s.index) for s in self.outputs}

    def set_inputs(self, inputs: Inputs) -> None:
        """The first part of `run`: puts the inputs in place.

        Args:
            inputs: As in `run`.

        Raises:
            InputError: A name, dtype or shape that does not fit.
            ConversionError: The file cannot be prepared for these sizes of free axes.
        """
        named = self.named(inputs)
        for spec in self.inputs:
            dtype = named[spec.name].dtype
            # The length of the longest text is part of numpy's name: "bytes8".
            if dtype.name != spec.dtype and not dtype.kind == spec.numpy_dtype.kind == "S":
                found = f"{named[spec.name].dtype} for input '{spec.name}'"
                fix = f"It stores {spec.dtype}; use predict() for real values"
                raise InputError("the input has the wrong dtype", found, fix)
        self._fit(named)
        for spec in self.inputs:
            self._runtime.set_tensor(spec.index, np.ascontiguousarray(named[spec.name]))

    def invoke(self) -> None:
        """The second part of `run`: computes, and copies nothing (this is what a benchmark times).

        Raises:
            ConversionError: An op fails.
        """
        try:
            self._runtime.invoke()
        except (RuntimeError, ValueError) as error:
            raise ConversionError("the file fails when it is run", _one_line(error)) from error

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
        for start in range(0, count, batch):
            piece = {k: filled(v[start : start + batch], batch) for k, v in named.items()}
            real = min(batch, count - start)
            for name, value in self.run(piece).items():
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

    def tensor(self, index: int) -> np.ndarray:
        """A copy of a tensor of the main subgraph, as the last run left it.

        Args:
            index: Tensor number: of an output, or of any tensor with `keep_tensors`.

        Raises:
            InputError: The tensor was not kept, or there is none of this number.
        """
        if not self._keep_tensors and all(s.index != index for s in self.outputs):
            raise InputError("intermediate tensors were not kept", fix="Pass keep_tensors=True")
        try:
            return self._runtime.get_tensor(index)
        except ValueError as error:
            raise InputError(f"tensor {index} cannot be read", _one_line(error)) from error

    def tensors(self) -> dict[int, TensorSpec]:
        """All named tensors of the main subgraph by number, constants included."""
        details = self._runtime.get_tensor_details()
        return {int(d["index"]): TensorSpec.from_details(d) for d in details}

    def ops(self) -> list[OpInfo]:
        """The main subgraph's ops in execution order, each with its XNNPACK partition."""
        nodes = self._runtime._get_ops_details()
        own = [n for n in nodes if n["op_name"] != _DELEGATE]
        partition = _partitions(own, [n for n in nodes if n["op_name"] == _DELEGATE])
        return [
            OpInfo(n["index"], n["op_name"], _real(n["inputs"]), _real(n["outputs"]), where)
            for n, where in zip(own, partition, strict=True)
        ]

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

    def _fit(self, named: Mapping[str, np.ndarray]) -> None:
        """Resizes free axes to the arrays where needed; refuses shapes that cannot fit."""
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
        if resize:
            with quiet():
                for spec in self.inputs:
                    self._runtime.resize_tensor_input(spec.index, named[spec.name].shape)
                self._allocate()

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


def runtime_version() -> str:
    """Loads the runtime and returns its version, for example "2.3.0"."""
    from importlib.metadata import version

    from ai_edge_litert import interpreter  # noqa: F401

    return version("ai-edge-litert")


def runtime_library() -> Path | None:
    """The runtime's shared library, whose C functions can profile; None where it is not there."""
    from importlib.util import find_spec

    found = find_spec("ai_edge_litert")
    folders = [] if found is None else list(found.submodule_search_locations or [])
    names = ("libLiteRt.so", "libLiteRt.dylib")
    return next((p for f in folders for n in names if (p := Path(f) / n).is_file()), None)


def _load(data: bytes, threads: int, kernels: str, keep_tensors: bool) -> Any:
    from ai_edge_litert import interpreter as litert

    resolver = getattr(litert.OpResolverType, KERNELS[kernels])
    try:
        return litert.Interpreter(
            model_content=data,
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=keep_tensors,
        )
    except (RuntimeError, ValueError) as error:
        raise ConversionError("the runtime cannot load the file", _one_line(error)) from error


def _ends(runtime: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs in the file's order, under the signature's names where it has them."""
    signatures = list(runtime._get_full_signature_list().values())
    named = signatures[0] if signatures else {"inputs": {}, "outputs": {}}
    return (
        tuple(_specs(runtime.get_input_details(), named["inputs"])),
        tuple(_specs(runtime.get_output_details(), named["outputs"])),
    )


def _specs(details: Sequence[Mapping[str, Any]], names: Mapping[str, int]) -> Iterator[TensorSpec]:
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


def _plain(name: str) -> str:
    """A tensor's name without what the converter wraps around a Keras input's name."""
    return name.removeprefix("serving_default_").removesuffix(":0") or name


def _partitions(
    ops: Sequence[Mapping[str, Any]], delegates: Sequence[Mapping[str, Any]]
) -> list[int | None]:
    """The partition of each op.

    The runtime lists only a partition's outer tensors. Its ops are those on the way back from its
    outputs to its inputs.
    """
    producer = {t: i for i, op in enumerate(ops) for t in _real(op["outputs"])}
    found: list[int | None] = [None] * len(ops)
    for number, node in enumerate(delegates):
        outer = set(_real(node["inputs"]))
        todo = list(_real(node["outputs"]))
        while todo:
            tensor = todo.pop()
            i = producer.get(tensor)
            if tensor in outer or i is None or found[i] is not None:
                continue
            found[i] = number
            todo += [t for t in _real(ops[i]["inputs"]) if t not in outer]
    return found


def _real(indices: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in indices if i >= 0)


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


def _one_line(error: BaseException) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())

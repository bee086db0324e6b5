"""Running TFLite files: the only module that imports the LiteRT runtime.

A damaged or unsupported file can abort the whole process in here. Try a file that nobody has run
yet with `tfedge.tflite.check.check_runs` first, which does it in another process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import ConversionError, InputError
from tfedge.tflite.ends import Ends, Inputs, end_specs
from tfedge.tflite.quiet import quiet
from tfedge.tflite.tensors import TensorSpec

_DELEGATE = "DELEGATE"

KERNELS = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
"""Kinds of kernels that can run a file -> the runtime's name of the resolver."""


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


class Interpreter(Ends):
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

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Runs the file once on elements exactly as it stores them, its variables as at the start.

        Args:
            inputs: Arrays of the inputs' own dtypes and shapes; a free axis may have another size.

        Returns:
            Outputs by name, of the file's own dtypes.

        Raises:
            InputError: A name, dtype or shape that does not fit.
            ConversionError: An op fails.
        """
        self.set_inputs(inputs)
        # The state of an LSTM is a variable: without this a sample would depend on those before it.
        self._runtime.reset_all_variables()
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
        named = self.typed(inputs)
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

    def _fit(self, named: Mapping[str, np.ndarray]) -> None:
        """Resizes free axes to the arrays where needed; refuses shapes that cannot fit."""
        if self.resized(named):
            with quiet():
                for spec in self.inputs:
                    self._runtime.resize_tensor_input(spec.index, named[spec.name].shape)
                self._allocate()


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
        tuple(end_specs(runtime.get_input_details(), named["inputs"])),
        tuple(end_specs(runtime.get_output_details(), named["outputs"])),
    )


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


def _one_line(error: BaseException) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())

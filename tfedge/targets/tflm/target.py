"""TensorFlow Lite for Microcontrollers as a target: its kernels and its arena, no times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfedge.errors import ConversionError, InputError, TargetError
from tfedge.record import Timing
from tfedge.shell import ModuleRun, run_module
from tfedge.targets.base import Violation
from tfedge.targets.extras import package_version
from tfedge.targets.op_table import OpRow, OpTable
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import check_runs, first_to_die, random_inputs
from tfedge.tflite.ends import Ends, file_ends
from tfedge.tflite.int16_bias import summing_ops
from tfedge.tflite.layers import op_layers
from tfedge.tflite.op_view import views

_MODULE = "tfedge.targets.tflm.worker"
_ARENA = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_NODE = re.compile(r"Node (\w+) \(number (\d+)\)")
_MISSING = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_LARGEST = 2_000_000_000  # The runtime keeps the arena's size in a signed 32-bit number.
_SPARE = 16 << 20
_NOTE = (
    "The arena is that of the reference kernels on this 64-bit machine: on a 32-bit core its "
    "persistent part is smaller, and other kernels may ask for other scratch memory."
)
_FIX = (
    "Convert with w8a8, w8a16 or float32 (it takes no float16, dynamic-range or int4 files), or "
    "replace the layer behind the op"
)
COLUMNS = ("output bytes", "constant bytes")


@dataclass(frozen=True)
class Arena:
    """Memory that the runtime used, bytes.

    Attributes:
        total: Both parts.
        head: Tensors and scratch memory, planned so that they share it.
        tail: What stays: the runtime's records of tensors, ops and quantization, and variables.
    """

    total: int
    head: int
    tail: int


@dataclass(frozen=True)
class TflmTarget:
    """Runs files with the microcontroller runtime on this machine; needs `tfedge[tflm]`.

    It says whether the runtime takes a file, what the file computes there and how large an arena
    it needs. The kernels are the portable reference ones. Nothing is timed: this machine's time
    says nothing of a microcontroller's.

    The runtime trusts a file and may read beyond tensors whose shapes do not fit each other;
    LiteRT, which looks, has to run it first.

    Attributes:
        timeout_s: Seconds that one process may take.
    """

    timeout_s: float = 3600.0
    name: ClassVar[str] = "tflm"
    source: ClassVar[str] = "emulated"
    kernels: ClassVar[str] = "TFLM"
    executes: ClassVar[bool] = True

    def prepare(self, threads: int = 1) -> None:
        """Finds the runtime.

        Args:
            threads: Must be 1: the runtime has no others.

        Raises:
            InputError: More threads, or fewer.
            TargetError: It is not installed; the message says how to.
        """
        if threads != 1:
            raise InputError("tflm has one thread", f"{threads} threads", "Ask for 1")
        package_version("tflm")

    def check(self, data: bytes) -> list[Violation]:
        """Runs the file once on random inputs; fatal where the runtime refuses it.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The runtime is not installed.
        """
        flatbuffer.read(data)
        self.prepare()
        try:
            self._file("the file", data).arena()
        except _OpError as error:
            return [Violation(str(error), fatal=True, op=error.op, name=error.name)]
        except TargetError as error:
            return [Violation(str(error), fatal=True)]
        return []

    def run(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file on samples, all in one process; variables begin anew for each batch.

        Args:
            data: The whole file.
            inputs: Arrays [N, ...] by input name, of the file's own dtypes.

        Returns:
            Outputs [N, ...] by name, of the file's own dtypes.

        Raises:
            InputError: Inputs that do not fit, or no TFLite file.
            TargetError: The runtime is not installed, or refuses the file.
        """
        return self._file("the file", data).run_all(inputs)

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """Finds the arena of each file; no time is measured.

        Args:
            models: Files by name.
            runs: Not needed: the arena is the same each time.
            threads: Must be 1.

        Returns:
            One Timing per file, in order, with `arena_bytes` and without times and ratios; `runs`
            is 1. A file with an op that the runtime lacks has no arena and a note that names it,
            so that it can stand beside the others.

        Raises:
            InputError: `runs` or `threads` below 1, several threads, or no TFLite file.
            TargetError: The runtime is not installed, or a file is unsound or ends the runtime's
                process; the message names it.
        """
        if runs < 1 or threads < 1:
            raise InputError("runs and threads must be at least 1", f"{runs} and {threads}")
        self.prepare(threads)
        return [self._timing(self._file(f"model '{n}'", data), n) for n, data in models.items()]

    def costs(self, data: bytes) -> OpTable:
        """The ops that the runtime runs, with the bytes of their outputs and constants.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The runtime is not installed, or refuses the file.
        """
        file = self._file("the file", data)
        arena = file.arena()
        facts = (
            _runtime(),
            f"arena {arena.total:,} bytes: {arena.head:,} for tensors and scratch, {arena.tail:,} "
            "that stay",
        )
        rows = tuple(_rows(data))
        return OpTable(self.name, self.source, COLUMNS, rows, "", facts, (_NOTE,))

    def _timing(self, file: _File, name: str) -> Timing:
        ops = len(flatbuffer.read(file.data).subgraphs[0].operators or [])
        arena, note = None, _NOTE
        try:
            arena = file.arena().total
        except _OpError as error:
            note = str(error)
        return Timing(
            model=name,
            target=self.name,
            source=self.source,
            threads=1,
            runs=1,
            bytes=len(file.data),
            delegated_ops=ops if arena else 0,
            total_ops=ops,
            isa=_runtime(),
            delegate=self.kernels,
            arena_bytes=arena,
            note=note,
        )

    def _file(self, who: str, data: bytes) -> _File:
        return _File(self, who, data)


class _OpError(TargetError):
    """A refusal whose op is known."""

    op: int | None = None
    name: str = ""


class _File(Ends):
    """A file in the microcontroller runtime."""

    def __init__(self, target: TflmTarget, who: str, data: bytes) -> None:
        try:
            model = flatbuffer.read(data)
        except InputError as error:
            raise InputError(f"{who} is not a TFLite file", error.found) from error
        self._target, self._who, self.data = target, who, data
        try:
            self.inputs, self.outputs = file_ends(model)
        except ConversionError as error:
            raise TargetError(f"{who} cannot be run on tflm", str(error)) from error
        graph = model.subgraphs[0]
        self._order = [[int(t) for t in ends] for ends in (graph.inputs, graph.outputs)]
        self._size = _arena_size(model, len(data))

    def arena(self) -> Arena:
        """What a run on random inputs needs."""
        ended = self._ask([self._ordered(random_inputs(self.inputs))])
        found = {word: int(size) for word, size in _ARENA.findall(ended.finished.error_text)}
        if found.keys() != {"total", "head", "tail"}:
            raise TargetError(f"{self._who} was run on tflm, but its arena was not told of",
                              ended.finished.error_text[-200:])  # fmt: skip
        return Arena(**found)

    def run_each(self, pieces: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Runs all inputs in one process."""
        ended = self._ask([self._ordered(piece) for piece in pieces])
        arrays = {} if ended.answer is None else ended.answer.arrays
        places = {spec.name: self._order[1].index(spec.index) for spec in self.outputs}
        shapes = {spec.name: (spec.shape, spec.numpy_dtype) for spec in self.outputs}
        found = {name: arrays[f"output{i}"] for name, i in places.items()}
        for piece in range(len(next(iter(found.values()), ()))):
            yield {n: v[piece].reshape(shapes[n][0]).astype(shapes[n][1]) for n, v in found.items()}

    def _ordered(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        named = self.typed(inputs)
        if self.resized(named):
            found = f"other sizes than {[spec.shape for spec in self.inputs]}"
            raise InputError("tflm runs the sizes that the file stores", found)
        by_index = {spec.index: named[spec.name] for spec in self.inputs}
        return [by_index[t] for t in self._order[0]]

    def _ask(self, pieces: list[list[np.ndarray]]) -> ModuleRun:
        self._target.prepare()
        self._refuse_narrow()
        try:
            check_runs(self.data, self._target.timeout_s)
        except ConversionError as error:
            what = f"{self._who} cannot be run on tflm: LiteRT does not run it either"
            raise TargetError(what, error.found, error.fix) from error
        columns = zip(*pieces, strict=True)
        arrays = {f"input{i}": np.stack(column) for i, column in enumerate(columns)}
        counts = {"inputs": len(arrays), "outputs": len(self._order[1]), "pieces": len(pieces)}
        ended = self._process(self.data, counts, arrays)
        if ended.answer is None:
            text = _last_words(ended.finished.error_text)
            culprit = first_to_die(self.data, self._dies)
            found = f"{ended.finished.ending}{f' at {culprit}' if culprit else ''}"
            fix = "Check the scales of the op's tensors with tfedge inspect"
            what = f"{self._who} ends the microcontroller runtime's process"
            raise TargetError(what, "; ".join(p for p in (found, text) if p), fix)
        if "error" in ended.answer.values:
            raise self._refusal(str(ended.answer.values["error"]), ended.finished.error_text)
        return ended

    def _refuse_narrow(self) -> None:
        """The runtime takes a TRANSPOSE_CONV's 32-bit bias for 64 bits and computes rubbish."""
        for found in summing_ops(flatbuffer.read(self.data)):
            if found.name == "TRANSPOSE_CONV" and not found.wide:
                said = "its 16x8 form with a 32-bit bias, which this runtime reads as 64 bits"
                raise _op_error(f"{self._who} cannot be run on tflm", found.index, found.name,
                                said, "Convert with --cpu=arm64; see docs/INT16.md")  # fmt: skip

    def _process(
        self, data: bytes, counts: dict[str, int], arrays: dict[str, np.ndarray]
    ) -> ModuleRun:
        values = {**counts, "arena": self._size}
        file = {"file": np.frombuffer(data, np.uint8)}
        try:
            return run_module(_MODULE, values, {**file, **arrays}, timeout=self._target.timeout_s)
        except TargetError as error:
            raise TargetError(f"{self._who} did not finish on tflm", error.found) from error

    def _dies(self, data: bytes) -> bool:
        model = flatbuffer.read(data)
        order = [int(t) for t in model.subgraphs[0].inputs]
        named = {
            spec.index: v for spec in self.inputs for v in (random_inputs((spec,))[spec.name],)
        }
        arrays = {f"input{i}": named[t][None] for i, t in enumerate(order)}
        counts = {"inputs": len(order), "outputs": 0, "pieces": 1}
        return self._process(data, counts, arrays).finished.code < 0

    def _refusal(self, error: str, said: str) -> TargetError:
        """The runtime's own words, and the op where they name one."""
        model = flatbuffer.read(self.data)
        names = [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators or []]
        what = f"{self._who} cannot be run on tflm"
        node, missing = _NODE.search(said), _MISSING.search(said)
        if missing and missing[1] in names:
            op, found = names.index(missing[1]), "the tflite-micro package has no such op"
        elif node and int(node[2]) < len(names) and names[int(node[2])] == node[1]:
            op, found = int(node[2]), _last_words(said[: node.start()]) or error
        else:
            return TargetError(what, "; ".join(p for p in (_last_words(said), error) if p), _FIX)
        return _op_error(what, op, names[op], found, _FIX)


def _op_error(what: str, op: int, name: str, why: str, fix: str) -> _OpError:
    error = _OpError(what, f"op {op} ({name}): {why}", fix)
    error.op, error.name = op, name
    return error


def _runtime() -> str:
    return f"TFLM {package_version('tflm')}, reference kernels"


def _arena_size(model: Any, size: int) -> int:
    """Bytes to offer: all tensors at once and much to spare; what is not touched costs nothing."""
    tensors = sum(_bytes(t) for graph in model.subgraphs for t in graph.tensors or [])
    # A round size, because the end of the arena is where what stays is aligned from.
    return min(2 * tensors + 10 * size + _SPARE, _LARGEST) // 1024 * 1024


def _bytes(tensor: Any) -> int:
    shape = [] if tensor.shape is None else [max(1, int(d)) for d in tensor.shape]
    dtype = flatbuffer.tensor_dtype(tensor)
    return int(np.prod(shape, dtype=np.int64)) * _width(dtype)


def _width(dtype: str) -> int:
    """Bytes of an element; 8 for what numpy has not."""
    try:
        return np.dtype(dtype).itemsize
    except TypeError:
        return 8


def _rows(data: bytes) -> Iterator[OpRow]:
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    layers = op_layers(model, flatbuffer.get_metadata(data).get("layers", ()))
    for i, (view, op) in enumerate(zip(views(model), graph.operators or [], strict=True)):
        outputs = sum(_bytes(graph.tensors[int(t)]) for t in op.outputs)
        constants = [graph.tensors[int(t)] for t in op.inputs if int(t) >= 0]
        fixed = sum(_bytes(t) for t in constants if flatbuffer.tensor_data(model, t) is not None)
        yield OpRow(i, view.name, layers[i], "TFLM", (outputs, fixed))


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^tensorflow/lite/micro/\S+\s+", "", lines[-1]) if lines else ""

"""An Arm core as a target: real aarch64 kernels under QEMU's user mode, counted, never timed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfedge.errors import ConversionError, InputError, TargetError, did_you_mean
from tfedge.record import Timing
from tfedge.targets.arm64.costs import Costs, op_costs, outside, partitions
from tfedge.targets.arm64.cpus import CPUS
from tfedge.targets.arm64.guest import Mix, Reply, emulate, emulate_profiled
from tfedge.targets.arm64.installation import find
from tfedge.targets.base import Violation
from tfedge.tflite import flatbuffer
from tfedge.tflite.check import random_inputs
from tfedge.tflite.delegation import views, why_not
from tfedge.tflite.ends import Ends, file_ends
from tfedge.tflite.fast16 import elsewhere_note
from tfedge.tflite.tensors import TensorSpec

WARM_UP, COUNTED = 2, 3
"""Inferences before those that count: they allocate. And how many are counted at most: all give
the same, but for a few instructions here and there for memory."""


@dataclass(frozen=True)
class Arm64Target:
    """Runs files as on an Arm core and counts instructions; needs `tfedge target setup arm64`.

    The runtime is LiteRT for aarch64 of the same version as the host's, its kernels are those that
    XNNPACK chooses for the core, one thread. Instructions are a cost that repeats exactly. They
    are not time: how many the core runs at once, its caches and its memory are not modelled.

    Attributes:
        cpu: A name of `tfedge.targets.arm64.cpus.CPUS`.
        timeout_s: Seconds that one run of the emulator may take.
    """

    cpu: str
    timeout_s: float = 3600.0
    source: str = "emulated"

    def __post_init__(self) -> None:
        if self.cpu not in CPUS:
            raise TargetError("unknown arm64 core", f"'{self.cpu}'", did_you_mean(self.cpu, CPUS))

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        return f"arm64:{self.cpu}"

    def prepare(self, threads: int = 1) -> None:
        """Finds the emulator.

        Args:
            threads: Must be 1: instructions of several threads depend on how they meet.

        Raises:
            InputError: More threads, or fewer.
            TargetError: The emulator is not set up; the message says how, or what that needs.
        """
        if threads != 1:
            raise InputError(f"{self.name} counts one thread", f"{threads} threads")
        find()

    def check(self, data: bytes) -> list[Violation]:
        """Runs the file there once, and says which ops XNNPACK leaves to slower kernels.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The emulator is not set up.
        """
        model = flatbuffer.read(data)
        self.prepare()
        try:
            reply = self._file("the file", data).profile()
        except TargetError as error:
            return [Violation(str(error), fatal=True)]
        left = outside(reply.events)
        return [
            Violation(f"not delegated: {why_not(op)}", fatal=False, op=i, name=op.name)
            for i, op in enumerate(views(model))
            if i in left
        ]

    def run(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file on samples, all in one process.

        Args:
            data: The whole file.
            inputs: Arrays [N, ...] by input name, of the file's own dtypes.

        Returns:
            Outputs [N, ...] by name, of the file's own dtypes.

        Raises:
            InputError: Inputs that do not fit, or no TFLite file.
            TargetError: The emulator is not set up, or the file fails.
        """
        return self._file("the file", data).run_all(inputs)

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """Counts instructions per inference of files; no time is measured.

        Args:
            models: Files by name.
            runs: Inferences to count; more than `COUNTED` are not, since all give the same.
            threads: Must be 1.

        Returns:
            One Timing per file, in order, with `instructions` and without times; `runs` is how
            many were counted, the least counts. `ratio_p50` and `ratio_min` are both this file's
            instructions over the first one's, None where there is only one file.

        Raises:
            InputError: `runs` or `threads` below 1, several threads, or no TFLite file.
            TargetError: The emulator is not set up, or a file fails; the message names it.
        """
        if runs < 1 or threads < 1:
            raise InputError("runs and threads must be at least 1", f"{runs} and {threads}")
        self.prepare(threads)
        files = {n: self._file(f"model '{n}'", data) for n, data in models.items()}
        found = [self._timing(name, file, min(runs, COUNTED)) for name, file in files.items()]
        if len(found) < 2:
            return found
        costs = [self._cost(timing) for timing in found]
        ratios = [cost / costs[0] for cost in costs]
        pairs = zip(found, ratios, strict=True)
        return [Timing(**{**vars(t), "ratio_p50": r, "ratio_min": r}) for t, r in pairs]

    def _cost(self, timing: Timing) -> float:
        """What the ratios are of."""
        return timing.instructions or 1

    def _timing(self, name: str, file: ArmFile, runs: int) -> Timing:
        return self._counted(name, file, runs)[0]

    def _counted(self, name: str, file: ArmFile, runs: int) -> tuple[Timing, Costs]:
        """A file's instructions, in total and op by op."""
        total, reply = file.count(runs), file.profile()
        ops = len(flatbuffer.read(file.data).subgraphs[0].operators or [])
        timing = Timing(
            model=name,
            target=self.name,
            source=self.source,
            threads=1,
            runs=runs,
            bytes=len(file.data),
            instructions=total.instructions,
            delegated_ops=ops - len(outside(reply.events)),
            total_ops=ops,
            partitions=partitions(reply.events, reply.clocks),
            isa=CPUS[self.cpu].isa,
            note=elsewhere_note(file.data),
        )
        return timing, self._by_op(file, total, reply)

    def costs(self, data: bytes) -> Costs:
        """Instructions by class of an inference, and of each op.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The emulator is not set up, or the file fails.
        """
        file = self._file("the file", data)
        return self._by_op(file, file.count(1), file.profile())

    def _by_op(self, file: ArmFile, total: Mix, reply: Reply) -> Costs:
        rows = op_costs(file.data, reply.events, reply.clocks)
        rest = total
        for row in rows:
            rest = rest.less(row.mix, 1)
        return Costs(self.name, total, rows, rest, _note(total, [row.mix for row in rows]))

    def _file(self, who: str, data: bytes) -> ArmFile:
        return ArmFile(self, who, data)


class ArmFile(Ends):
    """A file on an emulated core."""

    def __init__(self, target: Arm64Target, who: str, data: bytes) -> None:
        try:
            model = flatbuffer.read(data)
        except InputError as error:
            raise InputError(f"{who} is not a TFLite file", error.found) from error
        self._target, self._who, self.data = target, who, data
        signature = flatbuffer.get_signature(model)
        try:
            self.inputs, self.outputs = file_ends(model)
        except ConversionError as error:
            raise TargetError(f"{who} cannot be run on {target.name}", str(error)) from error
        if any(spec.numpy_dtype.kind not in "fiub" for spec in (*self.inputs, *self.outputs)):
            raise TargetError(f"{who} cannot be run on {target.name}", "inputs or outputs of text")
        self._order = list(signature[0]) if signature else [spec.name for spec in self.inputs]
        # The runtime finds inputs and outputs by the signature's names.
        self._named = data if signature else _with_signature(data, self.inputs, self.outputs)

    def run_each(self, pieces: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Runs all inputs in one process."""
        reply = self._ask([self._packed(piece) for piece in pieces])
        shapes = {e.name: (e.shape, e.bytes) for e in reply.ends}
        specs = {spec.name: spec for spec in self.outputs}
        position = 0
        while position < len(reply.outputs):
            found = {}
            for name, (shape, size) in shapes.items():
                raw = np.frombuffer(reply.outputs, np.uint8, size, position)
                found[name] = raw.view(specs[name].numpy_dtype).reshape(shape)
                position += size
            yield {name: found[name] for name in specs}

    def count(self, runs: int) -> Mix:
        """The least counts of some inferences after the first ones, on random inputs."""
        reply = self._ask([self._packed(random_inputs(self.inputs))] * (WARM_UP + runs))
        return min(reply.inferences[WARM_UP:], key=lambda mix: mix.instructions)

    def profile(self) -> Reply:
        """A profiled inference on random inputs."""
        return self._ask([self._packed(random_inputs(self.inputs))], profiled=True)

    def _packed(self, inputs: Mapping[str, np.ndarray]) -> bytes:
        named = self.typed(inputs)
        if self.resized(named):
            fix = "Use a file whose free axes have been given these sizes"
            found = f"other sizes than {[spec.shape for spec in self.inputs]}"
            raise InputError(f"{self._target.name} runs the sizes that the file stores", found, fix)
        return b"".join(np.ascontiguousarray(named[name]).tobytes() for name in self._order)

    def _ask(self, inputs: list[bytes], *, profiled: bool = False) -> Reply:
        place, where = self._target, find()
        try:
            if profiled:
                return emulate_profiled(where, place.cpu, self._named, inputs[0], place.timeout_s)
            return emulate(where, place.cpu, self._named, inputs, place.timeout_s)
        except TargetError as error:
            what = f"{self._who} cannot be run on {place.name}"
            if "did not end" in error.what:
                what = f"{self._who} did not finish within {place.timeout_s:g} s on {place.name}"
            raise TargetError(what, error.found, error.fix) from error


def _note(total: Mix, rows: list[Mix]) -> str:
    notes = []
    if any(mix == Mix(mix.instructions) for mix in rows):
        notes.append("Some ops could not be found in the counts: their classes are missing.")
    inside = sum(mix.instructions for mix in rows)
    if inside > total.instructions:
        more = inside - total.instructions
        notes.append(f"The ops hold {more:,} instructions of the profiler itself, or more.")
    return " ".join(notes)


def _with_signature(
    data: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> bytes:
    ends = [{spec.name: spec.index for spec in specs} for specs in (inputs, outputs)]
    return flatbuffer.set_signature(data, *ends)

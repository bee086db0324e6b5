"""What a target is, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tfedge.errors import TargetError, did_you_mean
from tfedge.record import Timing
from tfedge.targets.ethosu.chips import NPUS
from tfedge.tflite.op_times import OpTimes

if TYPE_CHECKING:
    # A board that is yet to be set up has no numpy.
    import numpy as np

    from tfedge.targets.arm64.costs import Costs
    from tfedge.targets.op_table import OpTable


@dataclass(frozen=True)
class Violation:
    """Something about a file that a target does not take, or not well.

    Attributes:
        reason: What it is, one sentence.
        fatal: True where the file cannot run there; False where it runs, but costs more.
        op: Position of the op in the main subgraph, or None where it is about the whole file.
        name: Builtin operator name, or "".
    """

    reason: str
    fatal: bool
    op: int | None = None
    name: str = ""


@runtime_checkable
class Target(Protocol):
    """A place that runs TFLite files.

    Attributes:
        name: Its word on the command line and in records.
        source: Kind of its numbers: "measured", "simulated" or "emulated" (see `Timing`).
    """

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        ...

    @property
    def source(self) -> str:
        """Kind of its numbers: "measured", "simulated" or "emulated"."""
        ...

    def prepare(self, threads: int = 1) -> None:
        """Finds out, before any work, whether the target can be used.

        Args:
            threads: Threads that `time` will be asked for.

        Raises:
            InputError: The target cannot use that many threads.
            TargetError: It cannot be reached, or is not set up; the message says what to do.
        """
        ...

    def check(self, data: bytes) -> list[Violation]:
        """Says what of a file the target does not take; empty where all is well.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The target cannot be reached.
        """
        ...

    def run(self, data: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a file there.

        Args:
            data: The whole file.
            inputs: Arrays [N, ...] by input name, of the file's own dtypes (codes, not real
                values), N at least 1 and free of the file's batch.

        Returns:
            Outputs [N, ...] by name, of the file's own dtypes.

        Raises:
            InputError: Inputs of wrong names, shapes or dtypes; or no TFLite file.
            TargetError: The file or the target fails.
        """
        ...

    def time(self, models: Mapping[str, bytes], runs: int, threads: int) -> list[Timing]:
        """Measures files against each other, in turn, so that all meet the same conditions.

        Args:
            models: Files by the name that the result shows.
            runs: Samples of each, at least 1.
            threads: Threads, at least 1.

        Returns:
            One Timing per model, in order; the ratios are to the first model (time / its time).

        Raises:
            InputError: `runs` or `threads` below 1, or a file that is no TFLite file.
            TargetError: A file fails there; the message names it.
        """
        ...


@runtime_checkable
class Profiler(Protocol):
    """A target that also says what each op of a file takes there."""

    def profile(self, data: bytes, runs: int = 8) -> OpTimes:
        """Measures the ops of a file.

        Args:
            data: The whole file.
            runs: Inferences to measure at least.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The file cannot be profiled there.
        """
        ...


@runtime_checkable
class Counter(Protocol):
    """A target that says what each op of a file costs there, in instructions or otherwise."""

    def costs(self, data: bytes) -> Costs | OpTable:
        """Costs of an inference and of each op; see `Costs` and `OpTable`.

        Args:
            data: The whole file.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The file fails there.
        """
        ...


@runtime_checkable
class Foreign(Protocol):
    """A target where neither LiteRT nor XNNPACK runs the ops."""

    @property
    def kernels(self) -> str:
        """What does: "NPU" or "TFLM"."""
        ...

    @property
    def executes(self) -> bool:
        """False where nothing is run, so that `Target.run` always raises a TargetError."""
        ...


def _host() -> Target:
    from tfedge.targets.host import HostTarget

    return HostTarget()


def _host_amx() -> Target:
    from tfedge.targets.host import HostTarget

    return HostTarget(amx=True)


def _arm64(cpu: str) -> Target:
    from tfedge.targets.arm64.target import Arm64Target

    return Arm64Target(cpu)


def _sim(cpu: str) -> Target:
    from tfedge.targets.sim.target import SimTarget

    return SimTarget(cpu)


def _ethosu(where: str) -> Target:
    from tfedge.targets.ethosu.target import EthosuTarget

    return EthosuTarget(where)


def _tflm() -> Target:
    from tfedge.targets.tflm.target import TflmTarget

    return TflmTarget()


TARGETS: dict[str, Callable[[], Target]] = {
    "host": _host,
    "host:amx": _host_amx,
    "arm64:cortex-a35": partial(_arm64, "cortex-a35"),
    "arm64:cortex-a53": partial(_arm64, "cortex-a53"),
    "arm64:cortex-a57": partial(_arm64, "cortex-a57"),
    "arm64:cortex-a72": partial(_arm64, "cortex-a72"),
    "arm64:cortex-a76": partial(_arm64, "cortex-a76"),
    "arm64:neoverse-n1": partial(_arm64, "neoverse-n1"),
    "sim:cortex-a53": partial(_sim, "cortex-a53"),
    "sim:cortex-a72": partial(_sim, "cortex-a72"),
    "sim:cortex-a76": partial(_sim, "cortex-a76"),
    **{f"ethosu:{npu}": partial(_ethosu, npu) for npu in NPUS},
    "tflm": _tflm,
}
"""Makers of the targets by name; each imports what it needs when it is called."""


def _ssh(rest: str) -> Target:
    from tfedge.targets.ssh.target import SshTarget

    return SshTarget.named(rest)


def _adb(serial: str) -> Target:
    from tfedge.targets.adb.target import AdbTarget

    return AdbTarget(serial)


FAMILIES: dict[str, Callable[[str], Target]] = {"adb": _adb, "ethosu": _ethosu, "ssh": _ssh}
"""Makers of targets of free names, "FAMILY:REST", by family; each is given the rest."""


DEVICE_SUFFIXES = (".yaml", ".yml")
"""Ends of names that stand for device files; see `tfedge.targets.device`."""


def get_target(name: str) -> Target:
    """Makes a target.

    Args:
        name: One of `TARGETS`, or "FAMILY:REST" with a family of `FAMILIES`; or the path of a
            device file (`tfedge.targets.device`), which ends in .yaml or .yml.

    Raises:
        InputError: A device file with an unknown key, or a bad value.
        TargetError: There is no such target, the message suggests the nearest; or what follows
            the family is not understood.
    """
    if name.endswith(DEVICE_SUFFIXES):
        from tfedge.targets import device

        return device.open_device(name)
    if name in TARGETS:
        return TARGETS[name]()
    family, colon, rest = name.partition(":")
    if colon and family in FAMILIES:
        return FAMILIES[family](rest)
    raise TargetError("unknown target", f"'{name}'", _nearest(name))


def _nearest(name: str) -> str:
    """What was meant, where that can be told; else where the targets are listed."""
    listed = "tfedge target list shows all targets"
    word = name.lower()
    if word in TARGETS:
        return f"Did you mean '{word}'?"
    families = sorted({known.partition(":")[0] for known in TARGETS} | set(FAMILIES))
    if word in families:
        inside = [known for known in TARGETS if known.startswith(f"{word}:")]
        return f"For example {inside[0]}; {listed}" if inside else f"Write {word}:...; {listed}"
    family = word.partition(":")[0]
    near = [known for known in TARGETS if known.partition(":")[0] == family] or list(TARGETS)
    found = did_you_mean(word, near)
    return f"{found} {listed}" if found.endswith("?") else listed

"""An Arm core's time, estimated: counted as by arm64, then bounded by a model of the core."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tfedge.errors import InputError, TargetError, did_you_mean
from tfedge.record import Timing
from tfedge.targets.arm64.costs import Costs
from tfedge.targets.arm64.guest import Mix, Reply
from tfedge.targets.arm64.target import Arm64Target, ArmFile
from tfedge.targets.sim.cores import CORES, Core
from tfedge.targets.sim.traffic import op_traffic
from tfedge.tflite.op_times import OpTimes


@dataclass(frozen=True)
class SimTarget(Arm64Target):
    """Estimates the time of an inference on a core of a named board, one thread.

    Runs files and counts their instructions as `Arm64Target` does; needs the same set-up. Each op
    then takes the cycles of its busiest part of the core, or of its bytes from memory where these
    are more; all else is taken to run beside it. The ops follow each other. That is the least that
    the published throughputs allow: dependences, misses of caches, and what in-order cores wait
    for are left out, so that hardware is slower, by how much docs/TARGETS.md says. Counts repeat
    exactly, and so does this.

    Attributes:
        cpu: A name of `tfedge.targets.sim.cores.CORES`.
        clock_ghz: Clock in 10^9 cycles a second; 0 takes the board's own. Memory keeps its speed.
    """

    clock_ghz: float = 0.0
    source: str = "simulated"

    def __post_init__(self) -> None:
        if self.cpu not in CORES:
            fix = did_you_mean(self.cpu, CORES)
            raise TargetError("there is no model of this core", f"'{self.cpu}'", fix)
        if not (self.clock_ghz >= 0 and math.isfinite(self.clock_ghz)):
            raise InputError("clock_ghz must be more than 0", str(self.clock_ghz))

    @property
    def name(self) -> str:
        """Its word on the command line and in records."""
        return f"sim:{self.cpu}"

    @property
    def core(self) -> Core:
        """The core on its board, at the clock of this target."""
        board = CORES[self.cpu]
        return replace(board, clock_ghz=self.clock_ghz or board.clock_ghz)

    def profile(self, data: bytes, runs: int = 8) -> OpTimes:
        """Estimated times of the ops outside XNNPACK, and of all inside.

        Args:
            data: The whole file.
            runs: Not needed: all give the same.

        Raises:
            InputError: It is no TFLite file.
            TargetError: The emulator is not set up, or the file fails.
        """
        del runs
        rows = self.costs(data).ops
        ops: dict[int, float] = {}
        for row in rows:
            if row.index is not None and not row.kernel:
                ops[row.index] = ops.get(row.index, 0.0) + 1e3 * (row.ms or 0.0)
        inside = sum(1e3 * (row.ms or 0.0) for row in rows if row.kernel)
        return OpTimes(ops, inside, f"Times are estimates by a model of the {self.core.board}.")

    def _cost(self, timing: Timing) -> float:
        return timing.cycles or 1

    def _timing(self, name: str, file: ArmFile, runs: int) -> Timing:
        """One value: a model has no spread."""
        timing, costs = self._counted(name, file, runs)
        ms, core = costs.ms or 0.0, self.core
        return replace(
            timing,
            min_ms=ms,
            p50_ms=ms,
            cycles=ms * core.clock_ghz * 1e6,
            isa=f"{core.board} at {core.clock_ghz:g} GHz, {timing.isa}",
        )

    def _by_op(self, file: ArmFile, total: Mix, reply: Reply) -> Costs:
        return estimate(super()._by_op(file, total, reply), file.data, self.core, self.name)


def estimate(counted: Costs, data: bytes, core: Core, name: str) -> Costs:
    """Adds times to the counts of a file's ops.

    Args:
        counted: Instructions as `Arm64Target.costs` counts them for this core.
        data: The file.
        core: The core.
        name: Name of the target that the result shows.

    Returns:
        The same rows with `ms` and `bound`; `ms` of all is their sum and that of the rest.

    Raises:
        InputError: It is no TFLite file.
    """
    traffic = op_traffic(data, core.cache_bytes)
    rows = []
    for row in counted.ops:
        moved = 0 if row.index is None else traffic.get(row.index, 0)
        found = core.bound(row.mix, moved, core.clock_ghz)
        rows.append(replace(row, ms=_ms(found.cycles, core), bound=found.by))
    rest = _ms(core.bound(counted.rest, 0, core.clock_ghz).cycles, core)
    total = sum(row.ms or 0.0 for row in rows) + rest
    return replace(
        counted, target=name, ops=tuple(rows), source="simulated", ms=total, rest_ms=rest
    )


def _ms(cycles: float, core: Core) -> float:
    return cycles / (core.clock_ghz * 1e6)

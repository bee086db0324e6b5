"""Throughput of Arm cores by class of instruction, and the least cycles that a mix takes there.

Nothing here is fitted to measurements of networks. Where the numbers come from:

* Cortex-A53: GCC's gcc/config/arm/cortex-a53.md, contributed by Arm (there is no public guide).
  Two issue slots; one load or store at a time, 64 bits a cycle; the SIMD unit is two 64-bit halves
  that a 128-bit instruction needs both of, and it issues from slot 0 only: one a cycle. (LLVM's
  AArch64SchedA53.td has two cycles for these. Networks have been measured to run faster than
  that would allow, see docs/TARGETS.md.)
* Cortex-A72: Cortex-A72 Software Optimization Guide (Arm UAN 0016A), with the throughputs as LLVM
  has them in AArch64SchedA57.td, which it uses for this core: three micro-ops a cycle; one load
  (128 bits) and one store (64 bits); pipes F0 and F1 of 64 bits for floats, so that a 128-bit FMLA
  takes both; integer products on one of them.
* Cortex-A76: Cortex-A76 Software Optimization Guide (Arm PJDOC-466751330-7215), as LLVM has it for
  its sibling in AArch64SchedNeoverseN1.td: decode of four; two units that load or store 128 bits;
  pipes V0 and V1 of 128 bits, widening products on V0 only.

Boards: clocks by their maker. Memory: twice tinymembench's memcpy (it reads and writes) in
sbc-bench's Results.md, the best of the board at this clock, one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfedge.targets.arm64.guest import Mix

MEMORY = "memory"


@dataclass(frozen=True)
class Port:
    """Something that every instruction of some classes needs.

    Attributes:
        name: What the tables call it.
        costs: Cycles that it is taken for by each unit of a count of `Mix`. Classes overlap: what
            `fmla` has here comes on top of what `neon` has.
    """

    name: str
    costs: Mapping[str, float]

    def cycles(self, mix: Mix) -> float:
        """Cycles that it is taken for by a mix."""
        return sum(cost * getattr(mix, name) for name, cost in self.costs.items())


@dataclass(frozen=True)
class Bound:
    """The least cycles that something takes.

    Attributes:
        cycles: The number.
        by: What is busy all the time then: a port, or "memory".
    """

    cycles: float
    by: str


@dataclass(frozen=True)
class Core:
    """A core on a board.

    Attributes:
        cpu: The core, a name of `tfedge.targets.arm64.cpus.CPUS`.
        board: Where it is.
        clock_ghz: Clock of the board, 10^9 cycles a second.
        cache_bytes: Size of the last cache before memory.
        memory_gb_s: What one core moves to and from memory, 10^9 bytes a second.
        ports: What can be the bottleneck.
    """

    cpu: str
    board: str
    clock_ghz: float
    cache_bytes: int
    memory_gb_s: float
    ports: tuple[Port, ...]

    def bound(self, mix: Mix, traffic: int, clock_ghz: float) -> Bound:
        """The least cycles of a mix: those of its busiest port, or of its bytes from memory.

        Args:
            mix: Instructions.
            traffic: Bytes to and from memory.
            clock_ghz: The core's clock; memory does not follow it.
        """
        found = {port.name: port.cycles(mix) for port in self.ports}
        found[MEMORY] = traffic * clock_ghz / self.memory_gb_s
        by = max(found, key=lambda name: found[name])
        return Bound(found[by], by)


CORES: dict[str, Core] = {
    core.cpu: core
    for core in (
        Core(
            "cortex-a53",
            board="Raspberry Pi 3B+",
            clock_ghz=1.4,
            cache_bytes=512 * 1024,
            memory_gb_s=2 * 1.23,
            ports=(
                Port("issue", {"instructions": 1 / 2}),
                Port("load/store", {"loads": 1, "stores": 1}),
                Port("L1 bytes", {"bytes": 1 / 8}),
                Port("SIMD", {"neon": 1}),
                Port("branch", {"branches": 1}),
            ),
        ),
        Core(
            "cortex-a72",
            board="Raspberry Pi 4",
            clock_ghz=1.5,
            cache_bytes=1024 * 1024,
            memory_gb_s=2 * 2.55,
            ports=(
                Port("issue", {"instructions": 1 / 3}),
                Port("load", {"loads": 1}),
                Port("store", {"stores": 1}),
                Port("L1 bytes", {"bytes": 1 / 24}),
                Port("F0 and F1", {"neon": 1 / 2, "fmla": 1 / 2}),
                Port("integer product", {"smlal": 1}),
                Port("branch", {"branches": 1}),
            ),
        ),
        Core(
            "cortex-a76",
            board="Raspberry Pi 5",
            clock_ghz=2.4,
            cache_bytes=2 * 1024 * 1024,
            memory_gb_s=2 * 6.025,
            ports=(
                Port("issue", {"instructions": 1 / 4}),
                Port("load/store", {"loads": 1 / 2, "stores": 1 / 2}),
                Port("L1 bytes", {"bytes": 1 / 32}),
                Port("V0 and V1", {"neon": 1 / 2}),
                Port("V0", {"smlal": 1}),
                Port("branch", {"branches": 1}),
            ),
        ),
    )
}
"""The cores that can be estimated, each on the board whose clock and memory are taken."""

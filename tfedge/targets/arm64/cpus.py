"""The CPUs that can be emulated, and what a program running on one finds in /proc and /sys.

XNNPACK (through cpuinfo) reads both there and chooses its kernels by them: the identification
must be that of the CPU that QEMU shows, else it takes others, or fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfedge.targets.machine import isa_of

_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp ssbs"
_CACHES = (("1", "Data", "32K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K"))
_ONE_CORE = (
    "possible", "present", "online", "kernel_max", "cpu0/topology/physical_package_id",
    "cpu0/topology/core_id", "cpu0/topology/core_siblings_list",
    "cpu0/topology/thread_siblings_list", "cpu0/topology/cluster_cpus_list",
)  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """Identification of an Arm core.

    Attributes:
        name: QEMU's name of it.
        part: Part number in its MIDR register.
        variant: Major revision there.
        revision: Minor revision there.
        features: What Linux lists of its instruction sets.
    """

    name: str
    part: int
    variant: int
    revision: int
    features: str

    @property
    def cpuinfo(self) -> str:
        """The text of /proc/cpuinfo, one core."""
        return (
            f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {self.features}\n"
            f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x{self.variant:x}\n"
            f"CPU part\t: 0x{self.part:03x}\nCPU revision\t: {self.revision}\n\n"
        )

    @property
    def isa(self) -> str:
        """Architecture and instruction sets, as `tfedge.targets.machine.isa` writes them."""
        return isa_of("aarch64", self.cpuinfo)


CPUS: dict[str, Cpu] = {
    cpu.name: cpu
    for cpu in (
        Cpu("cortex-a35", 0xD04, 0, 0, _V8),
        Cpu("cortex-a53", 0xD03, 0, 4, _V8),
        Cpu("cortex-a57", 0xD07, 1, 0, _V8),
        Cpu("cortex-a72", 0xD08, 0, 3, _V8),
        Cpu("cortex-a76", 0xD0B, 4, 1, _V8_2),
        Cpu("neoverse-n1", 0xD0C, 4, 1, _V8_2),
    )
}
"""Those whose identification and features QEMU 7.2 shows as the hardware does."""


def write_view(folder: Path, cpu: Cpu, system: Path) -> None:
    """Writes what the emulator shows of the file system instead of the host's.

    All CPUs have the same caches: kernels are compared, not cores.

    Args:
        folder: Where; it must not exist.
        cpu: The CPU.
        system: The unpacked aarch64 system, in a folder beside `folder`'s parent; linked to.
    """
    root = folder / "sys/devices/system/cpu"
    files = {folder / "proc/cpuinfo": cpu.cpuinfo} | {root / k: "0\n" for k in _ONE_CORE}
    for i, (level, kind, size) in enumerate(_CACHES):
        values = {"level": level, "type": kind, "size": size}
        values |= {"shared_cpu_list": "0", "coherency_line_size": "64"}
        files |= {root / f"cpu0/cache/index{i}/{k}": f"{v}\n" for k, v in values.items()}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for part in ("usr", "lib"):
        (folder / part).symlink_to(Path("../..") / system.name / part)

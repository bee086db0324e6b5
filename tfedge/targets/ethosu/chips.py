"""Which NPUs there are, and in which systems Vela can put them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfedge.errors import TargetError, did_you_mean

NPUS: dict[str, str] = {
    **dict.fromkeys(("u55-32", "u55-64", "u55-128", "u55-256"), "Ethos_U55_High_End_Embedded"),
    **dict.fromkeys(("u65-256", "u65-512"), "Ethos_U65_High_End"),
    **dict.fromkeys(
        ("u85-128", "u85-256", "u85-512", "u85-1024", "u85-2048"), "Ethos_U85_SYS_DRAM_Mid"
    ),
}
"""NPUs, and the system configuration where none is asked for. The number behind the dash is
multiply-accumulates a cycle."""

SYSTEMS: dict[str, str] = {
    "Ethos_U55_Deep_Embedded": "flash",
    "Ethos_U55_High_End_Embedded": "flash",
    "Ethos_U65_Embedded": "flash",
    "Ethos_U65_Mid_End": "DRAM",
    "Ethos_U65_High_End": "DRAM",
    "Ethos_U65_Client_Server": "DRAM",
    "Ethos_U85_SYS_Flash_Low": "flash",
    "Ethos_U85_SYS_Flash_High": "flash",
    "Ethos_U85_SYS_DRAM_Low": "DRAM",
    "Ethos_U85_SYS_DRAM_Mid": "DRAM",
    "Ethos_U85_SYS_DRAM_High": "DRAM",
}
"""System configurations of the vela.ini that Vela brings along (clock, ports, bandwidth of the
memories), and their memory beside the SRAM."""

MODES: dict[str, tuple[str, ...]] = {
    "flash": ("Shared_Sram", "Sram_Only"),
    "DRAM": (
        "Dedicated_Sram_384KB", "Dedicated_Sram_256KB", "Dedicated_Sram_512KB", "Dedicated_Sram",
        "Shared_Sram", "Sram_Only",
    ),
}  # fmt: skip
"""Memory modes (where weights and feature maps lie) by the memory beside the SRAM, the default
first. A dedicated SRAM is a cache of feature maps that lie in memory which can be written."""


@dataclass(frozen=True)
class Chip:
    """An NPU in a system.

    Attributes:
        npu: A name of `NPUS`.
        system: A name of `SYSTEMS`.
        mode: One of `MODES` for that system.
    """

    npu: str
    system: str
    mode: str

    @property
    def name(self) -> str:
        """The NPU's name, and the system's and the memory mode's where they are no defaults."""
        default = chip(self.npu)
        return self.npu if self == default else f"{self.npu}:{self.system}:{self.mode}"


def chip(name: str) -> Chip:
    """Reads "NPU", "NPU:SYSTEM" or "NPU:SYSTEM:MODE".

    Raises:
        TargetError: A part is unknown or does not fit the others; the message suggests.
    """
    npu, *rest = name.split(":")
    _known("Ethos-U NPU", npu, tuple(NPUS))
    if len(rest) > 2:
        fix = "Write ethosu:NPU, ethosu:NPU:SYSTEM or ethosu:NPU:SYSTEM:MODE"
        raise TargetError("the target's name has too many parts", f"'ethosu:{name}'", fix)
    fitting = [s for s in SYSTEMS if s.startswith(f"Ethos_{npu[:3].upper()}_")]
    system = rest[0] if rest else NPUS[npu]
    _known(f"system configuration of Ethos-{npu[:3].upper()}", system, fitting)
    modes = MODES[SYSTEMS[system]]
    mode = rest[1] if len(rest) == 2 else modes[0]
    _known(f"memory mode of {system}, beside whose SRAM is {SYSTEMS[system]}", mode, modes)
    return Chip(npu, system, mode)


def _known(what: str, word: str, choices: Sequence[str]) -> None:
    if word not in choices:
        raise TargetError(f"unknown {what}", f"'{word}'", did_you_mean(word, choices))

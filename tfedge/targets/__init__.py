"""Targets: where a file is run and what it costs there."""

from tfedge.targets.base import (
    FAMILIES,
    TARGETS,
    Counter,
    Foreign,
    Profiler,
    Target,
    Violation,
    get_target,
)

__all__ = [
    "FAMILIES", "TARGETS", "Counter", "Foreign", "Profiler", "Target", "Violation", "get_target",
]  # fmt: skip

"""Targets: where a file is run and what it costs there."""

from tfedge.targets.base import TARGETS, Counter, Profiler, Target, Violation, get_target

__all__ = ["TARGETS", "Counter", "Profiler", "Target", "Violation", "get_target"]

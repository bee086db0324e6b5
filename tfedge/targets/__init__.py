"""Targets: where a file is run and what it costs there."""

from tfedge.targets.base import TARGETS, Target, Violation, get_target

__all__ = ["TARGETS", "Target", "Violation", "get_target"]

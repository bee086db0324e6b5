"""Structured pruning: channel groups, plans, one-shot `shrink`, and `PruneChannels` for `fit`."""

from __future__ import annotations

from tfedge.graph import ChannelGroup, channel_groups
from tfedge.prune.callbacks import PruneChannels
from tfedge.prune.importance import IMPORTANCE
from tfedge.prune.plan import GroupPlan, PruningPlan
from tfedge.prune.report import PruningReport
from tfedge.prune.schedules import SCHEDULES, Constant, OneShot, PolynomialDecay
from tfedge.prune.shrinking import Shrunk, shrink

__all__ = [
    "IMPORTANCE",
    "SCHEDULES",
    "ChannelGroup",
    "Constant",
    "GroupPlan",
    "OneShot",
    "PolynomialDecay",
    "PruneChannels",
    "PruningPlan",
    "PruningReport",
    "Shrunk",
    "channel_groups",
    "shrink",
]

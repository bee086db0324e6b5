"""Structured pruning: channel groups, plans, one-shot `shrink`, and `PruneChannels` for `fit`."""

from __future__ import annotations

from tfedge.graph import ChannelGroup, ResidualBlock, channel_groups
from tfedge.prune.blocks import block_influence, choose_blocks, remove_blocks, residual_blocks
from tfedge.prune.callbacks import PruneChannels
from tfedge.prune.importance import IMPORTANCE, MEASURED
from tfedge.prune.measured import Activation, Taylor
from tfedge.prune.plan import GroupPlan, PruningPlan
from tfedge.prune.report import PruningReport
from tfedge.prune.schedules import SCHEDULES, Constant, Iterative, OneShot, PolynomialDecay
from tfedge.prune.shrinking import Shrunk, shrink

__all__ = [
    "IMPORTANCE",
    "MEASURED",
    "SCHEDULES",
    "Activation",
    "ChannelGroup",
    "Constant",
    "GroupPlan",
    "Iterative",
    "OneShot",
    "PolynomialDecay",
    "PruneChannels",
    "PruningPlan",
    "PruningReport",
    "ResidualBlock",
    "Shrunk",
    "Taylor",
    "block_influence",
    "channel_groups",
    "choose_blocks",
    "remove_blocks",
    "residual_blocks",
    "shrink",
]

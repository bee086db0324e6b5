"""A model's graph as data: tracing, channel groups, rules and surgery."""

from __future__ import annotations

from tfedge.graph.blocks import ResidualBlock, residual_blocks, without_blocks
from tfedge.graph.canonical import canonical
from tfedge.graph.channels import Analysis, ChannelGroup, Slice, analyse, channel_groups
from tfedge.graph.labels import Marks, along, unlabelled
from tfedge.graph.registry import RULES
from tfedge.graph.site import Site
from tfedge.graph.surgery import alive_labels, cut, rebuild
from tfedge.graph.trace import Call, Graph, Ref, replay, trace

__all__ = [
    "RULES",
    "Analysis",
    "Call",
    "ChannelGroup",
    "Graph",
    "Marks",
    "Ref",
    "ResidualBlock",
    "Site",
    "Slice",
    "alive_labels",
    "along",
    "analyse",
    "canonical",
    "channel_groups",
    "cut",
    "rebuild",
    "replay",
    "residual_blocks",
    "trace",
    "unlabelled",
    "without_blocks",
]

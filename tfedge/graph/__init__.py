"""A model's graph as data: tracing, channel groups, rules and surgery."""

from __future__ import annotations

from tfedge.graph.channels import Analysis, ChannelGroup, Slice, analyse, channel_groups
from tfedge.graph.labels import Marks, along, unlabelled
from tfedge.graph.registry import RULES
from tfedge.graph.site import Site
from tfedge.graph.surgery import cut
from tfedge.graph.trace import Call, Graph, Ref, replay, trace

__all__ = [
    "RULES",
    "Analysis",
    "Call",
    "ChannelGroup",
    "Graph",
    "Marks",
    "Ref",
    "Site",
    "Slice",
    "along",
    "analyse",
    "channel_groups",
    "cut",
    "replay",
    "trace",
    "unlabelled",
]

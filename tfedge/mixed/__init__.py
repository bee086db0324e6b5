"""Mixed precision: which scheme each part of a network gets, within a budget."""

from __future__ import annotations

from tfedge.mixed.allocation import BUDGETS, KEEP, Allocation, Choice, Point, allocate
from tfedge.mixed.sensitivity import MEASURES
from tfedge.mixed.survey import CANDIDATES

__all__ = [
    "BUDGETS",
    "CANDIDATES",
    "KEEP",
    "MEASURES",
    "Allocation",
    "Choice",
    "Point",
    "allocate",
]

"""Reports: the table at the end of a run (rich) and the offline HTML page (plotly)."""

from __future__ import annotations

from tfedge.report.html import write_report
from tfedge.report.table import make_console, plain_table, record_table, timing_table

__all__ = ["make_console", "plain_table", "record_table", "timing_table", "write_report"]

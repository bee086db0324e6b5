"""The table at the end of a run (rich)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfedge.record import Record, Timing
from tfedge.report import captions, rows
from tfedge.report.fitting import FittedTable, is_number

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

WIDTH_WITHOUT_TERMINAL = 10_000
"""Nothing is wrapped, cut or left out where the output is not a terminal."""

_RUN_OPTIONAL = ("smaller", "points", "diff.", "speed-up", "times fewer", "times smaller", "size")
_RUN_HAS_ALL = "report.html and records.jsonl have all"


def make_console(stderr: bool = False) -> Console:
    """A console that is wide enough for any table where the output is not a terminal."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal and console.width < WIDTH_WITHOUT_TERMINAL:
        return Console(stderr=stderr, width=WIDTH_WITHOUT_TERMINAL)
    return console


def record_table(records: Sequence[Record], title: str = "") -> Group:
    """The result table of a run.

    Rows are files (and Keras models that have no float32 file); latency stands in the same table
    where all timings are of one target, source and thread count, else in a table of its own for
    each, so that nothing is read across them.

    Args:
        records: Records in the order of the run.
        title: Title of the table.

    Returns:
        Something to print: tables and footnotes.
    """
    from rich.console import Group
    from rich.text import Text

    keys = rows.timing_keys(records)
    out: list[RenderableType] = [_main_table(records, title, keys[0] if len(keys) == 1 else None)]
    if len(keys) > 1:
        out += [_timing_table(records, key) for key in keys]
    notes = rows.footnotes(records)
    notes += rows.notes_of(records)
    out += [Text(note, style="dim") for note in notes]
    return Group(*out)


def _main_table(records: Sequence[Record], title: str, key: rows.TimingKey | None) -> FittedTable:
    metric, base = rows.metric_of(records), rows.baseline_of(records)
    unit = "points" if rows.is_fraction(metric) else "diff."
    columns = [("model", ""), ("scheme", ""), (metric or "score", "right"), (unit, "right")]
    columns += [("size", "right"), ("smaller", "right"), ("params", "right"), ("MACs", "right")]
    if key:
        columns += _latency_columns(key)
    ops = rows.ops_heading(records, key)
    columns += [(ops, "right")]
    table = FittedTable(title, columns, ("params", "MACs", ops, *_RUN_OPTIONAL), _RUN_HAS_ALL)
    if key:
        table.caption = captions.timing_caption(records, key, base)
    for record in rows.shown(records):
        factor = rows.smaller(record, base)
        cells = [
            record.label,
            record.scheme,
            rows.score_text(record, metric),
            rows.difference_text(record, base, metric),
            rows.bytes_text(record.bytes) if record.bytes else "",
            f"{factor:.2f}x" if factor else "",
            rows.count_text(record.params),
            rows.count_text(record.macs),
        ]
        cells += _latency_cells(record, base, key) if key else []
        cells += [rows.ops_text(record, key)]
        table.add_row(*cells, style="dim" if record.scheme == "keras" else "")
    return table


def _latency_columns(key: rows.TimingKey) -> list[tuple[str, str]]:
    return [(name, "right") for name in key.columns]


def _latency_cells(record: Record, base: Record | None, key: rows.TimingKey) -> list[str]:
    timing, factor = rows.timing_of(record, key), rows.speed_up(record, base, key)
    return [
        rows.latency_text(timing) if timing else "",
        f"{factor:.2f}x" if factor else "",
    ]


def _timing_table(records: Sequence[Record], key: rows.TimingKey) -> FittedTable:
    base, ops = rows.baseline_of(records), rows.ops_heading(records, key)
    columns = [("model", ""), ("scheme", ""), *_latency_columns(key), (ops, "right")]
    table = FittedTable(str(key), columns, (ops,), _RUN_HAS_ALL)
    table.caption = captions.timing_caption(records, key, base)
    for record in rows.shown(records):
        if rows.timing_of(record, key):
            cells = [record.label, record.scheme, *_latency_cells(record, base, key)]
            table.add_row(*cells, rows.ops_text(record, key))
    return table


def timing_table(timings: Sequence[Timing]) -> Group:
    """The result of `tfedge benchmark`: one table for each target, source and thread count.

    Where the width does not do, the time to set up, the memory, the partitions, the sizes, the
    cycles, the ops and the traffic go, in this order.

    Args:
        timings: Timings; the first of each key is the one that the others are compared with.
    """
    from rich.console import Group
    from rich.text import Text

    records = [Record(stage=t.model, label=t.model, scheme="", timing=[t]) for t in timings]
    out: list[RenderableType] = []
    for key in rows.timing_keys(records):
        group = [r for r in records if rows.timing_of(r, key)]
        out.append(_files_table(group, key))
        notes = rows.timing_notes([r.timing[0] for r in group]) + rows.condition_notes(group)
        out += [Text(note, style="dim") for note in notes]
    return Group(*out)


def _files_table(group: Sequence[Record], key: rows.TimingKey) -> FittedTable:
    timed, ops = key.source == "measured", rows.ops_heading(group, key)
    columns = [("model", ""), *_latency_columns(key), ("size", "right")]
    columns += [("init ms", "right"), ("peak MB", "right")] if timed else []
    found = [r.timing[0] for r in group]
    extra = rows.simulated_columns(found) if key.source == "simulated" else []
    columns += [(name, "right") for name in (*extra, ops, "partitions")]
    traffic = ("flash traffic", "DRAM traffic", "SRAM peak")
    table = FittedTable(
        str(key), columns, ("init ms", "peak MB", "partitions", "size", "cycles", ops, *traffic)
    )
    table.caption = captions.timing_caption(group, key, group[0])
    for record in group:
        timing = record.timing[0]
        cells = [record.label, *_latency_cells(record, group[0], key)]
        cells += [rows.bytes_text(timing.bytes) if timing.bytes else ""]
        once = (timing.init_ms, timing.peak_mb) if timed else ()
        cells += ["" if value is None else rows.digits_text(value) for value in once]
        cells += [rows.simulated_text(timing, name) for name in extra]
        table.add_row(*cells, rows.ops_text(record, key), str(timing.partitions or ""))
    return table


def plain_table(
    title: str,
    header: Sequence[str],
    cells: Sequence[Sequence[Any]],
    optional: Sequence[str] = (),
) -> FittedTable:
    """A table of any values; columns of numbers, with or without units, stand on the right.

    Args:
        title: Title, or "".
        header: Column names.
        cells: Rows of the same length as the header.
        optional: Columns that go where the width does not do, in this order.
    """
    shown = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in cells]
    number = []
    for i in range(len(header)):
        filled = [row[i] for row in shown if row[i]]
        number.append(bool(filled) and all(map(is_number, filled)))
    columns = [(h, "right" if n else "") for h, n in zip(header, number, strict=True)]
    table = FittedTable(title, columns, optional)
    for row in shown:
        table.add_row(*row)
    return table

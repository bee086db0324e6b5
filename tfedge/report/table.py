"""The table at the end of a run (rich)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfedge.record import Record, Timing
from tfedge.report import rows

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 160


def make_console(stderr: bool = False) -> Console:
    """A console that is wide enough for the table where the output is not a terminal."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal and console.width < WIDTH_WITHOUT_TERMINAL:
        return Console(stderr=stderr, width=WIDTH_WITHOUT_TERMINAL)
    return console


def _new(title: str, columns: Sequence[tuple[str, str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name, justify in columns:
        table.add_column(
            name,
            justify="right" if justify == "right" else "left",
            no_wrap=justify == "right",
            overflow="fold",
        )
    return table


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


def _main_table(records: Sequence[Record], title: str, key: rows.TimingKey | None) -> Table:
    metric, base = rows.metric_of(records), rows.baseline_of(records)
    unit = "points" if rows.is_fraction(metric) else "diff."
    columns = [("model", ""), ("scheme", ""), (metric or "score", "right"), (unit, "right")]
    columns += [("size", "right"), ("smaller", "right"), ("params", "right"), ("MACs", "right")]
    if key:
        columns += _latency_columns(key)
    columns += [(rows.ops_heading(records, key), "right")]
    table = _new(title, columns)
    if key:
        table.caption, table.caption_justify = _caption(records, key), "left"
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
        table.add_row(*_escaped(cells), style="dim" if record.scheme == "keras" else None)
    return table


def _escaped(cells: Sequence[str]) -> list[str]:
    """Cells as they are: labels and layer names may hold rich's markup characters."""
    from rich.markup import escape

    return [escape(c) for c in cells]


def _latency_columns(key: rows.TimingKey) -> list[tuple[str, str]]:
    return [(name, "right") for name in key.columns]


def _latency_cells(record: Record, base: Record | None, key: rows.TimingKey) -> list[str]:
    timing, factor = rows.timing_of(record, key), rows.speed_up(record, base, key)
    return [
        rows.latency_text(timing) if timing else "",
        f"{factor:.2f}x" if factor else "",
    ]


def _caption(records: Sequence[Record], key: rows.TimingKey) -> str:
    """Where and how the timings were taken."""
    timings = [t for r in records if (t := rows.timing_of(r, key))]
    loads = [t.load for t in timings]
    isa = next((t.isa for t in timings if t.isa), "")
    if key.memory:
        return "; ".join([p for p in (str(key), isa) if p] + ["memory; nothing was timed"])
    if key.source == "emulated":
        count = f"{timings[0].runs} inference{'s' * (timings[0].runs != 1)} counted"
        return "; ".join([p for p in (str(key), isa, count) if p] + ["a cost, not a latency"])
    if key.source == "simulated":
        return "; ".join([p for p in (str(key), isa) if p] + ["an estimate, not a measurement"])
    parts = [str(key), isa, f"{timings[0].runs} runs, in pairs with the first row"]
    return "; ".join([p for p in parts if p] + [f"load {min(loads):.1f} to {max(loads):.1f}"])


def _timing_table(records: Sequence[Record], key: rows.TimingKey) -> Table:
    base = rows.baseline_of(records)
    columns = [("model", ""), ("scheme", ""), *_latency_columns(key)]
    columns += [(rows.ops_heading(records, key), "right")]
    table = _new(str(key), columns)
    table.caption, table.caption_justify = _caption(records, key), "left"
    for record in rows.shown(records):
        if rows.timing_of(record, key):
            cells = [record.label, record.scheme, *_latency_cells(record, base, key)]
            table.add_row(*_escaped([*cells, rows.ops_text(record, key)]))
    return table


def timing_table(timings: Sequence[Timing]) -> Group:
    """The result of `tfedge benchmark`: one table for each target, source and thread count.

    Args:
        timings: Timings; the first of each key is the one that the others are compared with.
    """
    from rich.console import Group
    from rich.text import Text

    records = [Record(stage=t.model, label=t.model, scheme="", timing=[t]) for t in timings]
    out: list[RenderableType] = []
    for key in rows.timing_keys(records):
        group = [r for r in records if rows.timing_of(r, key)]
        columns = [("model", ""), *_latency_columns(key), ("size", "right")]
        timed = key.source == "measured"
        columns += [("init ms", "right"), ("peak MB", "right")] if timed else []
        found = [r.timing[0] for r in group]
        extra = rows.simulated_columns(found) if key.source == "simulated" else []
        columns += [(name, "right") for name in extra]
        columns += [(rows.ops_heading(group, key), "right"), ("partitions", "right")]
        table = _new(str(key), columns)
        table.caption, table.caption_justify = _caption(group, key), "left"
        for record in group:
            timing = record.timing[0]
            cells = [record.label, *_latency_cells(record, group[0], key)]
            cells += [rows.bytes_text(timing.bytes) if timing.bytes else ""]
            once = (timing.init_ms, timing.peak_mb) if timed else ()
            cells += ["" if value is None else f"{value:.3g}" for value in once]
            cells += [rows.simulated_text(timing, name) for name in extra]
            cells += [rows.ops_text(record, key), str(timing.partitions or "")]
            table.add_row(*_escaped(cells))
        out.append(table)
        out += [Text(note, style="dim") for note in rows.timing_notes(found)]
    out += [Text(note, style="dim") for note in rows.condition_notes(records)]
    return Group(*out)


def plain_table(title: str, header: Sequence[str], cells: Sequence[Sequence[Any]]) -> Table:
    """A table of any values; numbers stand on the right.

    Args:
        title: Title, or "".
        header: Column names.
        cells: Rows of the same length as the header.
    """
    number = [
        bool(cells) and all(isinstance(r[i], (int, float)) for r in cells)
        for i in range(len(header))
    ]
    table = _new(title, [(h, "right" if n else "") for h, n in zip(header, number, strict=True)])
    for row in cells:
        table.add_row(*_escaped([f"{v:,}" if isinstance(v, int) else str(v) for v in row]))
    return table

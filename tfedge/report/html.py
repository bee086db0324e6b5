"""The HTML report: one file with everything in it, plotly.js too, that opens offline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfedge.files import write_atomic
from tfedge.record import Record
from tfedge.report import captions, plots, rows
from tfedge.report.page import PAGE
from tfedge.report.scores import TITLE, score_rows, timings_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def write_report(
    records: Sequence[Record],
    path: str | Path,
    *,
    title: str = "tfedge report",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes the report.

    Args:
        records: Records in the order of the run.
        path: HTML file; an older one is replaced when the new one is complete.
        title: Heading.
        facts: Facts about the run for its last section (versions, seed, ...).

    Raises:
        OSError: The file cannot be written; an older one is left as it was.
    """
    from plotly.offline import get_plotlyjs

    sections = "\n".join(s for s in _sections(records, facts or {}) if s)
    page = PAGE.substitute(
        title=html.escape(title),
        summary=_summary(records),
        sections=sections,
        plotly=get_plotlyjs(),
    )
    write_atomic(path, page.encode())


def _sections(records: Sequence[Record], facts: Mapping[str, str]) -> list[str]:
    size = plots.front(records, plots.size_cost, "File size, KB (1 KB = 1000 bytes)")
    out = [_section("Results", _table(records) + _notes(records))]
    out += [_section(TITLE.capitalize(), _scores(records))]
    score = (rows.metric_of(records) or "score").capitalize()
    out += [_section(f"{score} against size", _plot(size, FRONT_HELP))]
    for key in rows.timing_keys(records):
        figure = plots.front(records, plots.latency_cost(key), plots.latency_title(key))
        name = "instructions" if key.source == "emulated" else "latency"
        name = "memory" if key.memory else name
        out.append(_section(f"{score} against {name}: {key}", _plot(figure, FRONT_HELP)))
    out += [_section("Error by layer", _plot(plots.layer_error(records), ERROR_HELP))]
    out += [_section("Size by layer", _plot(plots.size_by_layer(records), SIZE_HELP))]
    out += [_section("Certificates", _certificates(records))]
    return [*out, _section("This run", _facts(records, facts))]


FRONT_HELP = (
    "Colour is the scheme, shape is the stage; the dotted line joins the float32 files of the "
    "stages. Up and to the left is better. Point at a marker for all its numbers."
)
ERROR_HELP = (
    "Signal to quantization noise of each layer's output: the Keras model against the file. "
    "Higher is better; about 6 dB is one bit. Files that are hidden can be switched on in the "
    "legend."
)
SIZE_HELP = "Files that are hidden can be switched on in the legend."


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>" if body else ""


def _plot(figure: Figure | None, help_text: str) -> str:
    if figure is None:
        return ""
    plot = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True},
    )
    return f'<p class="help">{html.escape(help_text)}</p><div class="plot">{plot}</div>'


def _summary(records: Sequence[Record]) -> str:
    """Cards: the last full-integer file (or the last file) beside the baseline."""
    base = rows.baseline_of(records)
    files = [r for r in records if r.bytes and r is not base]
    final = next((r for r in reversed(files) if r.scheme == "w8a8"), files[-1] if files else None)
    if base is None or final is None:
        return ""
    metric = rows.metric_of(records)
    unit = " points" if rows.is_fraction(metric) else ""
    cards = [
        (rows.score_text(final, metric), rows.difference_text(final, base, metric) + unit, metric)
    ]
    if factor := rows.smaller(final, base):
        cards.append(
            (
                f"{factor:.1f}x",
                f"{rows.bytes_text(final.bytes)} instead of {rows.bytes_text(base.bytes)}",
                "smaller",
            )
        )
    for key in rows.timing_keys(records):
        timing = rows.timing_of(final, key)
        if timing and (factor := rows.speed_up(final, base, key)):
            words = ("faster", "slower")
            if key.source == "emulated":
                words = ("fewer instructions", "more instructions")
            if key.memory:
                words = ("smaller arena", "larger arena")
            unit = "" if key.source == "emulated" else " ms (min / p50 / p90)"
            unit = " ms (estimate)" if key.source == "simulated" else unit
            big, word = _times(factor, words)
            small = f"{rows.latency_text(timing)}{unit}, {key}"
            if rows.is_lower_bound(timing):
                big, word = _estimated(factor)
                small += f"; {captions.LOWER_BOUND}"
            cards.append((big, small, word))
    if final.macs and base.macs and final.macs != base.macs:
        note = f"{rows.count_text(final.macs)} instead of {rows.count_text(base.macs)}"
        cards.append((f"{base.macs / final.macs:.1f}x", note, "fewer MACs"))
    body = "".join(
        f'<div class="card"><div class="big">{html.escape(big)} <span>{html.escape(word)}</span>'
        f"</div><div>{html.escape(small)}</div></div>"
        for big, small, word in cards
        if big
    )
    head = f"{final.label}, {final.scheme}, beside {base.label}, {base.scheme}"
    return f'<p class="lead">{html.escape(head)}</p><div class="cards">{body}</div>'


def _times(factor: float, words: tuple[str, str]) -> tuple[str, str]:
    """A factor and its word, turned round where it is below 1."""
    return (f"{factor:.1f}x", words[0]) if factor >= 1 else (f"{1 / factor:.1f}x", words[1])


def _estimated(factor: float) -> tuple[str, str]:
    """As `_times`, of estimates that may be in the wrong order where they differ by a third."""
    if 3 / 4 < factor < 4 / 3:
        return "as fast", "or not: the estimates are too close to tell"
    big, word = _times(factor, ("faster", "slower"))
    return big, f"{word}, estimated"


def _html_table(header: Sequence[str], body: Sequence[Sequence[str]], numbers: int) -> str:
    """An HTML table; the columns from `numbers` on stand on the right."""
    side = ["" if i < numbers else ' class="n"' for i in range(len(header))]
    head = "".join(f"<th{c}>{html.escape(h)}</th>" for c, h in zip(side, header, strict=True))
    lines = [
        "<tr>"
        + "".join(f"<td{c}>{html.escape(v)}</td>" for c, v in zip(side, row, strict=True))
        + "</tr>"
        for row in body
    ]
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}'
        "</tbody></table></div>"
    )


def _table(records: Sequence[Record]) -> str:
    metric, base = rows.metric_of(records), rows.baseline_of(records)
    keys = rows.timing_keys(records)
    unit = "points" if rows.is_fraction(metric) else "difference"
    header = [
        "Model",
        "Scheme",
        (metric or "score").capitalize(),
        unit.capitalize(),
        "Size",
        "Smaller",
        "Params",
        "MACs",
    ]
    for key in keys:
        header += [f"{key.columns[0]} ({key})", key.columns[1].capitalize()]
    body = []
    for record in rows.shown(records):
        factor = rows.smaller(record, base)
        line = [record.label, record.scheme, rows.score_text(record, metric)]
        line += [rows.difference_text(record, base, metric)]
        line += [rows.bytes_text(record.bytes) if record.bytes else ""]
        line += [f"{factor:.2f}x" if factor else ""]
        line += [rows.count_text(record.params), rows.count_text(record.macs)]
        for key in keys:
            timing, speed = rows.timing_of(record, key), rows.speed_up(record, base, key)
            line += [rows.latency_text(timing) if timing else ""]
            line += [f"{speed:.2f}x" if speed else ""]
        body.append([*line, rows.ops_text(record, keys[0] if keys else None)])
    return _html_table([*header, "XNNPACK ops"], body, 2)


def _notes(records: Sequence[Record]) -> str:
    notes = rows.footnotes(records)
    notes += rows.notes_of(records)
    return "".join(f'<p class="help">{html.escape(n)}</p>' for n in notes)


def _scores(records: Sequence[Record]) -> str:
    """Accuracies on targets."""
    found = score_rows(timings_of(records))
    table = _html_table(found.header, found.cells, found.words) if found.cells else ""
    return table + "".join(
        f'<p class="help">{html.escape(n)}</p>' for n in (*found.about, *found.notes)
    )


def _certificates(records: Sequence[Record]) -> str:
    """One folded table of ops for each file."""
    out = []
    for record in (r for r in records if r.certificate):
        body = [
            [str(c.index), c.op, c.layer, c.types, "XNNPACK" if c.delegated else "no", c.reason]
            for c in record.certificate
        ]
        table = _html_table(["#", "Op", "Keras layer", "Types", "Delegated", "Reason"], body, 9)
        name = f"{record.label}, {record.scheme}"
        count = f"{rows.ops_text(record, None)} ops delegated"
        drift = _drift_text(record)
        out.append(
            f"<details><summary><b>{html.escape(name)}</b> <span>{html.escape(count)}"
            f"{html.escape(drift)}</span></summary>{table}</details>"
        )
    return "".join(out)


def _drift_text(record: Record) -> str:
    drift = record.drift
    if drift is None:
        return ""
    text = f"; output SQNR {drift.sqnr_db:.1f} dB"
    if drift.max_step:
        text += f", within one step {100 * drift.within_one_step:.1f} %, max {drift.max_step:.3g}"
    if drift.top1_agreement is not None:
        text += f", same top-1 {100 * drift.top1_agreement:.1f} %"
    return text + (f", worst layer {drift.worst_layer}" if drift.worst_layer else "")


def _facts(records: Sequence[Record], facts: Mapping[str, str]) -> str:
    body = [[k, v] for k, v in facts.items()]
    for key in rows.timing_keys(records):
        timings = [t for r in records if (t := rows.timing_of(r, key))]
        text = [captions.plural(timings[0].runs, "run")]
        text += [timings[0].isa or "instruction set unknown", captions.load_text(timings)]
        body.append([str(key), ", ".join(part for part in text if part)])
    seconds = {r.stage: r.seconds for r in records if r.scheme == "keras" and r.seconds}
    body += [[f"stage {name}", f"{s:.0f} s"] for name, s in seconds.items()]
    return _html_table(["Fact", "Value"], body, 9) if body else ""

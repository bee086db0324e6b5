"""The report's figures (plotly). Each function takes records and returns a figure, or None."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfedge.record import Record
from tfedge.report import rows

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe & Ito's palette, which colour-blind readers can tell apart; one colour a scheme.
COLOURS = {
    "float32": "#0072B2",
    "float16": "#56B4E9",
    "w8_dynamic": "#E69F00",
    "w8a8": "#D55E00",
    "w8a16": "#009E73",
    "keras": "#8a8f98",
}
OTHERS = ("#CC79A7", "#999933", "#882255", "#44AA99", "#332288")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "pentagon", "cross")
FONT = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GRID, INK, MUTED = "#e8eaee", "#1f2430", "#667085"


def colour_of(scheme: str, schemes: Sequence[str]) -> str:
    """The colour of a scheme; schemes without their own take the next of `OTHERS`."""
    if scheme in COLOURS:
        return COLOURS[scheme]
    extra = [s for s in schemes if s not in COLOURS]
    return OTHERS[extra.index(scheme) % len(OTHERS)]


def _figure(height: int) -> Figure:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    figure.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 13, "color": INK},
        height=height,
        margin={"l": 72, "r": 24, "t": 24, "b": 64},
        hoverlabel={"font": {"family": FONT, "size": 12}, "align": "left"},
        legend={"title": {"text": ""}, "orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": "#c9ced6", "ticks": "outside"}
    axis |= {"tickcolor": "#c9ced6", "title": {"standoff": 14}, "automargin": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def hover(record: Record, records: Sequence[Record]) -> str:
    """Everything about a row, for the pointer."""
    metric, base = rows.metric_of(records), rows.baseline_of(records)
    factor, difference = rows.smaller(record, base), rows.difference_text(record, base, metric)
    lines = [f"<b>{html.escape(record.label)}</b>, {html.escape(record.scheme)}"]
    if score := rows.score_text(record, metric):
        lines.append(f"{html.escape(metric)} {score}" + (f" ({difference})" if difference else ""))
    if record.bytes:
        size = f"{rows.bytes_text(record.bytes)} ({record.bytes:,} bytes)"
        lines.append(size + (f", {factor:.2f}x smaller" if factor else ""))
    if record.params:
        lines.append(f"{record.params:,} parameters, {rows.count_text(record.macs)} MACs")
    for timing in record.timing:
        key = rows.key_of(timing)
        speed = rows.speed_up(record, base, key)
        text = f"{rows.latency_text(timing)}" + (" ms (min / p50 / p90)" if timing.p50_ms else "")
        lines.append(f"{html.escape(str(key))}: {text}" + (f", {speed:.2f}x" if speed else ""))
    if ops := rows.ops_text(record, None):
        lines.append(f"{ops} ops delegated")
    if record.path:
        lines.append(html.escape(record.path))
    return "<br>".join(lines) + "<extra></extra>"


def front(
    records: Sequence[Record], cost: Callable[[Record], float | None], cost_title: str
) -> Figure | None:
    """The score against a cost, one marker a file; colour is the scheme, shape is the stage.

    The float32 files of the stages are joined by a line in the order of the run.

    Args:
        records: All records.
        cost: The cost of a record, or None where it has none.
        cost_title: Axis title with unit.
    """
    metric = rows.metric_of(records)
    points = [(r, x) for r in records if (x := cost(r)) and metric in r.metrics]
    if not metric or not points:
        return None
    scale = 100.0 if rows.is_fraction(metric) else 1.0
    figure = _figure(430)
    labels = list(dict.fromkeys(r.label for r, _ in points))
    _stage_line(
        figure, [(x, scale * r.metrics[metric]) for r, x in points if r.scheme == "float32"]
    )
    for scheme in dict.fromkeys(r.scheme for r, _ in points):
        mine = [(r, x) for r, x in points if r.scheme == scheme]
        figure.add_scatter(
            x=[x for _, x in mine],
            y=[scale * r.metrics[metric] for r, _ in mine],
            mode="markers",
            legendgroup=scheme,
            showlegend=False,
            marker={
                "size": 13,
                "color": colour_of(scheme, [r.scheme for r, _ in points]),
                "symbol": [SYMBOLS[labels.index(r.label) % len(SYMBOLS)] for r, _ in mine],
                "line": {"width": 1.2, "color": "white"},
            },
            hovertemplate=[hover(r, records) for r, _ in mine],
        )
    _legends(figure, list(dict.fromkeys(r.scheme for r, _ in points)), labels)
    _cost_axis(figure, [x for _, x in points], cost_title)
    unit = " of the file on the test set, %" if scale == 100 else " of the file on the test set"
    figure.update_yaxes(title_text=html.escape(metric).capitalize() + unit)
    scores = [scale * r.metrics[metric] for r, _ in points]
    margin = 0.08 * (max(scores) - min(scores)) or 0.01 * abs(scores[0]) or 1.0
    # Plotly's own range cuts markers at the edge in half.
    figure.update_yaxes(range=[min(scores) - margin, max(scores) + margin])
    return figure


def _stage_line(figure: Figure, points: Sequence[tuple[float, float]]) -> None:
    """A line through the stages, which shows the way from the baseline to the result."""
    if len(points) > 1:
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines",
            line={"color": COLOURS["float32"], "width": 1.2, "dash": "dot"},
            opacity=0.5,
            showlegend=False,
            hoverinfo="skip",
        )


def _legends(figure: Figure, schemes: Sequence[str], labels: Sequence[str]) -> None:
    """Two lines: which colour is which scheme (a click hides it), which shape is which stage."""
    for scheme in schemes:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=html.escape(scheme),
            legendgroup=scheme,
            marker={"size": 11, "symbol": "circle", "color": colour_of(scheme, schemes)},
        )
    for i, label in enumerate(labels):
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=html.escape(label),
            marker={"size": 10, "symbol": SYMBOLS[i % len(SYMBOLS)], "color": MUTED},
            legend="legend2",
        )
    figure.update_layout(
        margin_t=84,
        legend={"y": 1.10},
        legend2={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )


def _cost_axis(figure: Figure, values: Sequence[float], title: str) -> None:
    """A logarithmic axis with readable ticks (1, 2, 5 steps), a little wider than the data."""
    low, high = min(values), max(values)
    ticks = [
        m * 10.0**e
        for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for m in (1, 2, 3, 5, 7)
    ]
    figure.update_xaxes(
        type="log",
        title_text=title,
        range=[math.log10(low) - 0.08, math.log10(high) + 0.08],
        tickvals=ticks,
        ticktext=[f"{t:g}" for t in ticks],
    )


def size_cost(record: Record) -> float | None:
    """File size in KB (1000 bytes)."""
    return record.bytes / 1000 if record.bytes else None


def latency_cost(key: rows.TimingKey) -> Callable[[Record], float | None]:
    """Cost function of one timing key: p50 in ms, millions of instructions, or an arena's KB."""

    def cost(record: Record) -> float | None:
        timing = rows.timing_of(record, key)
        if timing is None:
            return None
        if key.memory:
            return timing.arena_bytes / 1000 if timing.arena_bytes else None
        if key.source == "emulated":
            return timing.instructions / 1e6 if timing.instructions else None
        return timing.p50_ms

    return cost


def latency_title(key: rows.TimingKey) -> str:
    """Axis title of one timing key."""
    if key.memory:
        return f"Arena, KB (1 KB = 1000 bytes; {key})"
    if key.source == "emulated":
        return f"Million instructions per inference ({key})"
    if key.source == "simulated":
        return f"Estimated ms per inference ({key})"
    return f"Latency p50 per inference, ms ({key})"


def layer_error(records: Sequence[Record]) -> Figure | None:
    """SQNR of each layer's output in each file against its Keras model, dB."""
    with_layers = [r for r in records if r.drift is not None and r.drift.layers]
    if not with_layers:
        return None
    figure = _figure(440)
    finals = _last_of_each_scheme(with_layers)
    schemes = [r.scheme for r in with_layers]
    for record in with_layers:
        drift: Any = record.drift
        top = max((d.sqnr_db for d in drift.layers if math.isfinite(d.sqnr_db)), default=100.0)
        figure.add_scatter(
            x=[html.escape(d.layer) for d in drift.layers],
            y=[d.sqnr_db if math.isfinite(d.sqnr_db) else top for d in drift.layers],
            mode="lines+markers",
            name=html.escape(f"{record.label}, {record.scheme}"),
            visible=True if record in finals else "legendonly",
            line={"color": colour_of(record.scheme, schemes), "width": 2},
            marker={"size": 7},
            customdata=[[d.max_step, d.cosine, str(round(d.sqnr_db, 1))] for d in drift.layers],
            hovertemplate="<b>%{x}</b><br>SQNR %{customdata[2]} dB<br>largest difference "
            "%{customdata[0]:.3g} steps<br>cosine %{customdata[1]:.6f}",
        )
    figure.update_xaxes(title_text="Layer, in execution order", tickangle=-45)
    figure.update_yaxes(title_text="SQNR against the Keras model, dB")
    _legend_below(figure)
    return figure


def _last_of_each_scheme(records: Sequence[Record]) -> list[Record]:
    """The final model's integer files (all files where there is none): what is shown at first."""
    last = {r.scheme: r for r in records}
    integer = [r for s, r in last.items() if s in ("w8a8", "w8a16")]
    return integer or list(last.values())


def _legend_below(figure: Figure) -> None:
    figure.update_layout(
        legend={"orientation": "v", "x": 1.01, "y": 1, "yanchor": "top", "xanchor": "left"},
        margin={"l": 72, "r": 24, "t": 24, "b": 64},
    )


def size_by_layer(records: Sequence[Record]) -> Figure | None:
    """Bytes of weights by layer, one bar series a file; the first and the last are shown."""
    files = [r for r in records if r.size_by_layer]
    if not files:
        return None
    layers = list(dict.fromkeys(name for r in files for name in r.size_by_layer))
    figure = _figure(max(320, 80 + 26 * len(layers)))
    base, finals = rows.baseline_of(files), _last_of_each_scheme(files)
    for record in files:
        figure.add_bar(
            y=[html.escape(name) or "(not of a layer)" for name in layers],
            x=[record.size_by_layer.get(name, 0) / 1000 for name in layers],
            name=html.escape(f"{record.label}, {record.scheme}"),
            orientation="h",
            visible=True if record is base or record in finals else "legendonly",
            marker_color=colour_of(record.scheme, [r.scheme for r in files]),
            hovertemplate="<b>%{y}</b><br>%{x:.3f} KB",
        )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(title_text="Weights in the file, KB (1 KB = 1000 bytes)")
    figure.update_yaxes(autorange="reversed", title_text="Layer")
    _legend_below(figure)
    return figure

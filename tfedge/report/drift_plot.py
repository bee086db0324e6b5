"""A picture of where a file parts from its model: one bar a layer, as an SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from tfedge.errors import InputError
from tfedge.record import Drift, LayerDrift

_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 18, 250, 420, 190, 64
_BAR, _WORST, _FIRST, _INK, _GRID = "#0072B2", "#D55E00", "#E69F00", "#1f2430", "#d8dbe0"
_STEP = 10  # dB between lines of the grid


def drift_svg(drift: Drift, title: str) -> str:
    """Signal-to-noise ratio of every layer in execution order, the first and the worst marked.

    A layer that is equal in both has an infinite ratio and a bar over the whole width.

    Args:
        drift: Of `tfedge.verify`.
        title: Shown above.

    Raises:
        InputError: No layer of the model has a counterpart in the file.
    """
    if not drift.layers:
        raise InputError("there is nothing to draw", "no layer with a counterpart in the file")
    finite = [d.sqnr_db for d in drift.layers if math.isfinite(d.sqnr_db)]
    low = min(0.0, _STEP * math.floor(min(finite, default=0.0) / _STEP))
    high = max(_STEP, _STEP * math.ceil(max(finite, default=_STEP) / _STEP))
    bottom = _TOP + _ROW * len(drift.layers)
    parts = [
        f'<text x="10" y="20" font-weight="bold">{html.escape(title)}</text>',
        f'<text x="10" y="38">{html.escape(_summary(drift))}</text>',
        *_grid(low, high, bottom),
    ]
    for i, layer in enumerate(drift.layers):
        parts += _bar(layer, _TOP + _ROW * i, (low, high), _colour(drift, layer))
    size = f'width="{_LEFT + _WIDTH + _RIGHT}" height="{bottom + 30}"'
    style = f'font-family="sans-serif" font-size="12" fill="{_INK}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    return "\n".join(
        [head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""]
    )


def _summary(drift: Drift) -> str:
    text = f"outputs {_decibels(drift.sqnr_db)}, {drift.samples} samples"
    text += f"; worst layer {drift.worst_layer}" if drift.worst_layer else ""
    return text + (f"; first to part {drift.first_layer}" if drift.first_layer else "")


def _colour(drift: Drift, layer: LayerDrift) -> str:
    if layer.layer == drift.worst_layer:
        return _WORST
    return _FIRST if layer.layer == drift.first_layer else _BAR


def _grid(low: float, high: float, bottom: int) -> list[str]:
    parts = []
    count = round((high - low) / _STEP)
    every = max(1, count // 8)
    for i in range(0, count + 1, every):
        value = low + i * _STEP
        x = _LEFT + _WIDTH * (value - low) / (high - low)
        parts.append(f'<path d="M{x:.1f} {_TOP - 4}V{bottom}" stroke="{_GRID}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:.0f}</text>')
    return [*parts, f'<text x="{_LEFT + _WIDTH + 14}" y="{bottom + 16}">SQNR, dB</text>']


def _bar(layer: LayerDrift, top: int, ends: Sequence[float], colour: str) -> list[str]:
    low, high = ends
    value = layer.sqnr_db if math.isfinite(layer.sqnr_db) else high
    width = _WIDTH * (value - low) / (high - low)
    name = layer.layer if len(layer.layer) <= 36 else f"{layer.layer[:35]}…"
    note = _decibels(layer.sqnr_db)
    note += f", {layer.max_step:.3g} steps" if layer.max_step else ""
    return [
        f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">{html.escape(name)}</text>',
        f'<rect x="{_LEFT}" y="{top + 2}" width="{width:.1f}" height="{_ROW - 5}" fill="{colour}">'
        f"<title>{html.escape(layer.tensor)}</title></rect>",
        f'<text x="{_LEFT + width + 6:.1f}" y="{top + 12}">{note}</text>',
    ]


def _decibels(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "equal"

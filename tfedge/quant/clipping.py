"""Choosing activation ranges from histograms: what to clip so that the rest is finer.

Calibration reads the data twice and keeps one histogram of `BINS` a quantizer, so that memory does
not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge._keras import tf
from tfedge.errors import InputError, did_you_mean
from tfedge.quant import observe
from tfedge.quant.ends import set_range
from tfedge.quant.observe import Watcher
from tfedge.quant.ranges import nice_range

BINS = 2048
_SHARES = np.linspace(0.2, 1.0, 65)  # of an end, that are tried
_PERCENT = 99.99


@dataclass
class Histogram:
    """How often values fall where, at one quantizer.

    Attributes:
        low: Left end of the first bin; 0 or less.
        high: Right end of the last bin; 0 or more.
        counts: float64 [BINS].
        bits: Of the quantizer, 8 or 16.
    """

    low: float
    high: float
    counts: np.ndarray
    bits: int

    @property
    def centers(self) -> np.ndarray:
        """Middle of each bin, float64 [BINS]."""
        width = (self.high - self.low) / len(self.counts)
        return self.low + width * (np.arange(len(self.counts)) + 0.5)


class HistogramWatcher:
    """Collects a histogram at every quantizer, between ends that a Watcher has found.

    Args:
        ends: The Watcher of an earlier pass over the same data.
    """

    def __init__(self, ends: Watcher) -> None:
        self._ends = ends.seen
        self.found: dict[int, Histogram] = {}

    def activation(self, low: Any, high: Any, bits: int, values: Any) -> None:
        """Takes one batch of what reaches a quantizer; see `Watcher.activation`."""
        del high
        ends = self._ends[id(low)]
        top = ends.high if ends.high > ends.low else ends.low + 1.0
        if id(low) not in self.found:
            self.found[id(low)] = Histogram(ends.low, top, np.zeros(BINS), bits)
        counts = tf.histogram_fixed_width(values, [ends.low, top], BINS)
        self.found[id(low)].counts += counts.numpy()


def min_max(histogram: Histogram) -> tuple[float, float]:
    """All values: nothing is clipped."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram) -> tuple[float, float]:
    """Without the smallest and the largest 0.01 % of the values (of each sign's end)."""
    total = histogram.counts.sum()
    below = np.cumsum(histogram.counts) / max(total, 1.0)
    width = (histogram.high - histogram.low) / len(histogram.counts)
    rest = 1.0 - _PERCENT / 100.0
    first = int(np.searchsorted(below, rest))
    last = int(np.searchsorted(below, 1.0 - rest))
    low, high = histogram.low + first * width, histogram.low + (last + 1) * width
    return min(low, 0.0), max(high, 0.0)


def mse(histogram: Histogram) -> tuple[float, float]:
    """The least mean squared error, of rounding inside the range and of clipping outside.

    Both ends are searched over shares of 20 % to 100 %: each error is that of the bins' centers,
    step^2 / 12 inside (uniform rounding error) and (x - end)^2 outside.
    """
    lows = histogram.low * _SHARES if histogram.low < 0 else np.zeros(1)
    highs = histogram.high * _SHARES if histogram.high > 0 else np.zeros(1)
    if histogram.bits == 16:  # symmetric: one end decides
        ends = max(-histogram.low, histogram.high) * _SHARES
        errors = _clip_error(histogram, -ends, -1) + _clip_error(histogram, ends, 1)
        best = int(np.argmin(errors + (2 * ends / 65535) ** 2 / 12 * histogram.counts.sum()))
        return max(histogram.low, -ends[best]), min(histogram.high, ends[best])
    step = (highs[None, :] - lows[:, None]) / 255.0
    error = step**2 / 12 * histogram.counts.sum()
    error += _clip_error(histogram, lows, -1)[:, None] + _clip_error(histogram, highs, 1)[None, :]
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[row]), float(highs[column])


def _clip_error(histogram: Histogram, ends: np.ndarray, side: int) -> np.ndarray:
    """Sum of squared distances of the values beyond each end, on its side."""
    beyond = np.maximum(side * (histogram.centers[None, :] - ends[:, None]), 0.0)
    return (np.square(beyond) * histogram.counts[None, :]).sum(1)


def kl(histogram: Histogram) -> tuple[float, float]:
    """The least Kullback-Leibler divergence of the quantized distribution from the clipped one.

    As in Migacz 2017, "8-bit Inference with TensorRT": for each share of the range, P is the
    histogram inside with what is clipped put into the end bins; Q spreads each step's count evenly
    over the bins of it that are not empty. One magnitude limits both ends.
    """
    levels = 2**histogram.bits - 1 if histogram.bits == 8 else BINS
    largest = max(-histogram.low, histogram.high)
    best, least = (histogram.low, histogram.high), np.inf
    for limit in largest * _SHARES:
        low, high = max(histogram.low, -limit), min(histogram.high, limit)
        divergence = _divergence(histogram, low, high, levels)
        if divergence < least:
            best, least = (float(low), float(high)), divergence
    return best


def _divergence(histogram: Histogram, low: float, high: float, levels: int) -> float:
    centers, counts = histogram.centers, histogram.counts
    inside = (centers >= low) & (centers <= high)
    if inside.sum() < 2:
        return np.inf
    kept = counts[inside].copy()
    kept[0] += counts[centers < low].sum()
    kept[-1] += counts[centers > high].sum()
    if not kept.sum():
        return np.inf
    codes = np.round((centers[inside] - low) / (high - low) * levels).astype(int)
    filled = counts[inside] > 0
    sums = np.bincount(codes, counts[inside], levels + 1)
    full = np.bincount(codes, filled, levels + 1)
    spread = np.where(filled, sums[codes] / np.maximum(full[codes], 1), 0.0)
    p, q = kept / kept.sum(), spread / max(spread.sum(), 1e-30)
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / np.maximum(q[some], 1e-10))))


RANGE_METHODS: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "min_max": min_max,
    "percentile": percentile,
    "mse": mse,
    "kl": kl,
}


def get_method(name: str) -> Callable[[Histogram], tuple[float, float]]:
    """Looks up a way to choose ranges.

    Raises:
        InputError: There is none of this name; the message suggests the nearest.
    """
    if name not in RANGE_METHODS:
        raise InputError("unknown range method", repr(name), did_you_mean(name, RANGE_METHODS))
    return RANGE_METHODS[name]


def clip(ends: Watcher, histograms: HistogramWatcher, method: str) -> None:
    """Sets every range as a method says.

    Args:
        ends: What the first pass over the data found.
        histograms: What the second found.
        method: One of `RANGE_METHODS`.
    """
    choose = get_method(method)
    for key, entry in ends.seen.items():
        low, high = choose(histograms.found[key])
        set_range(entry.low_variable, entry.high_variable, *nice_range(low, high, entry.bits))


def histograms_of(run: Callable[[], None], ends: Watcher) -> HistogramWatcher:
    """Runs over the data once more and collects histograms.

    Args:
        run: Runs the model eagerly over the calibration data.
        ends: What the first pass found.
    """
    watcher = HistogramWatcher(ends)
    with observe.watching(watcher):
        run()
    return watcher

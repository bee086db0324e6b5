"""Channel importance: a function `(group, weights) -> scores`, one score a channel.

`weights` maps (layer, weight index) to arrays. A channel's score is gathered over all coupled
layers: each slice gives a norm per channel, divided by its mean over the group's channels so that
wide and narrow layers count alike, and the slices are averaged (as Torch-Pruning's group
importance: Fang et al. 2023, "DepGraph"). Importances that look at data are in measured.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfedge.errors import InputError, did_you_mean
from tfedge.graph import ChannelGroup, Slice

Weights = Mapping[tuple[str, int], np.ndarray]
Importance = Callable[[ChannelGroup, Any], np.ndarray]

# Vectors that shift or track but do not scale a channel say nothing about its weight.
_IGNORED = frozenset({"bias", "beta", "moving_mean", "moving_variance", "range"})


def per_channel(group: ChannelGroup, piece: Slice, values: np.ndarray) -> np.ndarray:
    """Sums an array over each channel's positions.

    Args:
        group: The group.
        piece: The slice.
        values: Array of the weight's shape.

    Returns:
        Float array [channels].
    """
    other = tuple(a for a in range(values.ndim) if a != piece.axis)
    along_axis = values.sum(axis=other)[piece.index]
    return np.bincount(piece.channel, weights=along_axis, minlength=group.channels)


def weighty(group: ChannelGroup, weights: Weights) -> Iterator[tuple[Slice, np.ndarray]]:
    """The slices that say something about a channel's weight, with the whole weight."""
    for piece in group.slices:
        if piece.weight_name.rsplit(".", 1)[-1] not in _IGNORED:
            yield piece, weights[piece.layer, piece.weight]


def averaged(scores: list[np.ndarray], channels: int) -> np.ndarray:
    """The mean of scores [channels], each divided by its own mean first; ones where none."""
    if not scores:
        return np.ones(channels)
    return np.mean([s / max(float(s.mean()), 1e-12) for s in scores], axis=0)


def l2(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """Euclidean norm of the channel's weights, sqrt(sum w^2), gathered as the module says."""
    scores = [np.sqrt(per_channel(group, s, np.square(w))) for s, w in weighty(group, weights)]
    return averaged(scores, group.channels)


def l1(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """Sum of magnitudes, sum |w| (Li et al. 2017), gathered as the module says."""
    scores = [per_channel(group, s, np.abs(w)) for s, w in weighty(group, weights)]
    return averaged(scores, group.channels)


def bn_scale(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """|gamma| of the batch norms on the channel (Liu et al. 2017, network slimming).

    A group without a batch norm falls back to `l2`.
    """
    gammas = tuple(s for s in group.slices if s.weight_name == "gamma")
    if not gammas:
        return l2(group, weights)
    return l1(ChannelGroup(group.name, group.channels, gammas), weights)


def fpgm(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """Distance to the other filters, sum_j ||w_c - w_j||_2 (He et al. 2019, FPGM).

    A filter near the geometric median of its layer can be replaced by the others, however large it
    is. The filters are those of the layers that produce the channels; the sums of the layers are
    gathered as the module says.
    """
    pieces = [(s, w) for s, w in weighty(group, weights) if w.ndim > 1]
    made = [(s, w) for s, w in pieces if s.role == "out"] or pieces
    return averaged([_distances(group, s, w) for s, w in made], group.channels)


def _distances(group: ChannelGroup, piece: Slice, values: np.ndarray) -> np.ndarray:
    """Sum of the distances of each channel's weights to those of all other channels."""
    rows = np.take(values, piece.index, axis=piece.axis)
    rows = np.moveaxis(rows, piece.axis, 0).reshape(len(piece.index), -1).astype(np.float64)
    order = np.argsort(piece.channel, kind="stable")
    channel = piece.channel[order]
    place = np.arange(len(order)) - np.searchsorted(channel, channel)  # among its channel's rows
    filters = np.zeros((group.channels, int(place.max(initial=0)) + 1, rows.shape[1]))
    filters[channel, place] = rows[order]
    filters = filters.reshape(group.channels, -1)
    squares = np.square(filters).sum(1)
    gram = filters @ filters.T
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * gram, 0)).sum(1)


def lamp(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """Layer-adaptive magnitude, s_c / sum of s_j over all j with s_j >= s_c, with s = l2^2.

    The share of a channel in what would be left if all smaller ones were gone (Lee et al. 2021,
    LAMP, there for single weights). The order within a group is that of `l2`; between groups
    (scope="global") the largest channel of every group scores 1 and is never the first to go.
    """
    squares = np.square(l2(group, weights))
    order = np.argsort(squares, kind="stable")
    left = np.cumsum(squares[order][::-1])[::-1]
    scores = np.empty(group.channels)
    scores[order] = squares[order] / np.maximum(left, 1e-30)
    return scores


def random(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """A random order that depends on the group's name only: the baseline to beat."""
    seed = sum((i + 1) * b for i, b in enumerate(group.name.encode()))
    return np.random.default_rng(seed).permutation(group.channels) / group.channels


IMPORTANCE: dict[str, Importance] = {
    "l1": l1,
    "l2": l2,
    "bn_scale": bn_scale,
    "fpgm": fpgm,
    "lamp": lamp,
    "random": random,
}
MEASURED = {"taylor": "Taylor", "activation": "Activation"}
"""Importances that need data: their names in recipes, and their classes in measured.py."""


def get_importance(importance: str | Importance) -> Importance:
    """Looks up an importance by name, or takes a callable as it is.

    Raises:
        InputError: The name is unknown, or needs data.
    """
    if callable(importance):
        return importance
    if importance in MEASURED:
        raise InputError(
            f"importance '{importance}' needs data",
            fix=f"Pass importance=tfedge.prune.{MEASURED[importance]}(data)",
        )
    if importance not in IMPORTANCE:
        raise InputError(
            "unknown importance",
            f"'{importance}'",
            did_you_mean(str(importance), [*IMPORTANCE, *MEASURED]),
        )
    return IMPORTANCE[importance]

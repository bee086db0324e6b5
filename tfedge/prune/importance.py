"""Channel importance: a function `(group, weights) -> scores`, one score a channel.

`weights` maps (layer, weight index) to arrays. A channel's score is gathered over all coupled
layers: each slice gives a norm per channel, divided by its mean over the group's channels so that
wide and narrow layers count alike, and the slices are averaged (as Torch-Pruning's group
importance: Fang et al. 2023, "DepGraph").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tfedge.errors import InputError, ModelError, did_you_mean
from tfedge.graph import ChannelGroup, Slice

Weights = Mapping[tuple[str, int], np.ndarray]
Importance = Callable[[ChannelGroup, Weights], np.ndarray]

# Vectors that shift or track but do not scale a channel say nothing about its weight.
_IGNORED = frozenset({"bias", "beta", "moving_mean", "moving_variance"})


def per_channel(group: ChannelGroup, piece: Slice, values: np.ndarray) -> np.ndarray:
    """Sums a non-negative array over each channel's positions.

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


def _grouped(
    group: ChannelGroup, weights: Weights, norm: Callable[[np.ndarray], np.ndarray], root: bool
) -> np.ndarray:
    total, count = np.zeros(group.channels), 0
    for piece in group.slices:
        if piece.weight_name.rsplit(".", 1)[-1] in _IGNORED:
            continue
        values = weights[piece.layer, piece.weight]
        if not np.isfinite(values).all():
            raise ModelError(
                f"weight '{piece.weight_name}' of layer '{piece.layer}' is not finite",
                "NaN or infinity",
                "Train the model again before pruning it",
            )
        score = per_channel(group, piece, norm(values))
        score = np.sqrt(score) if root else score
        total += score / max(score.mean(), 1e-12)
        count += 1
    return total / max(count, 1)


def l2(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """Euclidean norm of the channel's weights, sqrt(sum w^2), gathered as the module says."""
    return _grouped(group, weights, np.square, root=True)


def l1(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """Sum of magnitudes, sum |w| (Li et al. 2017), gathered as the module says."""
    return _grouped(group, weights, np.abs, root=False)


def bn_scale(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """|gamma| of the batch norms on the channel (Liu et al. 2017, network slimming).

    A group without a batch norm falls back to `l2`.
    """
    gammas = tuple(s for s in group.slices if s.weight_name == "gamma")
    if not gammas:
        return l2(group, weights)
    scaled = ChannelGroup(group.name, group.channels, gammas)
    return _grouped(scaled, weights, np.abs, root=False)


def random(group: ChannelGroup, weights: Weights) -> np.ndarray:
    """A random order that depends on the group's name only: the baseline to beat."""
    seed = sum((i + 1) * b for i, b in enumerate(group.name.encode()))
    return np.random.default_rng(seed).permutation(group.channels).astype(float)


IMPORTANCE: dict[str, Importance] = {"l1": l1, "l2": l2, "bn_scale": bn_scale, "random": random}


def get_importance(importance: str | Importance) -> Importance:
    """Looks up an importance by name, or takes a callable as it is.

    Raises:
        InputError: The name is unknown.
    """
    if callable(importance):
        return importance
    if importance not in IMPORTANCE:
        raise InputError(
            "unknown importance", f"'{importance}'", did_you_mean(str(importance), IMPORTANCE)
        )
    return IMPORTANCE[importance]

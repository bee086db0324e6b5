"""What an activation function does to labelled channels: keeps them, counts them, or mixes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tfedge.graph.labels import Marks, unlabelled
from tfedge.graph.site import Site

_ELEMENTWISE = frozenset(
    "linear relu relu6 leaky_relu elu selu celu gelu silu swish sigmoid hard_sigmoid hard_silu "
    "hard_swish hard_tanh tanh softplus softsign exponential mish log_sigmoid tanh_shrink "
    "soft_shrink hard_shrink squareplus threshold sparse_plus sparse_sigmoid".split()
)
_COUNTING = frozenset({"softmax", "log_softmax"})
_OWN = ("keras", "tf_keras", "tensorflow")


def kind_of(function: Any) -> str:
    """How an activation treats channels.

    Args:
        function: The activation of a layer; None for none.

    Returns:
        "elementwise", "softmax" (counts the channels), "glu" (halves them) or "mixing".
    """
    name = getattr(function, "__name__", type(function).__name__)
    own = (getattr(function, "__module__", None) or "").split(".")[0] in _OWN
    if function is None or (own and name in _ELEMENTWISE):
        return "elementwise"
    if own and name in _COUNTING:
        return "softmax"
    if own and name == "glu":
        return "glu"
    return "elementwise" if _is_elementwise(function) else "mixing"


@lru_cache(maxsize=256)
def _is_elementwise(function: Callable) -> bool:
    """Tries a user's function: each output may depend on its own input only."""
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype("float32")
    try:
        base = np.asarray(function(x.copy()))
        if base.shape != x.shape:
            return False
        for place in ((0, 1, 2, 3), (1, 3, 0, 5)):
            other = x.copy()
            other[place] += 1.5
            changed = np.asarray(function(other)) != base
            changed[place] = False
            if changed.any():
                return False
        moved = np.asarray(function(np.ascontiguousarray(x[..., ::-1])))
    except Exception:  # noqa: BLE001 - a function that fails on a plain array is not known
        return False
    return bool(np.array_equal(moved[..., ::-1], base))


def activated(site: Site, labels: np.ndarray, axis: int) -> Marks:
    """Marks of a layer's output after its activation.

    Args:
        site: The call.
        labels: Labels of the channels before the activation.
        axis: The channel axis of the output, not negative.
    """
    function = getattr(site.layer, "activation", None)
    kind = kind_of(function)
    rank = len(site.out_shapes[0])
    last = axis == rank - 1
    if kind == "softmax" and last:
        site.counts(labels)
    elif kind == "glu" and last:
        halves = labels.reshape(*labels.shape[:-1], 2, -1)
        site.tie(halves, halves[..., :1, :])
        labels = halves[..., 0, :]
    elif kind == "mixing" or (kind == "glu" and not last):
        name = getattr(function, "__name__", type(function).__name__)
        site.block(labels, f"has the activation '{name}', which does not act element by element")
        return unlabelled(rank)
    return site.out(labels, axis)

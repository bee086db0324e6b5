"""Weights of a layer into its built counterpart."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.errors import ModelError


def copy_weights(old: Any, new: Any) -> None:
    """Copies the weights of a layer into its built counterpart.

    By position where the shapes agree, else by name.

    Raises:
        ModelError: The weights do not correspond.
    """
    if type(old).__name__ == "Discretization":  # its boundaries crossed with its config
        return
    have, want = list(old.weights), list(new.weights)
    if [_size(w) for w in have] != [_size(w) for w in want]:
        have = _by_name(old, have, want)
    new.set_weights(
        [np.asarray(w).reshape(tuple(t.shape)) for w, t in zip(have, want, strict=True)]
    )
    if hasattr(new, "finalize_state"):
        new.finalize_state()


def _size(weight: Any) -> tuple:
    return tuple(d for d in weight.shape if d != 1)


def _by_name(layer: Any, have: list[Any], want: list[Any]) -> list[Any]:
    names = {_last(w): w for w in have}
    found = [names.get(_last(w)) for w in want]
    matched = [f is not None and _size(f) == _size(w) for f, w in zip(found, want, strict=True)]
    if len(names) != len(have) or len(have) != len(want) or not all(matched):
        raise ModelError(
            f"the weights of layer '{layer.name}' ({type(layer).__name__}) do not correspond",
            f"{[tuple(w.shape) for w in have]} and {[tuple(w.shape) for w in want]}",
            "Pass an equivalent class in custom_objects",
        )
    return found


def _last(weight: Any) -> str:
    return str(getattr(weight, "path", weight.name)).split("/")[-1].split(":")[0]

"""What a user asks of pruning: the checked values, and their JSON form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tfedge.errors import InputError, did_you_mean
from tfedge.prune.importance import Importance, get_importance

BUDGETS = ("target_macs", "target_params", "target_bytes")
SCOPES = ("uniform", "global")
DEFAULT_SPARSITY = 0.5


@dataclass(frozen=True)
class Request:
    """What to prune. Exactly one of `sparsity` and the three targets is used.

    Attributes:
        sparsity: Fraction of the channels to cut, 0 < s < 1.
        target_macs: Multiply-accumulates that remain: a fraction of the model's below 1, else
            their number.
        target_params: Parameters that remain, likewise.
        target_bytes: Bytes of the weights that remain, at the size of their dtype (4 for float32),
            likewise. An int8 file of the model is about a quarter of it.
        scope: "uniform": every group loses the same share. "global": the channels of all groups
            compete by their scores, so that groups lose different shares.
        importance: Name in `IMPORTANCE`, or a function `(group, weights) -> scores`.
        round_to: Kept channels are a multiple of this (8 suits XNNPACK's kernels; 1 is exact). A
            group of at most `round_to` channels is left alone, and the plan says so.
        floor: Fraction of each group's channels that always stays; None means 0.1 for
            scope="global", where a group could be emptied else, and 0 otherwise.
        skip: Layer names or regexes (full match) whose channels stay.
        overrides: Sparsity by layer name or regex, for groups that those layers produce. An exact
            name wins over a regex, an earlier regex over a later one.
    """

    sparsity: float | None = None
    target_macs: float | None = None
    target_params: float | None = None
    target_bytes: float | None = None
    scope: str = "uniform"
    importance: str | Importance = "l2"
    round_to: int = 8
    floor: float | None = None
    skip: tuple[str, ...] = ()
    overrides: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("sparsity", *BUDGETS)
        given = {k: getattr(self, k) for k in names if getattr(self, k) is not None}
        if len(given) != 1:
            raise InputError(
                f"pruning needs exactly one of {', '.join(names[:-1])} and {names[-1]}",
                ", ".join(f"{k}={v}" for k, v in given.items()) or "none of them",
            )
        for key, value in given.items():
            _check_target(key, value) if key in BUDGETS else _check_share(key, value, False)
        for key, value in self.overrides.items():
            _check_share(f"overrides[{key}]", value, True)
        if self.floor is not None:
            _check_share("floor", self.floor, True)
        if self.scope not in SCOPES:
            raise InputError("unknown scope", f"'{self.scope}'", did_you_mean(self.scope, SCOPES))
        if self.round_to < 1:
            raise InputError("round_to must be at least 1", str(self.round_to))
        get_importance(self.importance)

    @property
    def budget(self) -> tuple[str, float] | None:
        """("macs", "params" or "bytes", target), or None where a sparsity is asked for."""
        for key in BUDGETS:
            if getattr(self, key) is not None:
                return key.removeprefix("target_"), float(getattr(self, key))
        return None

    @property
    def least(self) -> float:
        """Fraction of each group's channels that always stays."""
        return (0.1 if self.scope == "global" else 0.0) if self.floor is None else self.floor

    def settings(self) -> dict[str, Any]:
        """The request as plain JSON values."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        if callable(self.importance):
            kind = self.importance
            out["importance"] = getattr(kind, "__name__", type(kind).__name__)
        out["skip"], out["overrides"] = list(self.skip), dict(self.overrides)
        return {k: v for k, v in out.items() if v is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _check_share(key: str, value: Any, zero: bool) -> None:
    if not (_is_number(value) and (value > 0 or (zero and value == 0)) and value < 1):
        raise InputError(
            f"{key} must lie between 0 and 1, {'1' if zero else 'both'} excluded",
            str(value),
            "A sparsity of 1.0 would leave nothing; 0.5 cuts half of the channels",
        )


def _check_target(key: str, value: Any) -> None:
    whole = _is_number(value) and value > 1 and value == int(value)
    if not (_is_number(value) and value > 0) or not (value < 1 or whole):
        raise InputError(
            f"{key} must lie between 0 and 1, both excluded, or be a whole number above 1",
            str(value),
            "0.5 keeps half of the model's; 2000000 keeps two million",
        )


def make_request(sparsity: float | None, importance: Any, round_to: int, limits: dict) -> Request:
    """Builds a Request from a public function's arguments.

    Without a sparsity and a budget in `limits`, half of the channels go.

    Raises:
        InputError: An unknown keyword (with the nearest), a bad value, or a sparsity and a budget.
    """
    known = {f.name for f in fields(Request)}
    for key in limits:
        if key not in known:
            raise InputError("unknown pruning option", f"'{key}'", did_you_mean(key, known))
    if sparsity is None and all(limits.get(k) is None for k in BUDGETS):
        sparsity = DEFAULT_SPARSITY
    limits = dict(limits)
    limits["skip"] = _as_tuple(limits.get("skip"))
    limits["overrides"] = dict(limits.get("overrides") or {})
    return Request(sparsity=sparsity, importance=importance, round_to=round_to, **limits)


def _as_tuple(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def matches(patterns: tuple[str, ...], names: list[str], what: str) -> dict[str, set[str]]:
    """Layer names that each pattern (exact name, else regex) stands for, in order.

    Raises:
        InputError: A pattern that is no regex, or that matches no name (with the nearest).
    """
    out: dict[str, set[str]] = {}
    for pattern in patterns:
        if pattern in names:
            out[pattern] = {pattern}
            continue
        try:
            hits = {n for n in names if re.fullmatch(pattern, n)}
        except re.error as e:
            raise InputError(f"a pattern in {what} is not a regex", f"'{pattern}': {e}") from e
        if not hits:
            raise InputError(
                f"a pattern in {what} matches no layer", f"'{pattern}'",
                did_you_mean(pattern, names),
            )  # fmt: skip
        out[pattern] = hits
    return out

"""Kinds of recipe keys: a dataclass field whose check stands beside its default.

Each function returns a `dataclasses.field` with `metadata["check"]`, a function (key name, value)
-> the value in its normal form; it raises RecipeError on a wrong type or range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any

from tfedge.errors import RecipeError, did_you_mean


def number(
    default: Any,
    low: float,
    high: float | None = None,
    *,
    whole: bool = False,
    inside: bool = False,
) -> Any:
    """A numeric key in [low, high], or in (low, high) with `inside`.

    None is allowed where the default is None.
    """

    def check(name: str, value: Any) -> Any:
        if value is None and default is None:
            return None
        x = _as_number(name, value, whole)
        above = x > low if inside else x >= low
        below = high is None or (x < high if inside else x <= high)
        if above and below:
            return x
        raise RecipeError(f"{name} must be {_range_text(low, high, inside)}", f"{value}")

    return field(default=default, metadata={"check": check})


def target() -> Any:
    """What remains of a cost: a fraction in (0, 1), or a whole number above 1; None for none."""

    def check(name: str, value: Any) -> Any:
        if value is None:
            return None
        x = _as_number(name, value, whole=False)
        if 0 < x < 1 or (x > 1 and float(x).is_integer()):
            return x
        raise RecipeError(
            f"{name} must be between 0 and 1, both excluded, or a whole number above 1",
            f"{value}",
            "0.5 keeps half of the model's; 2000000 keeps two million",
        )

    return field(default=None, metadata={"check": check})


def blocks() -> Any:
    """Residual blocks to remove: a list of names, or how many."""

    def check(name: str, value: Any) -> int | tuple[str, ...]:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return int(number_check(name, value))
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
            raise _wrong_type(name, "a whole number or a list of names", value)
        return tuple(items)

    number_check = number(0, 0, whole=True).metadata["check"]
    return field(default=(), metadata={"check": check})


def _as_number(name: str, value: Any, whole: bool) -> int | float:
    if isinstance(value, str) and not whole:
        try:  # YAML 1.1 reads 1e-3, without a dot, as text.
            value = float(value)
        except ValueError:
            raise _wrong_type(name, "a number", value) from None
    if isinstance(value, float) and whole and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise _wrong_type(name, "a whole number" if whole else "a number", value)
    if not math.isfinite(value):
        raise _wrong_type(name, "a finite number", value)
    return value if whole else float(value)


def _range_text(low: float, high: float | None, inside: bool) -> str:
    if high is None:
        return f"more than {low:g}" if inside else f"{low:g} or more"
    return f"between {low:g} and {high:g}" + (", both excluded" if inside else "")


def _wrong_type(name: str, wanted: str, value: Any) -> RecipeError:
    return RecipeError(f"{name} must be {wanted}", f"{value!r} ({type(value).__name__})")


# Names of `tfedge.quant.RANGE_MODES` and of what it preserves, which need TensorFlow.
RANGE_MODES = ("moving_average", "learned", "fixed")
PRESERVED = ("", "sparsity", "clusters")


def choice(default: str, choices: Mapping[str, Any] | tuple[str, ...]) -> Any:
    """A key whose value is one of a set of words."""

    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise RecipeError(f"unknown {name}", f"'{value}'", did_you_mean(str(value), choices))
        return str(value)

    return field(default=default, metadata={"check": check})


def word(default: str) -> Any:
    """A key whose value is a name that is looked up later (before any training)."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise _wrong_type(name, "a name", value)
        return value

    return field(default=default, metadata={"check": check})


# Names and parameters of `tfedge.distill.TEMPERATURES` and `FEATURES`, which need TensorFlow.
TEMPERATURES: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "linear": ("start", "end"),
    "cosine": ("start", "end"),
    "step": ("values", "times"),
    "entropy": ("low", "high"),
    "gap": ("base", "strength", "low"),
    "curriculum": ("start", "low", "high", "warmup"),
}
FEATURES: dict[str, tuple[str, ...]] = {
    "fitnet": ("weight", "layers"),
    "attention": ("weight", "layers"),
    "similarity": ("weight", "layers"),
    "relational": ("weight", "layers", "angle"),
    "channel_kl": ("weight", "layers", "temperature"),
}


def temperature(default: float) -> Any:
    """A number above 0; or a name in `TEMPERATURES`, or a mapping of "name" and parameters."""
    as_number = number(default, 0, inside=True).metadata["check"]

    def check(name: str, value: Any) -> float | dict[str, Any]:
        if isinstance(value, Mapping) or (isinstance(value, str) and value in TEMPERATURES):
            return _named(name, value, TEMPERATURES)
        if isinstance(value, str) and not _is_number(value):
            raise RecipeError(f"unknown {name}", f"'{value}'", did_you_mean(value, TEMPERATURES))
        return as_number(name, value)

    return field(default=default, metadata={"check": check})


def features() -> Any:
    """Names in `FEATURES`, or mappings of "name" and parameters: a list, or a single one."""

    def check(name: str, value: Any) -> tuple[dict[str, Any], ...]:
        items = [value] if isinstance(value, (str, Mapping)) else value
        if not isinstance(items, (list, tuple)):
            raise _wrong_type(name, "a list of names or mappings", value)
        return tuple(_named(name, item, FEATURES) for item in items)

    return field(default=(), metadata={"check": check})


def _named(key: str, value: Any, table: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """{"name": ..., parameters} of a name or a mapping."""
    given = {"name": value} if not isinstance(value, Mapping) else dict(value)
    name = given.pop("name", None)
    if name not in table:
        raise RecipeError(f"unknown {key}", f"{name!r}", did_you_mean(str(name), table))
    for parameter in given:
        if parameter not in table[name]:
            fix = did_you_mean(str(parameter), table[name])
            raise RecipeError(f"{key} '{name}' has no parameter '{parameter}'", "", fix)
    return {"name": name, **{k: _parameter(f"{key}.{k}", v) for k, v in given.items()}}


def _parameter(place: str, value: Any) -> Any:
    """A number, a word, a list of these, or a mapping of words."""
    if isinstance(value, (list, tuple)):
        return [_parameter(place, v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items()}
    if isinstance(value, str) and not _is_number(value):
        return value
    return _as_number(place, value, whole=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def folder() -> Any:
    """A path, or None."""

    def check(name: str, value: Any) -> str | None:
        if value is not None and (not isinstance(value, str) or not value):
            raise _wrong_type(name, "a path", value)
        return value

    return field(default=None, metadata={"check": check})


def flag(default: bool) -> Any:
    """A key that is true or false."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise _wrong_type(name, "true or false", value)
        return value

    return field(default=default, metadata={"check": check})


def words(
    default: tuple[str, ...], choices: Collection[str] | None = None, *, regex: bool = False
) -> Any:
    """A list of words without repetition; a single word is a list of one."""

    def check(name: str, value: Any) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
            raise _wrong_type(name, "a list of words", value)
        if len(set(items)) < len(items):
            raise RecipeError(f"{name} names something twice", f"{list(items)}")
        for item in items:
            if choices is not None and item not in choices:
                raise RecipeError(
                    f"unknown word in {name}", f"'{item}'", did_you_mean(item, choices)
                )
            if regex:
                _check_regex(name, item)
        return tuple(items)

    return field(default=default, metadata={"check": check})


def _check_regex(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise RecipeError(
            f"{name} holds a pattern that is neither a name nor a regular expression",
            f"'{pattern}' ({error})",
        ) from None


LAYER_SCHEMES = ("w8a8", "w8a16", "w4a8", "float")
"""Names of `tfedge.quant.LAYER_SCHEMES`, which needs TensorFlow."""

PTQ_STEPS = ("equalise", "absorb", "ranges", "gptq", "adaround", "analytic_bias", "bias")
"""Names in `tfedge.quant.PTQ_STEPS`, which needs TensorFlow."""


def scheme_by_layer() -> Any:
    """A mapping of layer name or regular expression to one of `LAYER_SCHEMES`."""

    def check(name: str, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise _wrong_type(name, "a mapping of layer name or regex to scheme", value)
        for pattern, scheme in value.items():
            _check_regex(name, str(pattern))
            if scheme not in LAYER_SCHEMES:
                raise RecipeError(
                    f"{name}.{pattern} is no scheme for a layer", f"'{scheme}'",
                    did_you_mean(str(scheme), LAYER_SCHEMES),
                )  # fmt: skip
        return {str(pattern): str(scheme) for pattern, scheme in value.items()}

    return field(default_factory=dict, metadata={"check": check})


def sparsity_by_layer() -> Any:
    """A mapping of layer name or regular expression to a sparsity in [0, 1)."""

    def check(name: str, value: Any) -> dict[str, float]:
        if not isinstance(value, Mapping):
            raise _wrong_type(name, "a mapping of layer name or regex to sparsity", value)
        out = {}
        for pattern, sparsity in value.items():
            _check_regex(name, str(pattern))
            part = _as_number(f"{name}.{pattern}", sparsity, whole=False)
            if not 0 <= part < 1:
                raise RecipeError(
                    f"{name}.{pattern} must be at least 0 and less than 1",
                    f"{sparsity}",
                    "It is the fraction of channels that is cut; 0 keeps them all",
                )
            out[str(pattern)] = float(part)
        return out

    return field(default_factory=dict, metadata={"check": check})

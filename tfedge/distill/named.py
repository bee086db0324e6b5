"""Objects by name and parameters, as a recipe writes them: {"name": "cosine", "start": 6}."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import Any

from tfedge.errors import InputError, did_you_mean


def make(value: Any, table: Mapping[str, type], what: str) -> Any:
    """Makes an object of a table.

    Args:
        value: A name of the table, or a mapping with "name" and the parameters of its class.
        table: Dataclasses by name.
        what: What they are, for messages ("temperature").

    Raises:
        InputError: An unknown name or parameter, or a value that the class refuses.
    """
    given = {"name": value} if isinstance(value, str) else dict(value)
    name = given.pop("name", None)
    if name not in table:
        raise InputError(f"unknown {what}", f"{name!r}", did_you_mean(str(name), table))
    known = [f.name for f in dataclasses.fields(table[name]) if f.init]
    for key in given:
        if key not in known:
            fix = did_you_mean(str(key), known)
            raise InputError(f"the {what} '{name}' has no parameter '{key}'", "", fix)
    return table[name](**given)


def number(owner: str, name: str, value: Any, low: float, *, inside: bool = False) -> None:
    """Checks a parameter.

    Args:
        owner: Whose it is, for the message.
        name: The parameter.
        value: What was given.
        low: Smallest value.
        inside: `low` itself is not allowed.

    Raises:
        InputError: No finite number, or too small.
    """
    fine = isinstance(value, Real) and not isinstance(value, bool)
    # NaN fails both comparisons, infinity the last one.
    if not (fine and (value > low if inside else value >= low) and value < float("inf")):
        bound = f"more than {low:g}" if inside else f"{low:g} or more"
        raise InputError(f"{name} of {owner} must be a number, {bound}", f"{value!r}")

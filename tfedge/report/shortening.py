"""Long names in little room: cut in the middle, so that names that differ still do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from rich.cells import cell_len

_GAP = "..."
_HEADS = (1 / 2, 2 / 3, 1 / 3, 5 / 6, 1 / 6)
"""Shares of the room that the beginning of a name gets, in the order in which they are tried."""
_LEAST = 8


def shorten(names: Iterable[str], width: int) -> dict[str, str]:
    """What to write for each name in a width.

    Names that fit stay. The others keep their beginning and their end; or, where they would look
    alike, also a piece from where they begin to differ; or, where that does not tell them apart,
    their beginning and a number in order of appearance.

    Args:
        names: Of which none is written like another, unless it is the same.
        width: Terminal cells, at least 8 for names that are to be told apart.
    """
    all_names = list(dict.fromkeys(names))
    found = _plain(all_names, width)
    if found is not None:
        return found
    out = {}
    for number, name in enumerate(all_names, 1):
        end = f"{_GAP}{number}"
        out[name] = name if cell_len(name) <= width else _head(name, width - len(end)) + end
    return out


def least_width(names: Iterable[str]) -> int:
    """The smallest width in which names are told apart without a number."""
    all_names = list(dict.fromkeys(names))
    longest = max(map(cell_len, all_names), default=0)
    for width in range(_LEAST, longest):
        if _plain(all_names, width) is not None:
            return width
    return longest


def _plain(names: Sequence[str], width: int) -> dict[str, str] | None:
    """The first way of cutting that leaves different names different."""
    long = [name for name in names if cell_len(name) > width]
    if not long:
        return {name: name for name in names}
    for way in [*(_ends(share) for share in _HEADS), _window(_shared(long))]:
        short = {name: way(name, width) if name in set(long) else name for name in names}
        if len(set(short.values())) == len(names):
            return short
    return None


def _ends(share: float) -> Callable[[str, int], str]:
    def cut(name: str, width: int) -> str:
        room = width - len(_GAP)
        head = math.ceil(room * share)
        return _head(name, head) + _GAP + _tail(name, room - head)

    return cut


def _window(start: int) -> Callable[[str, int], str]:
    """A piece of the beginning, one from `start` on, one of the end."""

    def cut(name: str, width: int) -> str:
        room = width - 2 * len(_GAP)
        side = max(room // 4, 0)
        middle = _head(name[start:], room - 2 * side)
        return _head(name, side) + _GAP + middle + _GAP + _tail(name, side)

    return cut


def _shared(names: Sequence[str]) -> int:
    """How many characters all names begin with."""
    first, last = min(names), max(names)
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


def _head(text: str, room: int) -> str:
    used = 0
    for position, character in enumerate(text):
        used += cell_len(character)
        if used > room:
            return text[:position]
    return text


def _tail(text: str, room: int) -> str:
    return _head(text[::-1], room)[::-1]

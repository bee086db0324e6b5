"""Tables that fit the terminal: numbers stay whole, names are cut, optional columns go first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tfedge.report.shortening import least_width, shorten

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_UNIT = r"( ?(%|x|[A-Za-z]{1,6}\.?))?"
_NUMBER = re.compile(rf"([<>+-] ?)?(\d[\d,.]*(e[+-]?\d+)?|inf|nan){_UNIT}")
_DIGITS = re.compile(r"[<>+(-]*\d[\d,.]*(e[+-]?\d+)?[%x]?[,;.)]*")
_WORD = re.compile(r"\S+")

_WHOLE, _SHORT, _TIGHT = range(3)
"""How text is treated: wrapped between words; names cut too; cut to the least."""
_GAP = 2  # Cells between two columns.


def is_number(text: str) -> bool:
    """True for a number with or without a unit ("12.5 M", "-0.35", "9.70x", "> 0.25")."""
    return bool(_NUMBER.fullmatch(text))


@dataclass
class FittedTable:
    """A table that is laid out when it is printed, for the width that there is.

    Columns of numbers are never cut nor broken. Where the width does not do, columns without any
    content go; text is wrapped between words; names are cut in the middle, so that different ones
    stay different; then the `optional` columns go, one by one, and a line below names them. Where
    even that does not do, names get shorter, and columns go from the right down to two.

    Attributes:
        title: Title, or "".
        columns: Headings, each with "right" for numbers and "" for text.
        optional: Headings of columns that may go, in this order.
        where: Where all columns can be seen.
        caption: What stands below, or "".
    """

    title: str
    columns: Sequence[tuple[str, str]]
    optional: Sequence[str] = ()
    where: str = "--json has all"
    caption: str = ""
    _rows: list[tuple[str, ...]] = field(default_factory=list)
    _styles: list[str] = field(default_factory=list)

    def add_row(self, *cells: str, style: str = "") -> None:
        """Adds a row of one cell a column; what a terminal would obey becomes "?"."""
        self._rows.append(tuple("".join(map(_printable, cell)) for cell in cells))
        self._styles.append(style)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Lays the table out (rich's protocol)."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        columns = [
            _Column(name, side == "right", tuple(row[i] for row in self._rows))
            for i, (name, side) in enumerate(self.columns)
        ]
        kept, widths = _fit(columns, self.optional, options.max_width)
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0)
        )
        for column, width in zip(kept, widths, strict=True):
            table.add_column(
                Text(column.name),
                justify="right" if column.number else "left",
                width=width,
                overflow="fold",
            )
        cells = [c.shown(w) for c, w in zip(kept, widths, strict=True)]
        for style, *row in zip(self._styles, *cells, strict=True):
            table.add_row(*map(Text, row), style=style or None)
        left_out = [c.name for c in columns if c not in kept and not c.empty]
        yield Text("")
        if self.title:
            yield Text(self.title, style="italic")
        yield table
        if self.caption:
            yield Text(self.caption, style="dim italic")
        if left_out:
            yield Text(f"left out at this width: {', '.join(left_out)}; {self.where}", style="dim")


def _printable(character: str) -> str:
    if character.isspace():
        return " "
    return character if character.isprintable() else "?"


@dataclass(frozen=True, eq=False)
class _Column:
    name: str
    number: bool
    cells: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """True where there are rows, but nothing in them."""
        return bool(self.cells) and not any(self.cells)

    @cached_property
    def content(self) -> int:
        """Width of the longest cell."""
        return max(map(cell_len, self.cells), default=0)

    @cached_property
    def words(self) -> list[str]:
        """What is cut where it is too long: words, and names that are one."""
        return list(dict.fromkeys(w for cell in self.cells for w in cell.split()))

    @cached_property
    def longest(self) -> int:
        return max(map(cell_len, self.words), default=0)

    @cached_property
    def floor(self) -> int:
        """What the words of the heading and any number need."""
        needed = [*self.name.split(), *filter(_DIGITS.fullmatch, self.words)]
        return max(map(cell_len, needed), default=1)

    @property
    def natural(self) -> int:
        return max(self.content, cell_len(self.name))

    def least(self, how: int, first: bool) -> int:
        """The smallest width that the column may have.

        Args:
            how: One of the ways to treat text.
            first: Whether it is the first column of text, by which rows are known.
        """
        if self.number:
            return max(self.content, self.floor)
        if how == _WHOLE:
            return max(self.floor, self.longest, min(self.content, 24))
        if how == _SHORT:
            name = min(self.longest, max(20 if first else 14, least_width(self.words)))
            return max(self.floor, name, min(self.content, 20))
        return max(self.floor, min(self.content, 10 if first else 8))

    def shown(self, width: int) -> list[str]:
        """The cells, their words cut to a width."""
        if self.number or self.longest <= width:
            return list(self.cells)
        short = shorten(self.words, width)
        return [_WORD.sub(lambda found: short[found[0]], cell) for cell in self.cells]


def _fit(
    columns: Sequence[_Column], optional: Sequence[str], room: int
) -> tuple[list[_Column], list[int]]:
    """The columns that are shown, and their widths."""
    kept = list(columns)
    if _total([c.natural for c in kept]) <= room:
        return kept, [c.natural for c in kept]
    kept = [c for c in kept if not c.empty or c is columns[0]]
    ways: list[tuple[int, str]] = [(_WHOLE, ""), (_SHORT, "")]
    ways += [(_SHORT, name) for name in optional] + [(_TIGHT, "")]
    for how, gone in ways:
        kept = [c for c in kept if not gone or c.name != gone]
        widths = _least(kept, how)
        if _total(widths) <= room:
            return kept, _grown(kept, widths, room)
    while len(kept) > 2 and _total(_least(kept, _TIGHT)) > room:
        kept.pop()
    widths = _least(kept, _TIGHT)
    return kept, _grown(kept, widths, room)


def _total(widths: Sequence[int]) -> int:
    # rich counts the room behind the last column as well.
    return sum(widths) + _GAP * len(widths) - 1


def _least(columns: Sequence[_Column], how: int) -> list[int]:
    first = next((c for c in columns if not c.number), None)
    return [c.least(how, c is first) for c in columns]


def _grown(columns: Sequence[_Column], widths: Sequence[int], room: int) -> list[int]:
    """Spends what is left: on names first, the narrowest before others, then on everything."""
    out, spare = list(widths), room - _total(widths)
    names = [0 if c.number else min(c.longest, c.natural) for c in columns]
    for goals in (names, [c.natural for c in columns]):
        while spare > 0:
            narrow = [i for i, goal in enumerate(goals) if out[i] < goal]
            if not narrow:
                break
            out[min(narrow, key=lambda i: out[i])] += 1
            spare -= 1
    return out

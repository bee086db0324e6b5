"""Progress on the terminal, and plain lines where there is none. Writes to standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def console() -> Console:
    """The console that progress is shown on."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Shows a spinner while the block runs; one plain line where there is no terminal."""
    out = console()
    if not out.is_terminal:
        out.print(f"{text} ...", markup=False, highlight=False)
        yield
        return
    with out.status(text):
        yield


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yields the items under a progress bar; silent where there is no terminal.

    Args:
        items: What to go through.
        text: Shown beside the bar.
        total: Number of items, where it is known.
    """
    from rich.progress import track as rich_track

    out = console()
    if not out.is_terminal:
        yield from items
        return
    yield from rich_track(items, description=text, total=total, console=out, transient=True)

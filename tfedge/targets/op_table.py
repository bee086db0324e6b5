"""What each op of a file takes on a target that names its own columns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OpRow:
    """What one op takes.

    Attributes:
        index: Position in the main subgraph; None for an op of another subgraph, or one that only
            the target has.
        op: Builtin operator name.
        layer: Keras layer behind it, where the file's metadata name the layers, or "".
        place: What runs it ("NPU", "CPU", "TFLM"), or "" where nothing is left to run.
        values: One number a column of the table: whole for counts, else a measure.
        why: What is to be said of it, such as why it stays on the CPU, or its kernel; or "".
    """

    index: int | None
    op: str
    layer: str
    place: str
    values: tuple[float, ...]
    why: str = ""


@dataclass(frozen=True)
class OpTable:
    """What each op of a file takes.

    Attributes:
        target: Target name.
        source: Kind of the numbers; see `tfedge.record.Timing`.
        columns: What the rows' values are, with their units.
        rows: Ops in the file's order; then those that only the target has.
        shared: Name of the column whose share of the whole is shown, or "".
        facts: What the numbers hold for: configuration, memory, versions.
        notes: What must be said of them.
    """

    target: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[OpRow, ...]
    shared: str = ""
    facts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def total(self, column: str) -> float:
        """Sum of a column over all rows."""
        position = self.columns.index(column)
        return sum(row.values[position] for row in self.rows)

"""The progress of `model.fit`: a bar on a terminal, else one line per epoch."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfedge._keras import keras
from tfedge.progress import console


class FitProgress(keras.callbacks.Callback):
    """Shows epoch, step, loss, metrics and the time left.

    Args:
        epochs: Epochs in all.
        steps: Steps per epoch.
        first: Epochs finished before.
    """

    def __init__(self, epochs: int, steps: int, first: int = 0) -> None:
        super().__init__()
        self.epochs, self.steps, self.first = epochs, steps, first
        self.console = console()
        self.bar: Progress | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Draws the bar, on a terminal."""
        if not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[scores]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        total = (self.epochs - self.first) * self.steps
        self.row = self.bar.add_task("", total=total, epoch="", scores="")
        self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the time and shows the epoch."""
        self.epoch, self.began = epoch, time.monotonic()
        if self.bar is not None:
            self.bar.update(self.row, epoch=f"{epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar."""
        if self.bar is not None:
            done = (self.epoch - self.first) * self.steps + batch + 1
            self.bar.update(self.row, completed=done, scores=_scores(logs))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Leaves one line of the epoch."""
        seconds = time.monotonic() - self.began
        line = f"epoch {epoch + 1}/{self.epochs}  {_scores(logs)}  {seconds:.0f} s"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_train_end(self, logs: Any = None) -> None:
        """Takes the bar away."""
        self.close()

    def close(self) -> None:
        """Takes the bar away, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _scores(logs: Any) -> str:
    return "  ".join(f"{k} {float(v):.4f}" for k, v in (logs or {}).items())

"""`Loader(progress=True)`: a bar with the batches of an epoch, how many a second, and how long it still takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_APART_S = 0.1
"""Between two drawings: rich would have a thread for it, and we have none."""


class ProgressBar:
    """A bar of rich for one epoch, on standard error. Drawn while batches are taken, and left there at the end.

    Args:
        epoch: Its number.
        total: Batches of the epoch; None where nobody knows.
        console: Where it is drawn; None means standard error, or the cell of a notebook.
    """

    def __init__(self, epoch: int, total: int | None, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("epoch {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} batches/s"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._progress.add_task(str(epoch), total=total, rate="-")
        self._began = self._drawn = time.monotonic()
        self._count = 0
        self._progress.start()

    def advance(self) -> None:
        """Count a batch that was taken."""
        self._count += 1
        now = time.monotonic()
        if now - self._drawn >= _APART_S:
            self._draw(now)

    def _draw(self, now: float) -> None:
        self._drawn = now
        rate = f"{self._count / max(now - self._began, 1e-9):.1f}"
        fields: dict[str, Any] = {"completed": self._count, "rate": rate}
        self._progress.update(self._task, refresh=True, **fields)

    def stop(self) -> None:
        """Draw it for the last time, and let the line be."""
        self._draw(time.monotonic())
        self._progress.stop()

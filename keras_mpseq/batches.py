"""One epoch of a `Loader`: batches in NumPy, and the bar that shows how many of them were taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_mpseq.iteration import Iteration
from keras_mpseq.progress import ProgressBar
from keras_mpseq.run import Feed


class Batches(Iterator[Any]):
    """One epoch of a `Loader`: an iterator of batches in NumPy that can be closed half-way."""

    def __init__(self, feed: Feed, progress: bool = False) -> None:
        """Begin an epoch."""
        self.iteration: Iteration = Iteration(feed)
        self._bar = ProgressBar(self.iteration.epoch, self.iteration.left) if progress else None

    def __next__(self) -> Any:
        """Return the next batch."""
        if self._bar is None:
            return next(self.iteration).batch
        try:
            parts = next(self.iteration)
        except BaseException:
            self._stop_bar()
            raise
        self._bar.advance()
        return parts.batch

    def _stop_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def close(self) -> None:
        """Give the rest of the epoch up; `on_epoch_end` runs now."""
        self._stop_bar()
        self.iteration.close()

"""What a pipeline does right now: rates between two looks at its stats, as a line that is written over itself.

Nothing here waits, has a thread or asks for the time: who shows a line says when, and what was measured.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any, TextIO

from keras_mpseq.run import Stats

APART_S = 0.2
"""Between two looks of a person: more often costs, and is not seen."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened between two looks.

    Args:
        batches_per_s: Taken by the consumer.
        mb_per_s: Of arrays, in units of a million bytes.
        wait_share: Of the time, in which the consumer waited; 0 to 1.
        ready: Batches that are built and not taken.
        restarts: Workers that were replaced because they were lost.
        per_worker: Batches a second that each worker built; empty where batches are built in this process.
    """

    batches_per_s: float
    mb_per_s: float
    wait_share: float
    ready: int
    restarts: int
    per_worker: tuple[float, ...]

    def scalars(self) -> dict[str, float]:
        """Return the figures by the name that they have in TensorBoard."""
        named = {
            "batches_per_s": self.batches_per_s,
            "mb_per_s": self.mb_per_s,
            "wait_share": self.wait_share,
            "ready": float(self.ready),
            "restarts": float(self.restarts),
        }
        workers = {f"worker_{number}/batches_per_s": rate for number, rate in enumerate(self.per_worker)}
        return {f"keras_mpseq/{name}": value for name, value in (named | workers).items()}

    def __str__(self) -> str:
        """Return the figures in one line."""
        return (
            f"{self.batches_per_s:.1f} batches/s, {self.mb_per_s:.1f} MB/s, waited {self.wait_share:.0%}, "
            f"{self.ready} ready, {self.restarts} restart{'' if self.restarts == 1 else 's'}"
        )


def between(before: Stats, now: Stats, seconds: float) -> Rates:
    """Return the rates of what happened from *before* to *now*, in so many seconds."""
    seconds = max(seconds, 1e-9)
    return Rates(
        batches_per_s=(now.batches - before.batches) / seconds,
        mb_per_s=(now.bytes_delivered - before.bytes_delivered) / seconds / 1e6,
        wait_share=min((now.waited_s - before.waited_s) / seconds, 1.0),
        ready=now.ready,
        restarts=now.restarts - before.restarts,
        per_worker=tuple(
            (after - built) / seconds
            for after, built in zip(now.built, before.built or (0,) * len(now.built), strict=True)
        ),
    )


class StatusLine:
    """One line that changes: in a notebook a display, in a terminal written over itself; elsewhere its last state.

    Args:
        stream: Where the line goes when this is no notebook; None means standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._display: Any = None
        self._notebook = _in_notebook()
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def changes(self) -> bool:
        """Whether there is somebody who sees a line change."""
        return self._notebook or self._terminal

    def show(self, text: str) -> None:
        """Show *text* in the place of what was shown before, if it can be."""
        if self._notebook:
            import IPython.display

            display: Any = IPython.display.display
            shown = {"text/plain": text}
            if self._display is None:
                self._display = display(shown, raw=True, display_id=True)
            else:
                self._display.update(shown, raw=True)
        elif self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r{text[:width]}\x1b[K")

    def end(self, text: str) -> None:
        """Show *text* for good: what comes next is on a line of its own."""
        if self._notebook:
            self.show(text)
            self._display = None
        else:
            self._write(f"\r{text}\x1b[K\n" if self._terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _in_notebook() -> bool:
    """Tell whether output is shown by a kernel of Jupyter, without importing what is not there."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None

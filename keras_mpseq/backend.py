"""The contract between the pool and whatever runs workers, and what a backend tells of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Said(NamedTuple):
    """A worker sent *message*."""

    worker: int
    message: Any


class Ended(NamedTuple):
    """A worker's end is confirmed, after all that it said."""

    worker: int
    status: int
    """As subprocess gives it: an exit code, or the negative number of a signal."""
    stack: str
    """The Python stack that a crash or a dump left, else empty."""


class Backend(Protocol):
    """Runs workers. Decides nothing: the pool tells it whom to start, what to send and whom to kill."""

    def start(self) -> None:
        """Make ready what the first `spawn` needs; raises what the user's payload raises there."""

    def spawn(self, worker: int) -> None:
        """Start *worker*; it answers Started or Unfit, or ends."""

    def send(self, worker: int, message: Any, fds: Sequence[int] = ()) -> None:
        """Send *message*; silently dropped when the worker is gone, whose end is or will be told."""

    def interrupt(self, worker: int) -> None:
        """Make a stuck worker write its stack and die."""

    def ask(self, worker: int) -> None:
        """Make *worker* write its stack and go on, for `answer`."""

    def answer(self, worker: int) -> str:
        """Return the stack that *worker* wrote since it was asked, and forget it; "" if it wrote none."""

    def state(self, worker: int) -> str:
        """Return what the system says that *worker* is doing; "" where it says nothing."""

    def kill(self, worker: int) -> None:
        """End *worker* at once."""

    def wait(self, timeout_s: float | None) -> object:
        """Wait until something happens, `wake`, or the time-out; touch nothing, so that no lock is needed."""

    def receive(self, ready: Any) -> list[Said | Ended]:
        """Tell what happened, given what `wait` returned."""

    def wake(self) -> None:
        """Make a `wait` in another thread return."""

    def let_go(self) -> None:
        """Make every process that still lives die at once, whatever interrupted `close`; harmless after it."""

    def close(self, patience_s: float) -> list[Said | Ended]:
        """Stop all workers, wait *patience_s*, kill the rest; return what they said last."""

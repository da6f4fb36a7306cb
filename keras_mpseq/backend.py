"""The contract between the pool and whatever runs workers, and what a backend tells of a loss.

A `Workplace` is where workers are: this machine, or a cluster. It makes what depends on that: the backend, the slots as
the pool sees them, and the segments that a version of the sequence lies in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from keras_mpseq.messages import Leaf, Setup
    from keras_mpseq.slots import LeaseEnd


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
    how: str = ""
    """What is known of the end where nobody tells the status."""
    node: str = ""
    """Where it was, if that was another machine than this one, or may have been."""


class Backend(Protocol):
    """Runs workers. Decides nothing: the pool tells it whom to start, what to send and whom to kill."""

    def start(self) -> None:
        """Make ready what the first `spawn` needs; raises what the user's payload raises there."""

    def spawn(self, worker: int) -> None:
        """Start *worker*; it answers Started or Unfit, or ends."""

    def send(self, worker: int, message: Any, handles: Sequence[Any] = ()) -> None:
        """Send *message* with the *handles* of segments; silently dropped when the worker is gone: its end is told."""

    def interrupt(self, worker: int) -> None:
        """Make a stuck worker write its stack and die."""

    def ask(self, worker: int) -> None:
        """Make *worker* write its stack and go on, for `answer`."""

    def answer(self, worker: int) -> str:
        """Return the stack that *worker* wrote since it was asked, and forget it; "" if it wrote none."""

    def state(self, worker: int) -> str:
        """Return what the system says that *worker* is doing; "" where it says nothing."""

    def node(self, worker: int) -> str:
        """Return on which machine *worker* is; "" for this one."""

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


class Segment(Protocol):
    """Bytes of a version of the sequence, where workers find them. Owned by the versions that use it."""

    @property
    def handle(self) -> Any:
        """What is sent along with the message that names the segment."""

    @property
    def nbytes(self) -> int:
        """Its size."""

    @property
    def view(self) -> memoryview:
        """Its bytes, for reading."""

    def close(self) -> None:
        """Free it, as far as this process holds it."""


class PoolSlot(Protocol):
    """The pool's side of a slot: what the batches of a task are made of, how far the task is, and its batches."""

    progress: int | None
    """How many batches of the task are finished, as far as that is known; None before it is begun."""

    @property
    def since(self) -> float:
        """When `progress` was set last, by the clock `time.monotonic`."""

    @property
    def noted(self) -> int:
        """The mark that the worker left last; -1 for none."""

    @property
    def nbytes(self) -> int:
        """Bytes that the slot has grown to."""

    def begin(self, room: int) -> None:
        """Empty the slot, to `place` what the batches are made of."""

    def place(self, array: NDArray[Any]) -> Leaf:
        """Copy *array* into the slot, and say where."""

    def arrays(self, leaves: Iterable[Leaf], dtypes: Iterable[np.dtype[Any]], copy: bool) -> list[NDArray[Any]]:
        """Return the arrays at *leaves*: over the slot's memory, or copies of it."""

    def leased(
        self,
        leaves: Iterable[Leaf],
        dtypes: Iterable[np.dtype[Any]],
        number: int,
        ended: Callable[[LeaseEnd], object],
    ) -> list[NDArray[Any]]:
        """Return arrays over the slot; *ended* is called once, with the slot's *number*, when the last has died."""

    def reserve(self, nbytes: int) -> None:
        """Take *nbytes* now, where a lack of them could not be told later; raises OSError."""

    def close(self) -> None:
        """Give the slot up; leased arrays stay valid."""


class Workplace(Protocol):
    """Where workers are."""

    depth: int
    """Tasks that a worker should hold: one to build, and so many that it need not wait for the next."""
    max_bytes: int
    """Bound on the memory for batches."""

    def slot(self) -> PoolSlot:
        """Make a slot."""

    def segment(self, data: memoryview | bytes) -> Segment:
        """Put *data* where workers find it."""

    def backend(self, setup: Setup, slots: Sequence[PoolSlot], handles: Sequence[Any]) -> Backend:
        """Make the backend.

        Args:
            setup: What each worker is told first.
            slots: All of them; they stay the pool's.
            handles: Of the segments of `setup.state`; they stay the pool's.
        """

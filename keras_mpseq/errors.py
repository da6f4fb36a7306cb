"""The exception tree: every error pickles, and says index, worker, attempt, cause and remedy.

Everything that goes wrong in a pipeline ends in one of these. An error is its keyword fields: the message is
made from them on demand, so that a field filled in later (the parent knows the attempt, the worker does not)
shows up in the text, and so that pickling is copying the fields.
"""

from __future__ import annotations

import pickle
import signal
from typing import Any


class MpseqError(Exception):
    """Root of all errors of keras_mpseq.

    Args:
        message: What happened, in one sentence without its full stop.
        index: The sequence's index that was being built.
        epoch: The epoch it belongs to, from 0.
        worker: Number of the worker, from 0; None in this process.
        attempt: Which attempt it was, from 1.
        remedy: What to do, in one or two sentences.
        traceback: The remote traceback, as text.
    """

    def __init__(
        self,
        message: str = "",
        *,
        index: int | None = None,
        epoch: int | None = None,
        worker: int | None = None,
        attempt: int | None = None,
        remedy: str = "",
        traceback: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.index = index
        self.epoch = epoch
        self.worker = worker
        self.attempt = attempt
        self.remedy = remedy
        self.traceback = traceback

    def __str__(self) -> str:
        """Return message, place, remedy and remote traceback."""
        place = ", ".join(
            f"{name} {value}"
            for name, value in (
                ("index", self.index),
                ("epoch", self.epoch),
                ("worker", self.worker),
                ("attempt", self.attempt),
            )
            if value is not None
        )
        text = f"{self.message} ({place})." if place else f"{self.message}."
        if self.remedy:
            text += f" {self.remedy}"
        if self.traceback:
            text += f"\n\nTraceback in the worker:\n{self.traceback.rstrip()}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by fields: subclasses and later fields need no constructor arguments."""
        return _restore, (type(self), self.args, self.__dict__, self.__cause__)


def _restore(
    kind: type[MpseqError],
    args: tuple[Any, ...],
    fields: dict[str, Any],
    cause: BaseException | None,
) -> MpseqError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    error.__cause__ = cause
    return error


class UserCodeError(MpseqError):
    """`__getitem__`, a hook or a resource raised; the original exception is the cause where it pickles."""


class WorkerLostError(MpseqError):
    """A worker died on one index as often as attempts are allowed."""


class WorkerTimeoutError(WorkerLostError):
    """One batch took longer than `timeout`; `stack` is the stuck worker's Python stack."""

    stack: str = ""

    def __str__(self) -> str:
        """Return the message and the stack of the stuck worker."""
        text = super().__str__()
        return f"{text}\n\nStack of the worker:\n{self.stack.rstrip()}" if self.stack else text


class PayloadError(MpseqError):
    """The sequence does not pickle, or does not unpickle in a fresh process."""


class SpecMismatchError(MpseqError):
    """A batch differs from the element spec in structure, dtype, rank or a fixed dimension."""


class UnsupportedLeafError(SpecMismatchError):
    """A leaf of a batch is of a type that cannot travel."""


class SlotTooSmallError(MpseqError):
    """A batch needs more shared memory than `max_bytes` leaves for one slot."""


class StatefulGetitemError(MpseqError):
    """`__getitem__` changed the sequence, its class, a global or a shared array."""


class SequenceLengthError(MpseqError):
    """`len(sequence)` is 0, negative, not an int, or changed without an epoch hook."""


class PoolClosedError(MpseqError):
    """The loader was closed while, or before, somebody iterated over it."""


_LIKELY = {
    "SIGKILL": ("The system kills processes that use too much memory: lower the batch size, workers or prefetch."),
    "SIGSEGV": "Native code crashed: look at the stack below and at the libraries that __getitem__ calls.",
    "SIGBUS": "A mapped file shrank or the memory is full: do not rewrite files that a memmap reads.",
    "SIGABRT": "Native code called abort(): its message is on stderr.",
    "SIGTERM": "Somebody ended it from outside, such as a batch system at its time limit.",
}


def describe_exit(status: int) -> tuple[str, str]:
    """Return what an exit *status* (negative: a signal, as subprocess gives it) means, and the likely remedy."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return name, _LIKELY.get(name, "")
    return (
        f"exit code {status}",
        "Something that __getitem__ calls ended the process (sys.exit, os._exit): let it raise an exception.",
    )


def load_error(data: bytes) -> MpseqError:
    """Return the error that a worker pickled, or one that says that it cannot be read here."""
    try:
        error: MpseqError = pickle.loads(data)
    except Exception as failure:  # A cause of the user's that unpickles in the worker, but not here.
        return UserCodeError(f"A worker's error cannot be read in this process: {failure!r}")
    return error

"""The exception tree: every error pickles, and says index, worker, attempt, cause and remedy.

Everything that goes wrong in a pipeline ends in one of these. An error is its keyword fields: the message is
made from them on demand, so that a field filled in later (the parent knows the attempt, the worker does not)
shows up in the text, and so that pickling is copying the fields.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from keras_mpseq import role

_PACKAGE = str(Path(__file__).parent)
_SHOWN = 60
"""Characters of a value in a message."""
_TEXT_LIMIT = 2_000
"""Characters kept of the text of a user's exception: some print whole arrays."""


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

    _places: ClassVar[tuple[str, ...]] = ("index", "epoch", "worker", "attempt", "node")
    """Fields that stand in brackets behind the message."""
    where: str = ""
    """What stands in the place of the index, such as "element 17 of partition 'a.csv'"."""
    node: str = ""
    """The machine of the worker, where that is one of a cluster."""

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
        fields = [name for name in self._places if getattr(self, name) not in (None, "")]
        named = {name: f"{name} {getattr(self, name)}" for name in fields}
        if self.where and "index" in named:
            named["index"] = self.where
        place = ", ".join(named.values())
        text = f"{self.message} ({place})." if place else f"{self.message}."
        if self.remedy:
            text += f" {self.remedy}"
        if self.traceback:
            where = "Traceback" if self.worker is None else "Traceback in the worker"
            text += f"\n\n{where}:\n{self.traceback.rstrip()}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by fields: subclasses and later fields need no constructor arguments."""
        cause = self.__cause__
        try:
            pickle.loads(pickle.dumps(cause))
        except Exception:  # The user's exceptions need not pickle; their text is in ours.
            cause = None
        return _restore, (type(self), self.args, self.__dict__, cause)


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


def copied(error: MpseqError) -> MpseqError:
    """Return an error like *error* that was raised nowhere: whoever keeps that one keeps no frames."""
    return _restore(type(error), error.args, error.__dict__, error.__cause__)


@contextlib.contextmanager
def scarce(what: str) -> Iterator[None]:
    """Say of an OSError or MemoryError within that *what* happened, for want of memory, processes or open files.

    Raises:
        MpseqError: In the place of the error.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        raise MpseqError(
            f"{what}: {getattr(error, 'strerror', None) or str(error) or 'no memory is left'}",
            remedy="Lower workers or prefetch, or raise the limits on processes, memory and open files (ulimit), or "
            "the room on the disk for temporary files; `keras-mpseq doctor` tells what they are.",
        ) from error


class Failure:
    """The error that ended something, kept with its cause.

    Others lose them on the way to the user: TensorFlow tells the text only, and Keras's filter of tracebacks raises
    `from None`.
    """

    def __init__(self) -> None:
        self._kept: tuple[MpseqError, BaseException | None] | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Keep the error that ends the block."""
        try:
            yield
        except MpseqError as error:
            self._kept = error, error.__cause__
            raise

    @property
    def error(self) -> MpseqError | None:
        """The error that was kept last, if any, as it was."""
        if self._kept is None:
            return None
        error, cause = self._kept
        error.__cause__ = cause
        return error


class UserCodeError(MpseqError):
    """`__getitem__`, a hook or a resource raised; the original exception is the cause where it pickles."""


class WorkerLostError(MpseqError):
    """A worker died on one index as often as attempts are allowed, or it cannot be started."""

    _places = ("epoch",)  # The message names the others.


class WorkerTimeoutError(WorkerLostError):
    """One batch took longer than `timeout`.

    `stack` is the stuck worker's Python stack; `state` is what the system says of its process, such as "process 4711 is
    waiting for a device or a file system (D) in read of /data/x.h5, has 1 thread and 145 MB of memory".
    """

    stack: str = ""
    state: str = ""

    def __str__(self) -> str:
        """Return the message, the state and the stack of the stuck worker."""
        text = super().__str__()
        if self.state:
            text += f"\n\nState of the worker: {self.state}."
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


class CheckError(MpseqError):
    """`check` found errors or warnings, and was asked to raise, or its report was."""


class InternalError(MpseqError):
    """keras_mpseq has a bug, and would have waited for ever; `trace` is what to put into the report of it."""

    trace: str = ""

    def __str__(self) -> str:
        """Return the message and the trace."""
        return f"{super().__str__()}\n\nWhat happened last:\n{self.trace}"


class PoolClosedError(MpseqError):
    """The loader was closed while, or before, somebody iterated over it."""


_LIKELY = {
    "SIGKILL": "The system kills processes that use too much memory: lower the batch size, workers or prefetch; "
    "`keras-mpseq doctor` tells what there is.",
    "SIGSEGV": "Native code crashed: look at the libraries that the sequence calls, and at the stack below, if any.",
    "SIGBUS": "A mapped file shrank or the memory is full: do not rewrite files that a memmap reads.",
    "SIGABRT": "Native code called abort(): its message is on stderr.",
    "SIGHUP": (
        "Its pipe to the training process broke, or its terminal was closed: see that nothing which the sequence calls "
        "closes a descriptor that it has not opened, or writes to one."
    ),
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
        "Something that the sequence calls ended the process (sys.exit, os._exit): let it raise an exception.",
    )


# --- the user's exceptions --------------------------------------------------------------------------


def is_interrupt(error: BaseException) -> bool:
    """Tell whether *error* is Ctrl-C, and so not to be blamed on the user's code; workers ignore SIGINT."""
    return isinstance(error, KeyboardInterrupt) and not role.in_worker


def user_error(what: str, error: BaseException) -> UserCodeError:
    """Return the error that tells that *what*, a piece of the user's code, raised *error*."""
    whose = "The worker's traceback" if role.in_worker else "The traceback"
    where = " where it pickles" if role.in_worker else ""
    return UserCodeError(
        f"{what} raised {named(error)}",
        remedy=f"{whose} is below, and the exception itself is the cause{where}.",
        traceback=users_traceback(error),
    )


def named(error: BaseException) -> str:
    """Return the class of *error* and its text, if it has any."""
    try:
        text = str(error).strip().rstrip(".")
    except Exception:  # A broken __str__ of the user's exception must not hide the exception.
        text = "(its __str__ raised)"
    if len(text) > _TEXT_LIMIT:
        text = f"{text[:_TEXT_LIMIT]} [...]"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def cut(text: str) -> str:
    """Return the text of a value as a message shows it, cut short."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def users_traceback(error: BaseException) -> str:
    """Return the traceback as text, from the user's first frame on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    trace = trace or error.__traceback__
    with contextlib.suppress(Exception):  # as in named()
        return "".join(traceback.format_exception(type(error), error, trace))
    return "".join(traceback.format_tb(trace))


class Bare(NamedTuple):
    """An exception whose own way to be pickled fails, such as one whose constructor wants other arguments."""

    kind: type[BaseException]
    args: tuple[Any, ...]
    fields: dict[str, Any]

    def rebuilt(self) -> BaseException:
        """Return the exception, made without its constructor."""
        error: BaseException = self.kind.__new__(self.kind, *self.args)
        error.args = self.args
        error.__dict__.update(self.fields)
        return error


def load_error(data: bytes) -> MpseqError:
    """Return the error that a worker pickled, with its cause where that can be read here as well."""
    error: MpseqError
    error, cause = pickle.loads(data)
    with contextlib.suppress(Exception):  # What unpickled in the worker need not do so here; its text is kept.
        found = pickle.loads(cause)
        error.__cause__ = found.rebuilt() if isinstance(found, Bare) else found
    return error

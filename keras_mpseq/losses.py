"""Why a worker was lost, and the error that tells it."""

from __future__ import annotations

from typing import NamedTuple

from keras_mpseq.errors import MpseqError, WorkerLostError, WorkerTimeoutError, copied, describe_exit

_UNKNOWN = (
    "Ray does not tell how the process ended: the most frequent cause is that the system killed it because memory was "
    "used up; its last words are in the logs of Ray on that node."
)


class Loss(NamedTuple):
    """What is known of the end of a worker."""

    status: int
    """As subprocess gives it."""
    stack: str
    """Its Python stack at the end, where it left one."""
    overtime_s: float | None
    """The limit that it exceeded, where that is why it was ended."""
    mark: int = -1
    """What it left in its slot; see `Streamed.name_of`."""
    state: str = ""
    """What the system said that it was doing, when its time was over."""
    how: str = ""
    """What is known where nobody tells the status."""
    node: str = ""
    """Where it was, on a cluster."""


def loss_error(cause: object, worker: int, what: str, attempts: int, of: int) -> MpseqError:
    """Return the error for a worker that was lost as often as is allowed.

    Args:
        cause: A `Loss`; or an error of ours, which is the answer.
        worker: Number of the worker.
        what: What it was doing, as in "while building batch 402".
        attempts: How often that was tried.
        of: How often it may be tried; 0 for what is not tried again.
    """
    if isinstance(cause, MpseqError):
        cause = copied(cause)  # It may be told to several.
        cause.worker = worker if cause.worker is None else cause.worker
        return cause
    assert isinstance(cause, Loss)
    tried = f"{what}, attempt {attempts} of {of}" if of else what
    who = f"Worker {worker} on node {cause.node}" if cause.node else f"Worker {worker}"
    if cause.overtime_s is not None:
        remedy = "Raise timeout, or see" if of else "See"
        late = WorkerTimeoutError(
            f"{who} was killed because it took longer than {cause.overtime_s:g} s {tried}",
            remedy=f"{remedy} in the stack below what it waits for.",
        )
        late.stack, late.state = cause.stack, cause.state
        return _numbered(late, worker, attempts, cause.node)
    name, remedy = (cause.how, _UNKNOWN) if cause.how else describe_exit(cause.status)
    stack, _, _ = cause.stack.partition("\n\nExtension modules: ")  # A crash dump ends with a list of hundreds.
    lost = WorkerLostError(f"{who} died ({name}) {tried}", remedy=remedy, traceback=stack)
    return _numbered(lost, worker, attempts, cause.node)


def _numbered(error: MpseqError, worker: int, attempt: int, node: str) -> MpseqError:
    error.worker, error.attempt, error.node = worker, attempt, node
    return error

"""What crosses a boundary: tasks and outcomes, the scheduler's events and actions, the pipe's messages.

Everything here is a NamedTuple: it pickles in a few microseconds, compares by value and matches in a `match`.
Three families, by who speaks to whom:

* values      `Task`, and the outcomes of one position: `Batch`, `Failure`, `Lost`
* scheduler   events in (pool to scheduler), actions out (scheduler to pool)
* wire        messages between the pool and a worker, and between the pool and the template process
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from keras_mpseq.errors import MpseqError
    from keras_mpseq.order import Order

# --- values ---------------------------------------------------------------------------------------


class Task(NamedTuple):
    """Some batches for one worker to build, one after the other, into one slot."""

    run: int
    """Number of the pass over an epoch that wants them; unique in a pool."""
    positions: tuple[int, ...]
    """Their ranks in the epoch, ascending; never empty."""
    indices: tuple[int, ...]
    """The sequence's index for each position."""
    slot: int
    """The slot that holds all of them, from dispatch to the delivery of the last."""


class Leaf(NamedTuple):
    """Where one array of a batch lies in its slot."""

    offset: int
    """In bytes from the start of the slot; a multiple of 64."""
    shape: tuple[int, ...]
    nbytes: int


class Input(NamedTuple):
    """What one element is made of: it lies in the task's slot."""

    structure: bytes
    """The pickled `keras_mpseq.codec.Structure`; the same object for all elements of the same structure."""
    leaves: tuple[Leaf, ...]


class Batch(NamedTuple):
    """Outcome: a batch lies in the task's slot."""

    layout: int
    """Number of the `Layout` that this worker sent before: structure, kinds and dtypes of the leaves."""
    leaves: tuple[Leaf, ...]
    nbytes: int
    """Bytes that the batch uses of its slot."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Samples that it was built without: the name of each, and why."""


class Failure(NamedTuple):
    """Outcome: the user's code raised, or the batch could not be encoded; nothing lies in the slot."""

    error: bytes | MpseqError
    """Over the pipe pickled, and complete but for worker and attempt; in the pool the error itself."""
    nbytes: int = 0


class Lost(NamedTuple):
    """Outcome, made by the scheduler: every attempt at this position ended with the loss of its worker."""

    worker: int
    attempts: int
    cause: object
    """What the backend knew of the last loss, handed through unread."""
    nbytes: int = 0


class Past(NamedTuple):
    """Outcome: the generators of a lane were over before this element; nothing lies in the slot."""

    nbytes: int = 0


Outcome: TypeAlias = Batch | Failure | Lost | Past

# --- events: pool to scheduler --------------------------------------------------------------------


class RunStarted(NamedTuple):
    """A consumer begins a pass over *order*."""

    run: int
    order: Order


class Wanted(NamedTuple):
    """The consumer of *run* waits for its next batch; answered by one Deliver, Finish or GiveUp."""

    run: int


class Grew(NamedTuple):
    """The order of *run* has more positions than before, or has ended."""

    run: int


class RunAbandoned(NamedTuple):
    """The consumer of *run* went away, or *run* ended with an error."""

    run: int


class WorkerReady(NamedTuple):
    """A spawned worker has loaded the sequence and waits for tasks."""

    worker: int


class Built(NamedTuple):
    """A worker finished the oldest task it holds: one outcome for each position, in order."""

    worker: int
    outcomes: tuple[Outcome, ...]


class WorkerLost(NamedTuple):
    """A worker's death is confirmed; everything it had said before is already handled."""

    worker: int
    cause: object
    done: int | None
    """How many positions of the oldest task it held were finished; None when it had not begun one."""


class StartFailed(NamedTuple):
    """The user's code failed while a worker started (unpickling, on_worker_start); the worker is gone."""

    worker: int
    cause: object


class Released(NamedTuple):
    """The consumer let go of a leased slot."""

    slot: int


class SlotsAdded(NamedTuple):
    """*count* more slots exist, numbered on from those before."""

    count: int  # type: ignore[assignment]  # shadows a tuple method nobody calls


class ChunkChanged(NamedTuple):
    """From now on a task takes up to *count* positions."""

    count: int  # type: ignore[assignment]  # shadows a tuple method nobody calls


Event: TypeAlias = (
    RunStarted
    | Wanted
    | Grew
    | RunAbandoned
    | WorkerReady
    | Built
    | WorkerLost
    | StartFailed
    | Released
    | SlotsAdded
    | ChunkChanged
)

# --- actions: scheduler to pool, to be carried out in order ----------------------------------------


class Spawn(NamedTuple):
    """Start (or replace) this worker."""

    worker: int


class Send(NamedTuple):
    """Give *task* to *worker*; workers build their tasks in the order of arrival."""

    worker: int
    task: Task


class Deliver(NamedTuple):
    """Answer Wanted(run) with this outcome.

    With *lease* the arrays lie over *slot*, and Released(slot) must follow when the consumer lets go.
    Without it, and with a slot, copy the batch out now: a later action may give the slot away.
    With slot None the outcome needs no slot (a failure), or was copied out before (CopyOut).
    """

    run: int
    position: int
    index: int  # type: ignore[assignment]  # shadows a tuple method nobody calls
    outcome: Outcome
    slot: int | None
    lease: bool


class CopyOut(NamedTuple):
    """Copy this built batch to private memory now and keep it for its Deliver: the slot is needed."""

    run: int
    position: int
    outcome: Outcome
    slot: int


class Cancel(NamedTuple):
    """Tell workers to skip what they still hold of *run*; they answer such tasks with no outcomes."""

    run: int


class Finish(NamedTuple):
    """Answer Wanted(run): every position has been delivered; the run is over."""

    run: int


class GiveUp(NamedTuple):
    """End *run* with an error: no worker can be started."""

    run: int
    worker: int
    attempts: int
    cause: object


Action: TypeAlias = Spawn | Send | Deliver | CopyOut | Cancel | Finish | GiveUp

# --- wire: pool to worker -------------------------------------------------------------------------


class Setup(NamedTuple):
    """What a template or a spawned worker needs before anything else; slots' and segments' descriptors follow."""

    seed: int
    workers: int
    strict: bool
    threads: int
    slots: int
    state: State
    doubles: np.dtype[Any] | None
    """What float64 leaves become."""


class State(NamedTuple):
    """A version of the sequence; its segments' descriptors travel with the message."""

    version: int
    nbytes: tuple[int, ...]
    """Bytes of each segment: the pickle first, then the out-of-band arrays."""


class Start(NamedTuple):
    """Every version that is in use has been sent: run on_worker_start and answer Started."""


class Forget(NamedTuple):
    """No run uses this version of the sequence any longer."""

    version: int


class Build(NamedTuple):
    """Build a task's batches."""

    run: int
    epoch: int
    version: int
    indices: tuple[int, ...]
    slot: int
    room: int
    """Bytes to which the slot may grow."""
    used: int = 0
    """Bytes at its start that hold what the batches are made of; workers leave them alone."""
    inputs: tuple[Input | bytes, ...] = ()
    """One for each index, where batches are made of what the pool has; a pickled error where it could not be placed."""


class Over(NamedTuple):
    """A pass over *epoch* has ended: close what was opened for it."""

    epoch: int


class Skip(NamedTuple):
    """Answer the tasks of *run* that wait or are half done with what there is, at once."""

    run: int


class Stop(NamedTuple):
    """Close resources, run on_worker_stop and exit."""


# --- wire: worker to pool -------------------------------------------------------------------------


class Started(NamedTuple):
    """The sequence is loaded and on_worker_start has run."""


class Unfit(NamedTuple):
    """Loading the sequence or on_worker_start raised; the worker exits."""

    error: bytes


class Stopped(NamedTuple):
    """Answer to Stop; *error* where closing a resource or on_worker_stop raised."""

    error: bytes = b""


class Layout(NamedTuple):
    """Structure of the batches to come, sent once for each that a worker meets."""

    number: int
    structure: bytes
    """The pickled `keras_mpseq.codec.Structure`."""


class Done(NamedTuple):
    """The oldest task is finished; shorter than the task only when its run was skipped."""

    outcomes: tuple[Batch | Failure | Past, ...]
    seconds: float
    """Time from the start of the first build to the end of the last encoding."""
    warning: str = ""
    """What `__getitem__` changed, where that was looked for."""


# --- wire: pool to template and back --------------------------------------------------------------


class Fork(NamedTuple):
    """Fork a worker; the child's end of its channel and its stack file travel with the message."""

    worker: int


class Kill(NamedTuple):
    """Send *signal* to a worker, if it still lives."""

    worker: int
    signal: int


class Loaded(NamedTuple):
    """The template has loaded the sequence. With more than one thread it must not fork."""

    threads: int
    error: bytes = b""


class Exited(NamedTuple):
    """A worker's process ended; *status* as subprocess gives it (negative: signal)."""

    worker: int
    status: int


IndexList: TypeAlias = Sequence[int]

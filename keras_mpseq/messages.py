"""What crosses a boundary: tasks and their outcomes, and the messages that travel between processes.

Everything here is a NamedTuple: it pickles in a few microseconds, compares by value and matches in a `match`.
Two families:

* values      `Task`, and the outcomes of one position: `Batch`, `Failure`, `Lost`
* wire        messages between the pool and a worker, and between the pool and the template process

What passes between the pool and the scheduler, in one process, is in `events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from keras_mpseq.errors import MpseqError

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
    record: bool = False
    """Workers measure their batches, and tell in `Recorded`."""


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


class Timing(NamedTuple):
    """How one batch was built, in seconds; moments are those of `time.perf_counter`, which processes share."""

    index: int  # type: ignore[assignment]  # shadows a tuple method nobody calls
    began: float
    build_s: float
    """In `__getitem__`."""
    encode_s: float
    """Until the batch lay in its slot, after that."""
    cpu_s: float
    """In `__getitem__`, of all threads of the process."""
    queued_s: float
    """In `__getitem__`, ready to run while others had the core; 0 where the system does not tell."""
    nbytes: int


class Frame(NamedTuple):
    """One call of a stack."""

    path: str
    function: str
    line: int


Stack: TypeAlias = tuple[Frame, ...]
"""The outermost call first."""


class Recorded(NamedTuple):
    """What a worker has measured since it told last."""

    timings: tuple[Timing, ...]
    stacks: tuple[tuple[Stack, int], ...]
    """Where `__getitem__` was, and how often, each time that the worker looked."""


class Done(NamedTuple):
    """The oldest task is finished; shorter than the task when its run was skipped, or when the slot is full."""

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
    """The template has loaded the sequence. With more than one thread, or 0 for an unknown number, it must not fork."""

    threads: int
    error: bytes = b""


class Forked(NamedTuple):
    """A worker's process is there."""

    worker: int
    pid: int


class Exited(NamedTuple):
    """A worker's process ended; *status* as subprocess gives it (negative: signal)."""

    worker: int
    status: int

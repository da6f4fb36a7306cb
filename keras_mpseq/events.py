"""What the pool tells the scheduler, and what the scheduler answers: events in, actions out.

All are NamedTuples, as in `messages`. *worker* is the number of a process's place: see `ledger.Workers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from keras_mpseq.messages import Outcome, Task
    from keras_mpseq.order import Order

# --- events: what has happened --------------------------------------------------------------------


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
    """A worker finished the oldest task it holds: one outcome for each position, in order.

    Fewer, but at least one, where the slot had no room for the next; and any number when the run is over.
    """

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


class Retired(NamedTuple):
    """A worker that was told to retire has ended."""

    worker: int


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
    | Retired
    | Released
    | SlotsAdded
    | ChunkChanged
)

# --- actions: what is to be done, in their order --------------------------------------------------


class Spawn(NamedTuple):
    """Start (or replace) this worker."""

    worker: int


class Retire(NamedTuple):
    """Let this worker end in good order: it holds no task and gets none; Retired must follow."""

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


Action: TypeAlias = Spawn | Retire | Send | Deliver | CopyOut | Cancel | Finish | GiveUp

"""What the scheduler keeps of the work: runs, jobs, and the state of every slot.

Plain bookkeeping without decisions. Each slot is in exactly one place: on the stack of free ones,
with the job that holds it (working or built), or among the leased.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from keras_mpseq.messages import Outcome, Task

if TYPE_CHECKING:
    from keras_mpseq.order import Order


@dataclass(slots=True, eq=False)
class Job:
    """A task on its way: it holds its slot until the last of its batches has left it."""

    run: Run
    task: Task
    worker: int | None = None
    """Who holds the task; None while it waits to be sent again, and once it is built."""
    inside: set[int] = field(default_factory=set)
    """Positions whose batches lie in the slot and are not delivered; none before it is built."""


@dataclass(slots=True, eq=False)
class Run:
    """A pass over an epoch that somebody consumes."""

    number: int
    order: Order
    heads: dict[int | None, int | None]
    """The first position not yet dealt, for each owner; key None when any worker may build any."""
    frontier: int = 0
    """Of ordered runs: positions below are dealt or passed over, none from here on."""
    passed: int = 0
    """Of ordered runs: how many tasks are passed over; each has a free slot reserved."""
    slots: int = 0
    """How many slots its jobs hold."""
    ready: dict[int, tuple[Outcome, Job | None]] = field(default_factory=dict)
    """Outcomes to deliver by position, oldest first; with the job in whose slot they lie."""
    kept: int = 0
    """How many of `ready` lie in no slot: failures, losses, and what was copied out."""
    losses: dict[int, int] = field(default_factory=dict)
    delivered: int = 0
    wanted: bool = False
    live: bool = True
    known: int = 0
    """How far an order that grows had come when it was looked at last."""

    @classmethod
    def of(cls, number: int, order: Order) -> Run:
        """Return a run of which nothing is dealt."""
        owners = range(order.workers) if order.partitioned else (None,)
        heads = {owner: order.next_of(owner, 0) for owner in owners}
        return cls(number, order, heads, known=order.reach)

    @property
    def held(self) -> int:
        """What it holds of the pool, in slots and in private memory."""
        return self.slots + self.kept

    def grew(self) -> None:
        """Look at what the order has got since."""
        known, self.known = self.known, self.order.reach
        for owner, head in self.heads.items():
            if head is None:
                self.heads[owner] = self.order.next_of(owner, known)

    def head(self, seat: int) -> int | None:
        """Return the next position that the worker of *seat* may build."""
        return self.heads[seat if self.order.partitioned else None]

    def passes(self, position: int) -> int:
        """Return how many more tasks are passed over when *position* is dealt."""
        ahead = self.order.ordered and position > self.frontier
        return self.order.pieces(self.frontier, position) if ahead else 0

    def deal(self, position: int, count: int) -> tuple[int, ...]:
        """Mark *count* positions from *position* as dealt, and return them."""
        end = position + count
        if position < self.frontier:
            self.passed -= self.order.pieces(position, end)
        elif self.order.ordered:
            self.passed += self.passes(position)
            self.frontier = end
        owner = self.order.owner(position)
        self.heads[owner] = self.order.next_of(owner, end)
        return tuple(range(position, end))

    def keep(self, position: int, outcome: Outcome) -> None:
        """Make ready what needs no slot, or needs it no longer."""
        self.ready[position] = outcome, None
        self.kept += 1

    def next_ready(self) -> int | None:
        """Return the position to deliver next, or None if it is not there yet."""
        if self.order.ordered:
            return self.delivered if self.delivered in self.ready else None
        return next(iter(self.ready), None)


class SlotCounts(NamedTuple):
    """How many slots are in each state."""

    free: int
    working: int
    built: int
    leased: int


class Slots:
    """The state of every slot; the only place that changes it."""

    def __init__(self, count: int) -> None:
        """Begin with *count* free slots."""
        self.total: int = 0
        # A stack: the slot used last is warm, and a slot that is never needed costs no memory.
        self.free: list[int] = []
        self.jobs: dict[int, Job] = {}
        self.leased: set[int] = set()
        self.add(count)

    def add(self, count: int) -> None:
        """Number *count* new slots on from the others; they are used last."""
        self.free[:0] = reversed(range(self.total, self.total + count))
        self.total += count

    def hold(self, run: Run, positions: tuple[int, ...]) -> Job:
        """Free to working: return a new job for *positions*."""
        slot = self.free.pop()
        indices = tuple(map(run.order.index, positions))
        job = self.jobs[slot] = Job(run, Task(run.number, positions, indices, slot))
        run.slots += 1
        return job

    def give_back(self, job: Job) -> None:
        """Working or built to free."""
        self._leave(job)
        self.free.append(job.task.slot)

    def lease(self, job: Job) -> None:
        """Built to leased."""
        self._leave(job)
        self.leased.add(job.task.slot)

    def release(self, slot: int) -> None:
        """Leased to free."""
        self.leased.remove(slot)
        self.free.append(slot)

    def _leave(self, job: Job) -> None:
        del self.jobs[job.task.slot]
        job.run.slots -= 1

    def counts(self) -> SlotCounts:
        """Return how many slots are in each state."""
        built = sum(bool(job.inside) for job in self.jobs.values())
        return SlotCounts(len(self.free), len(self.jobs) - built, built, len(self.leased))

"""Who works: the scheduler's books of worker processes, and when one starts, takes over and ends.

Where processes are replaced after some batches there are two for each seat, *seats* apart: while one ends, the other
takes over. Only one of them is given tasks at a time. The user sees the number of the seat.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from keras_mpseq.events import Action, Retire, Spawn

if TYPE_CHECKING:
    from keras_mpseq.ledger import Job

_NO_LIMIT = sys.maxsize
_LAST_PART = 8
"""When this part of a worker's batches is left its successor is started, so that it is ready in time."""


class WorkerState(Enum):
    """What the scheduler knows of a worker."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    """Told to end, because it was given as many batches as one process may."""


@dataclass(slots=True)
class Worker:
    """A worker and the tasks it holds."""

    next_limit: int
    """Batches that the next process here may be given."""
    state: WorkerState = WorkerState.ABSENT
    jobs: deque[Job] = field(default_factory=deque)
    """Oldest first: the first is the one being built."""
    left: int = 0
    """Batches that this process may still be given."""
    start_losses: int = 0
    """How often in a row it was lost before it was ready."""
    started_for: frozenset[int] = frozenset()
    """The runs that were live when it was started."""


class Staff:
    """All workers, numbered from 0.

    Args:
        seats: How many may be given tasks at a time.
        depth: How many tasks one may hold.
        most: How many batches one may be given before it is replaced; None for no limit.
    """

    def __init__(self, seats: int, depth: int, most: int | None) -> None:
        """Begin with absent workers."""
        self.seats = seats
        self.actions: list[Action] = []
        """What follows from the present event; the scheduler's own list."""
        self._depth = depth
        self._most = _NO_LIMIT if most is None else most
        self._last = 0 if most is None else most // _LAST_PART
        self.all: list[Worker] = [Worker(self._most) for _ in range(seats if most is None else 2 * seats)]
        if most is not None:
            for seat, worker in enumerate(self.all[:seats]):  # So that not all are replaced at the same time.
                worker.next_limit -= most * seat // (2 * seats)

    # --- views ---

    def seat(self, number: int) -> int:
        """Return the seat of a worker."""
        return number % self.seats

    def expect(self, number: int, what: str, *states: WorkerState) -> Worker:
        """Return a worker to which *what* can happen in *states* only.

        Raises:
            ValueError: There is no such worker, or it is in another state.
        """
        if not 0 <= number < len(self.all):
            raise ValueError(f"Worker {number} {what}, but there are {len(self.all)}, from 0.")
        worker = self.all[number]
        if worker.state not in states:
            raise ValueError(f"Worker {number} {what} while it was {worker.state.value}.")
        return worker

    def with_time(self) -> Iterator[int]:
        """Yield the workers that may be given a task."""
        for number, worker in enumerate(self.all):
            if worker.state is WorkerState.READY and len(worker.jobs) < self._depth and worker.left > 0:
                yield number

    def load(self, number: int) -> int:
        """Return how many tasks a worker holds."""
        return len(self.all[number].jobs)

    def least_loaded(self, owner: int | None) -> int | None:
        """Return who with time should build a task: only at the seat *owner*, if there is one."""
        able = [number for number in self.with_time() if owner in (None, self.seat(number))]
        return min(able, key=self.load, default=None)

    # --- starts and ends ---

    def fill(self, seat: int, runs: Iterable[int]) -> None:
        """Start a worker for *seat*, if nobody there has work to come, and nobody old is in the way.

        *runs* are those that live now.
        """
        numbers = range(seat, len(self.all), self.seats)
        for number in numbers:
            worker = self.all[number]
            if worker.state is WorkerState.STARTING or (worker.state is WorkerState.READY and worker.left > self._last):
                return
        for number in numbers:
            if self.all[number].state is WorkerState.ABSENT:
                self.spawn(number, runs)
                return

    def spawn(self, number: int, runs: Iterable[int]) -> None:
        """Start a worker."""
        worker = self.all[number]
        worker.state, worker.started_for = WorkerState.STARTING, frozenset(runs)
        worker.left, worker.next_limit = worker.next_limit, self._most
        self.actions.append(Spawn(number))

    def ready(self, number: int) -> None:
        """Take in that a worker has started; whom it succeeds gets no further task."""
        worker = self.expect(number, "became ready", WorkerState.STARTING)
        worker.state = WorkerState.READY
        worker.start_losses = 0
        for other in range(self.seat(number), len(self.all), self.seats):
            if other != number and self.all[other].state is WorkerState.READY:
                self.all[other].left = 0
                self.retire_if_done(other)

    def give(self, number: int, job: Job, runs: Iterable[int]) -> None:
        """Let a worker hold *job*."""
        worker = self.all[number]
        worker.jobs.append(job)
        worker.left -= len(job.task.positions)
        if worker.left <= self._last:
            self.fill(self.seat(number), runs)

    def retire_if_done(self, number: int) -> None:
        """Let a worker end that has built all that it may be given."""
        worker = self.all[number]
        if worker.left <= 0 and not worker.jobs:
            worker.state = WorkerState.RETIRING
            self.actions.append(Retire(number))

    def retired(self, number: int, runs: Iterable[int]) -> None:
        """Take in that a worker has ended that was told to; its successor may have waited for that."""
        self.expect(number, "retired", WorkerState.RETIRING).state = WorkerState.ABSENT
        if runs:
            self.fill(self.seat(number), runs)

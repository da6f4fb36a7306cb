"""Who builds what, into which slot, and what is delivered when: the pure core of a pool.

`Scheduler.handle` takes one event and returns the actions that follow from it, to be carried out in
their order. Nothing here waits, reads a clock or touches a process.

A slot is free, working (a task holds it, in a worker or waiting to be sent again), built (it holds
batches that are not delivered) or leased (the consumer holds it). A task keeps its slot from
dispatch to delivery. No free slot, no dispatch: that is all the back-pressure there is. Three rules
keep it from becoming a deadlock:

* A position is passed over, because its owner is busy or gone, only while a free slot stays
  reserved for it. So no run locks itself out with batches that it cannot deliver yet.
* A run that is wanted and holds nothing takes a slot from another, whose batches are copied out.
* The last slots are never leased, so nobody waits for the consumer to let go.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import TYPE_CHECKING

from keras_mpseq.dealing import next_deal, starving_deal, victim
from keras_mpseq.events import (
    Action,
    Built,
    Cancel,
    ChunkChanged,
    CopyOut,
    Deliver,
    Event,
    Finish,
    GiveUp,
    Grew,
    Released,
    Retired,
    RunAbandoned,
    RunStarted,
    Send,
    SlotsAdded,
    StartFailed,
    Wanted,
    WorkerLost,
    WorkerReady,
)
from keras_mpseq.ledger import Job, Run, SlotCounts, Slots
from keras_mpseq.messages import (
    Batch,
    Lost,
    Outcome,
    Task,
)
from keras_mpseq.staff import Staff, WorkerState
from keras_mpseq.trace import report

if TYPE_CHECKING:
    from keras_mpseq.order import Order


_TRACED = 64
"""Events: a deadlock shows in the last few, and each takes some hundred bytes."""


class Scheduler:
    """Decides everything for a pool of workers, and does nothing.

    Args:
        workers: How many there are; numbered from 0. The first run spawns them.
        depth: How many tasks a worker may hold, the one it builds included.
        attempts: How many losses of its worker a position may see, and how often in a row one worker may be lost
            while it starts, until that is an error.
        slots: How many there are at first; numbered from 0.
        copy_below: Batches of fewer bytes are copied, not leased.
        most: How many batches a worker may be given before another takes its seat; None for no limit. A task that is
            never divided, or is sent again, may exceed it.

    Raises:
        ValueError: An argument is below 1 (`copy_below`: below 0).
    """

    def __init__(
        self, workers: int, depth: int, attempts: int, slots: int, copy_below: int, most: int | None = None
    ) -> None:
        """Begin with absent workers and free slots."""
        for name, value, least in (
            ("workers", workers, 1),
            ("depth", depth, 1),
            ("attempts", attempts, 1),
            ("slots", slots, 1),
            ("copy_below", copy_below, 0),
            ("most", 1 if most is None else most, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}.")
        self._attempts = attempts
        self._copy_below = copy_below
        self._chunk = 1
        self._staff = Staff(workers, depth, most)
        self._slots = Slots(slots)
        self._runs: dict[int, Run] = {}
        self._again: list[Job] = []  # Lost with their workers or divided: to be sent again.
        self._actions: list[Action] = []
        self.losses: int = 0
        """How many workers were lost so far, at start or later."""
        self.trace: deque[tuple[Event, list[Action]]] = deque(maxlen=_TRACED)
        """The last events, and what followed."""

    # --- views ---

    @property
    def idle(self) -> bool:
        """No run is live and no worker holds a task."""
        return not self._runs and not any(worker.jobs for worker in self._staff.all)

    def is_ready(self, run: int) -> bool:
        """Tell whether *run* would be answered at once."""
        return self._runs[run].next_ready() is not None

    @property
    def ready(self) -> int:
        """How many batches are built and not delivered, of all runs."""
        return sum(len(run.ready) for run in self._runs.values())

    def report(self) -> str:
        """Return what happened last and the state of everything, for the report of a bug."""
        return report(self.trace, self._staff, self._runs.values(), self._again, self._slots)

    def slots(self) -> SlotCounts:
        """Return how many slots are in each state."""
        return self._slots.counts()

    def state(self, worker: int) -> WorkerState:
        """Return whether *worker* is absent, starting or ready."""
        return self._staff.all[worker].state

    def tasks(self, worker: int) -> tuple[Task, ...]:
        """Return the tasks that *worker* holds, oldest first."""
        return tuple(job.task for job in self._staff.all[worker].jobs)

    def current(self, worker: int) -> Task | None:
        """Return the oldest task that *worker* holds: the one that it builds."""
        jobs = self._staff.all[worker].jobs
        return jobs[0].task if jobs else None

    def attempt(self, run: int, position: int) -> int:
        """Return which attempt at *position* this is, from 1; always 1 when the run is over."""
        return 1 + self._runs[run].losses.get(position, 0) if run in self._runs else 1

    # --- events ---

    def handle(self, event: Event) -> list[Action]:
        """Take one event and return what is to be done, in order.

        Raises:
            ValueError: The event cannot happen in this state; nothing was changed.
        """
        self._actions = self._staff.actions = []
        match event:
            case Built(worker, outcomes):
                self._on_built(worker, outcomes)
            case Wanted(run):
                self._on_wanted(run)
            case Released(slot):
                if slot not in self._slots.leased:
                    raise ValueError(f"Slot {slot} was released, but it is not leased.")
                self._slots.release(slot)
            case RunStarted(run, order):
                self._on_started(run, order)
            case Grew(run):
                if run not in self._runs:
                    raise ValueError(f"Run {run} grew, but it is over or was never started.")
                self._runs[run].grew()
                self._answer(self._runs[run])
            case RunAbandoned(run):
                if run in self._runs:
                    self._drop(self._runs[run])
            case WorkerReady(worker):
                self._staff.ready(worker)
            case WorkerLost(worker, cause, done):
                self._on_lost(worker, cause, done)
            case StartFailed(worker, cause):
                self._staff.expect(worker, "failed", WorkerState.STARTING).state = WorkerState.ABSENT
                self._give_up(worker, 1, cause)
            case Retired(worker):
                self._staff.retired(worker, self._runs)
            case SlotsAdded(count):
                if count < 0:
                    raise ValueError(f"SlotsAdded takes 0 slots or more, got {count}.")
                self._slots.add(count)
            case ChunkChanged(count):
                if count < 1:
                    raise ValueError(f"ChunkChanged takes 1 position or more, got {count}.")
                self._chunk = count
            case _:
                raise TypeError(f"handle() takes an event of keras_mpseq.messages, got {event!r}.")
        self._dispatch()
        self.trace.append((event, self._actions))
        return self._actions

    def _on_started(self, number: int, order: Order) -> None:
        count = self._staff.seats
        if number in self._runs:
            raise ValueError(f"Run {number} was started, but it is under way already.")
        if order.partitioned and order.workers != count:
            raise ValueError(f"The order is for {order.workers} workers, but there are {count}.")
        self._runs[number] = Run.of(number, order)
        for seat in range(count):
            self._staff.fill(seat, self._runs)

    def _on_wanted(self, number: int) -> None:
        run = self._runs.get(number)
        if run is None:
            raise ValueError(f"Run {number} was wanted, but it is over or was never started.")
        if run.wanted:
            raise ValueError(f"Run {number} was wanted again before the answer.")
        run.wanted = True
        self._answer(run)

    def _on_built(self, number: int, outcomes: tuple[Outcome, ...]) -> None:
        jobs = self._staff.expect(number, "built a task", WorkerState.READY).jobs
        if not jobs:
            raise ValueError(f"Worker {number} built a task, but it holds none.")
        job = jobs[0]
        run, positions = job.run, job.task.positions
        # Of a run that is over, an answer only frees its slot, however much of it was built.
        if run.live and not 0 < len(outcomes) <= len(positions):
            raise ValueError(
                f"Worker {number} answered a task of {len(positions)} positions with {len(outcomes)} outcomes."
            )
        jobs.popleft()
        job.worker = None
        if run.live:
            for position, outcome in zip(positions, outcomes, strict=False):
                if isinstance(outcome, Batch):
                    job.inside.add(position)
                    run.ready[position] = outcome, job
                else:
                    run.keep(position, outcome)
        if run.live and len(outcomes) < len(positions):
            self._send_rest(job, len(outcomes))
        elif not job.inside:
            self._slots.give_back(job)
        self._staff.retire_if_done(number)
        self._answer(run)

    def _send_rest(self, job: Job, done: int) -> None:
        """Send again what is left of a task after *done* positions: its next batch does not fit behind the others.

        The rest takes the slot, for the same reason as a task that is lost: delivery may wait for it.
        """
        self._empty(job)
        job.task = job.task._replace(positions=job.task.positions[done:], indices=job.task.indices[done:])
        self._again.append(job)

    def _on_lost(self, number: int, cause: object, done: int | None) -> None:
        worker = self._staff.expect(number, "was lost", WorkerState.STARTING, WorkerState.READY)
        self.losses += 1
        jobs, worker.jobs = worker.jobs, deque()
        # A task that was sent to a worker already dead is not to blame, and none of it was begun.
        if jobs and jobs[0].run.live and done is not None:
            self._blame(jobs[0], number, cause, done)
        for job in jobs:
            job.worker = None
            if job.run.live and job.task.positions:
                # It keeps its slot: freed here, a later position would take it, and delivery would
                # wait for ever for this one.
                self._again.append(job)
            else:
                self._slots.give_back(job)
        if worker.state is WorkerState.STARTING:
            worker.start_losses += 1
            if worker.start_losses >= self._attempts:
                worker.state = WorkerState.ABSENT
                self._give_up(number, worker.start_losses, cause)
                worker.start_losses = 0
            else:
                self._staff.spawn(number, self._runs)
        else:
            worker.state = WorkerState.ABSENT
            self._staff.fill(self._staff.seat(number), self._runs)

    def _blame(self, job: Job, worker: int, cause: object, done: int) -> None:
        """Charge a loss to the position that was being built; after its last attempt, end it."""
        run, task = job.run, job.task
        at = min(done, len(task.positions) - 1)
        position = task.positions[at]
        losses = run.losses[position] = run.losses.get(position, 0) + 1
        if losses >= self._attempts:
            job.task = task._replace(
                positions=task.positions[:at] + task.positions[at + 1 :],
                indices=task.indices[:at] + task.indices[at + 1 :],
            )
            run.keep(position, Lost(worker, losses, cause))
            self._answer(run)

    def _give_up(self, worker: int, attempts: int, cause: object) -> None:
        """End the runs that *worker* was started for, and start it again for later ones: they begin anew."""
        started_for = self._staff.all[worker].started_for
        for run in [run for run in self._runs.values() if run.number in started_for]:
            self._actions.append(GiveUp(run.number, worker, attempts, cause))
            self._drop(run)
        if self._runs:
            self._staff.fill(self._staff.seat(worker), self._runs)

    def _drop(self, run: Run) -> None:
        """Forget a run; what workers hold of it keeps its slots until they answer or die."""
        self._forget(run)
        self._again = [job for job in self._again if job.run is not run]
        jobs = [job for job in self._slots.jobs.values() if job.run is run]
        for job in jobs:
            if job.worker is None:
                self._slots.give_back(job)
        if any(job.worker is not None for job in jobs):
            self._actions.append(Cancel(run.number))

    def _forget(self, run: Run) -> None:
        del self._runs[run.number]
        run.live = run.wanted = False

    # --- delivery ---

    def _answer(self, run: Run) -> None:
        """Answer Wanted, if it is open and the answer is there."""
        if not run.wanted:
            return
        position = run.next_ready()
        if position is not None:
            self._deliver(run, position)
        elif run.delivered == run.order.size:
            self._forget(run)
            self._actions.append(Finish(run.number))

    def _deliver(self, run: Run, position: int) -> None:
        outcome, job = run.ready.pop(position)
        run.wanted = False
        run.delivered += 1
        slot = None if job is None else job.task.slot
        lease = job is not None and self._may_lease(job, outcome)
        index = run.order.index(position)
        run.order.delivered(position)
        self._actions.append(Deliver(run.number, position, index, outcome, slot, lease))
        if job is None:
            run.kept -= 1
        elif lease:
            self._slots.lease(job)
        else:
            job.inside.remove(position)
            if not job.inside:
                self._slots.give_back(job)

    def _may_lease(self, job: Job, outcome: Outcome) -> bool:
        """Tell whether the slot may go to the consumer, who perhaps never gives it back.

        One slot for each worker and one more stay, so that all workers have work meanwhile.
        """
        rest = self._slots.total - len(self._slots.leased) - 1
        return len(job.task.positions) == 1 and outcome.nbytes >= self._copy_below and rest > self._staff.seats

    # --- dispatch ---

    def _dispatch(self) -> None:
        """Give out tasks while workers have time and slots are free: lost ones first, then new."""
        for job in sorted(self._again, key=lambda job: job.task.positions):
            worker = self._staff.least_loaded(job.run.order.owner(job.task.positions[0]))
            if worker is not None:
                self._again.remove(job)
                self._send(job, worker)
        runs = self._runs.values()
        while True:
            deal = next_deal(runs, self._staff, self._slots)
            if deal is None:
                deal = starving_deal(runs, self._staff, self._slots)
                if deal is None or not self._copy_out():
                    return
            run, worker, position = deal
            positions = run.deal(position, self._count(run, position, self._staff.all[worker].left))
            self._send(self._slots.hold(run, positions), worker)

    def _count(self, run: Run, position: int, left: int) -> int:
        """Return how many positions to deal at once: a chunk, but few where an epoch begins and where it ends.

        So that the first batch does not wait for a whole chunk, and no worker is left alone with the last one. *left*
        is what the worker may be given.
        """
        workers, size = self._staff.seats, run.order.size
        rest = self._chunk if size is None else ceil((size - position) / (2 * workers))
        return run.order.together(position, max(1, min(self._chunk, position // workers, rest, left)))

    def _send(self, job: Job, worker: int) -> None:
        job.worker = worker
        self._actions.append(Send(worker, job.task))
        self._staff.give(worker, job, self._runs)

    def _copy_out(self) -> bool:
        """Free a built slot by copying its batches out of it, if there is one."""
        job = victim(self._slots)
        if job is None:
            return False
        self._empty(job)
        self._slots.give_back(job)
        return True

    def _empty(self, job: Job) -> None:
        """Copy the batches of *job* out of its slot."""
        for position in sorted(job.inside):
            outcome, _ = job.run.ready[position]
            self._actions.append(CopyOut(job.run.number, position, outcome, job.task.slot))
            job.run.keep(position, outcome)
        job.inside.clear()

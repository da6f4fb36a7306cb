"""Between the backend and the scheduler: events go in, actions are carried out, batches come out as answers of runs.

Decides nothing and waits for nothing. Not for several threads at a time: the pool sees to turns.

Owns slots, versions, scheduler and backend, and closes them in that order's reverse.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from typing import Any

from keras_mpseq import inputs
from keras_mpseq.backend import Ended, Said
from keras_mpseq.deadlines import Deadlines, start_limit
from keras_mpseq.delivery import Delivery
from keras_mpseq.errors import MpseqError, WorkerLostError, WorkerTimeoutError, load_error, scarce
from keras_mpseq.ledger import WorkerState
from keras_mpseq.local import close_resources
from keras_mpseq.local_backend import LocalBackend
from keras_mpseq.losses import Loss, loss_error
from keras_mpseq.messages import (
    Action,
    Batch,
    Build,
    Built,
    Cancel,
    ChunkChanged,
    CopyOut,
    Deliver,
    Done,
    Event,
    Failure,
    Finish,
    Forget,
    GiveUp,
    Grew,
    Layout,
    Lost,
    Over,
    Past,
    Released,
    RunAbandoned,
    RunStarted,
    Send,
    Setup,
    Skip,
    SlotsAdded,
    Spawn,
    Start,
    Started,
    StartFailed,
    Stopped,
    Task,
    Unfit,
    Wanted,
    WorkerLost,
    WorkerReady,
)
from keras_mpseq.options import Options
from keras_mpseq.run import Answer, Run, Signal, Stats
from keras_mpseq.scheduler import Scheduler
from keras_mpseq.streams import Streamed
from keras_mpseq.versions import Version, Versions

_DEPTH = 2
"""Tasks a worker holds: one to build and one so that it need not wait for the next."""
_LEASES = 2
"""Slots beyond those being built and ready: the batch in use, and the one TensorFlow lets go late."""
_COPY_BELOW = 1 << 15
"""Bytes. Copying so little costs less than a lease (3 us), and frees the slot at once."""
_PATIENCE_S = 5.0
"""For workers to end in good order at the end; then they are killed."""
log = logging.getLogger("keras_mpseq")


class Engine:
    """The parts of a pool of workers for *sequence*, and what passes between them."""

    def __init__(self, sequence: Any, options: Options) -> None:
        self._sequence = sequence
        self._options = options
        self._events: deque[Event] = deque()
        self._runs: dict[int, Run] = {}
        self._deadlines = Deadlines(options.timeout)
        self._alive: set[int] = set()
        self._unfit: dict[int, MpseqError] = {}
        self._over: list[Over] = []
        self._warned = False
        self.broken = False
        """Interrupted between two actions (Ctrl-C): what was done is unknown, so that nothing may go on."""
        self.warning = ""
        """To be given, and then emptied."""
        self.restarts = 0
        # The first batch is built alone, in the only slot there is: it tells how large slots are (max_bytes).
        self._scheduler = Scheduler(
            workers=options.workers, depth=_DEPTH, attempts=options.attempts, slots=1, copy_below=_COPY_BELOW
        )
        with scarce("Worker processes cannot be started"), contextlib.ExitStack() as resources:
            resources.callback(close_resources, sequence)
            self._versions = Versions(sequence)
            resources.callback(self._versions.close)
            count = options.workers + options.prefetch + _LEASES
            self._delivery = Delivery(count, options.max_bytes)
            resources.callback(self._delivery.close)
            state = self._versions.first
            setup = Setup(
                options.seed,
                options.workers,
                options.strict,
                options.worker_threads,
                count,
                state.state,
                options.doubles,
            )
            fds = [*(slot.fd for slot in self._delivery.slots), *state.fds]
            self.backend = LocalBackend(setup, fds, options.launcher, start_limit(options.timeout))
            resources.callback(self.backend.let_go)
            resources.callback(self._close_backend)
            self.backend.start()
            self._resources = resources.pop_all()

    # --- runs ---

    def start(self, run: Run) -> None:
        """Begin *run* with the sequence as it is now."""
        run.version = self._publish()
        run.version.runs += 1
        self._runs[run.number] = run
        self.feed(RunStarted(run.number, run.begun.order))

    def is_current(self, run: Run) -> bool:
        """Tell whether the sequence is still as it was when *run* began."""
        return self._publish() is run.version

    def _publish(self) -> Version:
        before = self._versions.current
        version = self._versions.publish(self._sequence)
        if version is not before:
            for worker in self._alive:
                self.backend.send(worker, version.state, version.fds)
        return version

    @property
    def chunk(self) -> int:
        """How many batches a task has."""
        return self._delivery.chunk_now

    def grew(self, run: Run) -> None:
        """Take in that the order of *run* has grown."""
        if self.is_live(run):
            self.feed(Grew(run.number))

    def is_ready(self, run: Run) -> bool:
        """Tell whether the next answer of *run* is there."""
        return bool(run.answers) or not self.is_live(run) or self._scheduler.is_ready(run.number)

    def is_live(self, run: Run) -> bool:
        """Tell whether *run* has neither ended nor been abandoned."""
        return run.number in self._runs

    def abandon(self, run: Run) -> None:
        """Give *run* up."""
        self._end_run(run)
        self.feed(RunAbandoned(run.number))

    def _end_run(self, run: Run) -> None:
        if self._runs.pop(run.number, None) is not None and run.version is not None:
            run.version.runs -= 1
            if isinstance(self._sequence, Streamed):
                self._over.append(Over(run.begun.number))

    def want(self, run: Run) -> None:
        """Ask for the next answer of *run*, if it is neither there nor asked for."""
        if not run.wanted and not run.answers:  # An error may have come before it was asked for.
            run.wanted = True
            self.feed(Wanted(run.number))

    # --- events and actions ---

    def collect(self) -> None:
        """Take in the slots whose leases have ended."""
        released = self._delivery.released
        while not released.empty():
            self.feed(Released(released.get().number))

    def feed(self, event: Event) -> None:
        """Hand *event* to the scheduler and carry out its actions, which may lead to further events."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        try:
            while self._events:
                for action in self._scheduler.handle(self._events[0]):
                    self._perform(action)
                self._events.popleft()
            # After the actions: what a run still has in workers is cancelled before its version goes.
            self._tell_all(*map(Forget, self._versions.retire()), *self._over)
            self._over.clear()
        except BaseException:
            self.broken = True
            raise

    def _tell_all(self, *messages: Forget | Skip | Over) -> None:
        for message in messages:
            for worker in self._alive:
                self.backend.send(worker, message)

    def _perform(self, action: Action) -> None:
        match action:
            case Send(worker, task):
                self._send(worker, self._runs[task.run], task)
            case Deliver():
                self._deliver(action)
            case CopyOut(number, position, outcome, slot):
                self._runs[number].kept[position] = self._delivery.parts(outcome, slot, lease=False)
            case Cancel(number):
                self._tell_all(Skip(number))
            case Finish(number):
                self._answer_last(self._runs[number], Signal.END)
            case GiveUp(number, worker, attempts, cause):
                error = loss_error(cause, worker, "while it started", attempts, self._options.attempts)
                self._answer_last(self._runs[number], error)
            case Spawn(worker):
                self._spawn(worker)

    def _send(self, worker: int, run: Run, task: Task) -> None:
        assert run.version is not None
        if not self._deadlines.busy(worker):
            self._deadlines.build(worker, time.monotonic())
        supply = run.begun.supply
        if supply is not None:
            inputs.place(supply, run, task, self._delivery, self._sequence)
        self._delivery.slots[task.slot].progress = None
        room = self._delivery.room
        message = Build(run.number, run.begun.number, run.version.number, task.indices, task.slot, room)
        self.backend.send(worker, inputs.with_inputs(message, run, task))

    def _deliver(self, action: Deliver) -> None:
        run, outcome = self._runs[action.run], action.outcome
        run.index = action.index
        run.delivered += 1
        run.inputs.pop(action.position, None)
        if isinstance(outcome, Past):
            run.answers.append(Signal.PAST)
            return
        if isinstance(outcome, Failure):
            assert isinstance(outcome.error, MpseqError)
            run.answers.append(outcome.error)
        elif isinstance(outcome, Lost):
            what = f"while building {self._name_of(action.index, outcome.cause)}"
            error = loss_error(outcome.cause, outcome.worker, what, outcome.attempts, self._options.attempts)
            if not isinstance(outcome.cause, MpseqError):  # Such as a version that does not unpickle: no batch's fault.
                error.index, error.epoch = action.index, run.begun.number
            run.answers.append(error)
        else:
            run.skipped += outcome.skipped
            self._hand_over(run, action, outcome)

    def _hand_over(self, run: Run, action: Deliver, outcome: Batch) -> None:
        if action.slot is None:
            run.answers.append(run.kept.pop(action.position))
        else:
            run.answers.append(self._delivery.parts(outcome, action.slot, lease=action.lease))

    def _name_of(self, index: int, cause: object) -> str:
        if isinstance(self._sequence, Streamed):
            return self._sequence.name_of(index, cause.mark if isinstance(cause, Loss) else -1)
        return f"batch {index}"

    def _answer_last(self, run: Run, answer: Answer) -> None:
        self._end_run(run)
        run.answers.append(answer)

    # --- workers ---

    def _spawn(self, worker: int) -> None:
        try:
            with scarce("A worker process cannot be started"):
                self.backend.spawn(worker)
        except MpseqError as error:
            error.worker = worker
            # A template that dies while it starts is tried again, like a worker that does.
            died = isinstance(error, WorkerLostError) and not isinstance(error, WorkerTimeoutError)
            self._events.append(WorkerLost(worker, error, None) if died else StartFailed(worker, error))
            return
        self._alive.add(worker)
        self._deadlines.start(worker, time.monotonic())
        for version in self._versions.live[1:]:
            self.backend.send(worker, version.state, version.fds)
        self.backend.send(worker, Start())

    def hear(self, happening: Said | Ended) -> None:
        """Take in what the backend tells."""
        match happening:
            case Said(worker, Started()):
                self._deadlines.rest(worker)
                self.feed(WorkerReady(worker))
            case Said(worker, Layout() as layout):
                self._delivery.learn(worker, layout)
            case Said(worker, Done() as done):
                self._hear_done(worker, done)
            case Said(worker, Unfit(data)):
                self._unfit[worker] = load_error(data)
            case Said(worker, Stopped(data)):
                self._hear_stopped(worker, data)
            case Ended(worker, status, stack):
                self._hear_ended(worker, status, stack)

    def _hear_done(self, worker: int, done: Done) -> None:
        task = self._scheduler.current(worker)
        assert task is not None
        outcomes = tuple(
            self._delivery.received(outcome, worker, self._scheduler.attempt(task.run, position))
            for outcome, position in zip(done.outcomes, task.positions, strict=False)
        )
        largest = max((outcome.nbytes for outcome in outcomes), default=0)
        if more := self._delivery.size(largest):
            self.feed(SlotsAdded(more))
        if done.warning and not self._warned:
            self._warned = True
            self.warning = done.warning
        self._deadlines.rest(worker)
        self.feed(Built(worker, outcomes))
        if self._scheduler.current(worker) is not None and not self._deadlines.busy(worker):
            self._deadlines.build(worker, time.monotonic())
        chunk = self._delivery.chunk(largest, done.seconds / len(outcomes)) if outcomes else None
        if chunk is not None:
            self.feed(ChunkChanged(chunk))

    def _hear_stopped(self, worker: int, data: bytes) -> None:
        if data:
            error = load_error(data)
            error.worker = worker
            log.warning("Worker %d did not stop in good order: %s", worker, error)

    def _hear_ended(self, worker: int, status: int, stack: str) -> None:
        overtime_s = self._deadlines.end(worker)
        self._alive.discard(worker)
        self._delivery.forget(worker)
        self.restarts += 1
        unfit = self._unfit.pop(worker, None)
        if unfit is not None and self._scheduler.state(worker) is WorkerState.STARTING:
            self.feed(StartFailed(worker, unfit))
            return
        task = self._scheduler.current(worker)
        slot = self._delivery.slots[task.slot] if task else None
        done = slot.progress if slot else None
        if unfit is not None and done is None:
            done = 0  # It gave up before the first batch: not charged, that would go on for ever.
        loss = Loss(status, stack, overtime_s, slot.noted if slot else -1)
        self.feed(WorkerLost(worker, unfit or loss, done))

    def left(self) -> float | None:
        """Return the seconds until `watch_time` is to be called; None means for ever."""
        return self._deadlines.left(time.monotonic())

    def watch_time(self) -> None:
        """End the workers whose time is over."""
        now = time.monotonic()
        for worker in self._deadlines.due(now):
            if task := self._scheduler.current(worker):
                # Each batch of a task has the time of one.
                began = self._delivery.slots[task.slot].since
                if now - began < (self._options.timeout or 0):
                    self._deadlines.build(worker, began)
        late, stuck = self._deadlines.late(now)
        for worker in late:
            self.backend.interrupt(worker)
        for worker in stuck:
            self.backend.kill(worker)

    # --- state and end ---

    def stats(self, batches: int, skipped: int, waited_s: float) -> Stats:
        """Return what was done so far, given what consumers took and how long they waited."""
        return Stats(
            workers=self._options.workers,
            batches=batches,
            skipped=skipped,
            restarts=self.restarts,
            waited_s=waited_s,
            bytes_pickled=self._versions.nbytes_pickled,
            bytes_shared=self._versions.nbytes_shared,
            slots=len(self._delivery.slots),
            bytes_slots=self._delivery.nbytes,
        )

    def close(self) -> None:
        """End the workers and free everything. Arrays that the consumer holds stay valid."""
        self._resources.close()

    def _close_backend(self) -> None:
        for happening in self.backend.close(_PATIENCE_S):
            match happening:
                case Said(worker, Stopped(data)):
                    self._hear_stopped(worker, data)

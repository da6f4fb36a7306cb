"""The one loop: the backend's events go to the scheduler, its actions to the backend; epochs come out as iterators.

There is no thread of our own. Whoever waits for a batch drives the loop meanwhile, and hands it on when the batch is
there; other consumers of the same pool (`zip(ds, ds)`, tf.data's threads) wait on a condition. All state is touched
under that condition's lock, which is let go only while the driver waits in the backend.

The pool owns slots, versions, scheduler and backend, and closes them in that order's reverse.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

from keras_mpseq.backend import Ended, Said
from keras_mpseq.build import STATEFUL_REMEDY
from keras_mpseq.deadlines import Deadlines, start_limit
from keras_mpseq.delivery import Delivery
from keras_mpseq.epochs import Begun, Epochs
from keras_mpseq.errors import MpseqError, PoolClosedError, load_error, scarce
from keras_mpseq.ledger import WorkerState
from keras_mpseq.local import close_resources
from keras_mpseq.local_backend import LocalBackend
from keras_mpseq.losses import Loss, loss_error
from keras_mpseq.messages import (
    Action,
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
    Layout,
    Lost,
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
    Unfit,
    Wanted,
    WorkerLost,
    WorkerReady,
)
from keras_mpseq.options import Options
from keras_mpseq.run import Answer, Run, Signal, Stats
from keras_mpseq.scheduler import Scheduler
from keras_mpseq.versions import Version, Versions

_DEPTH = 2
"""Tasks a worker holds: one to build and one so that it need not wait for the next."""
_LEASES = 2
"""Slots beyond those being built and ready: the batch in use, and the one TensorFlow lets go late."""
_COPY_BELOW = 1 << 15
"""Bytes. Copying so little costs less than a lease (3 us), and frees the slot at once."""
_PATIENCE_S = 5.0
"""For workers to end in good order when the pool is closed; then they are killed."""
log = logging.getLogger("keras_mpseq")


class Pool:
    """Worker processes that build the batches of one sequence, for any number of epochs."""

    def __init__(self, sequence: Any, options: Options) -> None:
        self.sequence = sequence
        self.options = options
        self.epochs = Epochs(sequence, options)
        self.delivered = self.skipped = 0
        self._pid = os.getpid()
        self._turn = threading.Condition()
        self._driver: int | None = None
        """The thread that waits in the backend."""
        self._closed = self._close_late = self._warned = False
        self._mine = threading.local()
        self._warning = ""
        self._events: deque[Event] = deque()
        self._runs: dict[int, Run] = {}
        self._numbers = itertools.count()
        self._dropped: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._deadlines = Deadlines(options.timeout)
        self._alive: set[int] = set()
        self._unfit: dict[int, MpseqError] = {}
        self._restarts = 0
        self._waited_s = 0.0
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
            setup = Setup(options.seed, options.workers, options.strict, options.worker_threads, count, state.state)
            fds = [*(slot.fd for slot in self._delivery.slots), *state.fds]
            self._backend = LocalBackend(setup, fds, options.launcher, start_limit(options.timeout))
            resources.callback(self._backend.let_go)
            resources.callback(self._close_backend)
            self._backend.start()
            self._resources = resources.pop_all()

    # --- epochs ---

    def iterate(self) -> Run:
        """See Source."""
        self._check_open()
        with self._whole():
            self._end_dropped()
        return self._start(self.epochs.begin())

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Hold the turn. What is interrupted within (Ctrl-C) is in an unknown state, so that nothing may go on."""
        with self._turn:
            outer, self._mine.inside = self._is_inside(), True
            try:
                yield
            except MpseqError:
                raise
            except BaseException:
                self._closed = True
                raise
            finally:
                self._mine.inside = outer
                if self._close_late and not outer:
                    self._close_late = False
                    self._resources.close()

    def _is_inside(self) -> bool:
        """Tell whether this thread is in the middle of bookkeeping, and what runs now is a signal handler."""
        return getattr(self._mine, "inside", False)

    def _start(self, begun: Begun) -> Run:
        with self._whole():
            self._check_open()
            version = self._publish()
            run = Run(next(self._numbers), begun, version)
            version.runs += 1
            self._runs[run.number] = run
            self._feed(RunStarted(run.number, begun.order))
            return run

    def refreshed(self, run: Run) -> Run:
        """See Source."""
        begun = self.epochs.again(run.begun)
        with self._whole():
            if begun.length == run.begun.length and self._publish() is run.version:
                return run
        self.abandon(run)
        return self._start(begun)

    def _publish(self) -> Version:
        before = self._versions.current
        version = self._versions.publish(self.sequence)
        if version is not before:
            for worker in self._alive:
                self._backend.send(worker, version.state, version.fds)
        return version

    def _tell_all(self, *messages: Forget | Skip) -> None:
        for message in messages:
            for worker in self._alive:
                self._backend.send(worker, message)

    def abandon(self, run: Run) -> None:
        """See Source."""
        if os.getpid() != self._pid:  # A process that the user's code forked: the workers are not its own.
            return
        with self._whole():
            if not self._closed:
                self._end_run(run)
                self._feed(RunAbandoned(run.number))

    def _end_run(self, run: Run) -> None:
        if self._runs.pop(run.number, None) is not None and run.version is not None:
            run.version.runs -= 1

    def drop(self, run: Run) -> None:
        """See Source."""
        self._dropped.put(run)

    def _end_dropped(self) -> None:
        while not self._dropped.empty():
            run = self._dropped.get()
            if run.number in self._runs:
                self.abandon(run)
                self.epochs.dropped.put(run.begun)

    # --- taking batches ---

    def take(self, run: Run, wait: bool = True) -> Answer:
        """See Source.

        Raises:
            PoolClosedError: The pool was closed.
        """
        began = time.perf_counter()
        self._check_open()
        while True:
            self._warn()
            with self._whole():
                answer = self._answer(run, wait)
            if answer is not None:
                self._waited_s += time.perf_counter() - began
                return answer
            self._drive()

    def _answer(self, run: Run, wait: bool) -> Answer | None:
        """Return the next answer of *run*, or None when this thread is to drive first."""
        self._check_open()
        self._collect()
        if not run.wanted and not run.answers:  # An error may have come before it was asked for.
            run.wanted = True
            self._feed(Wanted(run.number))
        while not run.answers:
            if not wait:
                return Signal.NOT_READY
            if not self._others_drive():
                self._driver = threading.get_ident()
                return None
            self._turn.wait()
            self._check_open()
        run.wanted = False
        return run.answers.popleft()

    def _others_drive(self) -> bool:
        """Tell whether another thread waits in the backend. This one does not, whatever an interrupt left noted."""
        return self._driver not in (None, threading.get_ident())

    def _drive(self) -> None:
        """Wait once in the backend, without the lock, and handle what happened."""
        try:
            ready = self._backend.wait(self._deadlines.left(time.monotonic()))
        except BaseException as error:  # Interrupted: nothing was received, so that whoever comes next may drive.
            with self._turn:
                self._driver = None
                self._turn.notify_all()
            if isinstance(error, (OSError, ValueError)):
                self._check_open()  # A signal handler closed the pool under the wait.
            raise
        with self._whole():
            self._driver = None
            self._turn.notify_all()
            if self._closed:
                return
            for happening in self._backend.receive(ready):
                self._hear(happening)
            self._collect()
            self._watch_time()

    def _warn(self) -> None:
        """Give the warning that is due: outside of all bookkeeping, because a filter may make it an exception."""
        if self._warning:
            warning, self._warning = self._warning, ""
            warnings.warn(warning, UserWarning, stacklevel=3)

    def _collect(self) -> None:
        """Take in what finalizers left: ended leases, dropped iterators."""
        released = self._delivery.released
        while not released.empty():
            self._feed(Released(released.get()))
        self._end_dropped()

    def _feed(self, event: Event) -> None:
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
            self._tell_all(*map(Forget, self._versions.retire()))
        except BaseException:
            # Interrupted between two actions (Ctrl-C): what was done is unknown, so that nothing may go on.
            self._closed = True
            raise
        if self._others_drive():
            self._backend.wake()  # Deadlines may have changed.

    def _perform(self, action: Action) -> None:
        match action:
            case Send(worker, task):
                self._send(worker, self._runs[task.run], task.indices, task.slot)
            case Deliver():
                self._deliver(action)
            case CopyOut(number, position, outcome, slot):
                self._runs[number].kept[position] = self._delivery.parts(outcome, slot, lease=False)
            case Cancel(number):
                self._tell_all(Skip(number))
            case Finish(number):
                self._answer_last(self._runs[number], Signal.END)
            case GiveUp(number, worker, attempts, cause):
                error = loss_error(cause, worker, "while it started", attempts, self.options.attempts)
                self._answer_last(self._runs[number], error)
            case Spawn(worker):
                self._spawn(worker)

    def _send(self, worker: int, run: Run, indices: tuple[int, ...], slot: int) -> None:
        assert run.version is not None
        if not self._deadlines.busy(worker):
            self._deadlines.build(worker, time.monotonic())
        self._delivery.slots[slot].progress = None
        self._backend.send(
            worker, Build(run.number, run.begun.number, run.version.number, indices, slot, self._delivery.room)
        )

    def _deliver(self, action: Deliver) -> None:
        run, outcome = self._runs[action.run], action.outcome
        run.index = action.index
        if isinstance(outcome, Failure):
            assert isinstance(outcome.error, MpseqError)
            run.answers.append(outcome.error)
        elif isinstance(outcome, Lost):
            what = f"while building batch {action.index}"
            error = loss_error(outcome.cause, outcome.worker, what, outcome.attempts, self.options.attempts)
            if not isinstance(outcome.cause, MpseqError):  # Such as a version that does not unpickle: no batch's fault.
                error.index, error.epoch = action.index, run.begun.number
            run.answers.append(error)
        elif action.slot is None:
            run.answers.append(run.kept.pop(action.position))
        else:
            run.answers.append(self._delivery.parts(outcome, action.slot, lease=action.lease))

    def _answer_last(self, run: Run, answer: Answer) -> None:
        self._end_run(run)
        run.answers.append(answer)

    # --- workers ---

    def _spawn(self, worker: int) -> None:
        try:
            with scarce("A worker process cannot be started"):
                self._backend.spawn(worker)
        except MpseqError as error:
            error.worker = worker
            self._events.append(StartFailed(worker, error))
            return
        self._alive.add(worker)
        self._deadlines.start(worker, time.monotonic())
        for version in self._versions.live[1:]:
            self._backend.send(worker, version.state, version.fds)
        self._backend.send(worker, Start())

    def _hear(self, happening: Said | Ended) -> None:
        match happening:
            case Said(worker, Started()):
                self._deadlines.rest(worker)
                self._feed(WorkerReady(worker))
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
            self._feed(SlotsAdded(more))
        if done.changed and not self._warned:
            self._warned = True
            self._warning = f"{done.changed[0]}. {STATEFUL_REMEDY}"
        self._deadlines.rest(worker)
        self._feed(Built(worker, outcomes))
        if self._scheduler.current(worker) is not None and not self._deadlines.busy(worker):
            self._deadlines.build(worker, time.monotonic())
        chunk = self._delivery.chunk(largest, done.seconds / len(outcomes)) if outcomes else None
        if chunk is not None:
            self._feed(ChunkChanged(chunk))

    def _hear_stopped(self, worker: int, data: bytes) -> None:
        if data:
            error = load_error(data)
            error.worker = worker
            log.warning("Worker %d did not stop in good order: %s", worker, error)

    def _hear_ended(self, worker: int, status: int, stack: str) -> None:
        overtime_s = self._deadlines.end(worker)
        self._alive.discard(worker)
        self._delivery.forget(worker)
        self._restarts += 1
        unfit = self._unfit.pop(worker, None)
        if unfit is not None and self._scheduler.state(worker) is WorkerState.STARTING:
            self._feed(StartFailed(worker, unfit))
            return
        task = self._scheduler.current(worker)
        done = self._delivery.slots[task.slot].progress if task else None
        if unfit is not None and done is None:
            done = 0  # It gave up before the first batch: not charged, that would go on for ever.
        self._feed(WorkerLost(worker, unfit or Loss(status, stack, overtime_s), done))

    def _watch_time(self) -> None:
        now = time.monotonic()
        for worker in self._deadlines.due(now):
            if task := self._scheduler.current(worker):
                # Each batch of a task has the time of one.
                began = self._delivery.slots[task.slot].since
                if now - began < (self.options.timeout or 0):
                    self._deadlines.build(worker, began)
        late, stuck = self._deadlines.late(now)
        for worker in late:
            self._backend.interrupt(worker)
        for worker in stuck:
            self._backend.kill(worker)

    # --- state and end ---

    def stats(self) -> Stats:
        """See Source."""
        with self._turn:
            return Stats(
                workers=self.options.workers,
                batches=self.delivered,
                skipped=self.skipped,
                restarts=self._restarts,
                waited_s=self._waited_s,
                bytes_pickled=self._versions.nbytes_pickled,
                bytes_shared=self._versions.nbytes_shared,
                slots=len(self._delivery.slots),
                bytes_slots=self._delivery.nbytes,
            )

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise PoolClosedError(
                f"The loader belongs to process {self._pid} and cannot be used in process {os.getpid()}, "
                "which was forked from it",
                remedy="Make a Loader of its own there.",
            )
        if self._closed:
            raise PoolClosedError("The loader is closed", remedy="Iterate inside its `with` block, or make a new one.")

    def close(self) -> None:
        """End the workers and free everything. Arrays that the consumer holds stay valid."""
        if os.getpid() != self._pid:  # A process that the user's code forked: nothing here is its own.
            return
        with self._turn:
            self._closed = True
            self._close_late = self._is_inside()
            if not self._close_late:
                while self._others_drive():
                    self._backend.wake()
                    self._turn.wait()
                self._resources.close()
        while not self._dropped.empty():
            self.epochs.dropped.put(self._dropped.get().begun)
        self.epochs.end_dropped()

    def _close_backend(self) -> None:
        for happening in self._backend.close(_PATIENCE_S):
            match happening:
                case Said(worker, Stopped(data)):
                    self._hear_stopped(worker, data)

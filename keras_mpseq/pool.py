"""The one loop: the backend's events go to the scheduler, its actions to the backend; epochs come out as iterators.

There is no thread of our own. Whoever waits for a batch drives the loop meanwhile, and hands it on when the batch is
there; other consumers of the same pool (`zip(ds, ds)`, tf.data's threads) wait on a condition. All state is touched
under that condition's lock, which is let go only while the driver waits in the backend.

The pool owns slots, versions, scheduler and backend, and closes them in that order's reverse.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import pickle
import queue
import threading
import time
import warnings
from collections import deque
from typing import Any, NamedTuple

from keras_mpseq.backend import Ended, Said
from keras_mpseq.codec import Structure
from keras_mpseq.epochs import Begun, Epochs
from keras_mpseq.errors import (
    MpseqError,
    PoolClosedError,
    WorkerLostError,
    WorkerTimeoutError,
    describe_exit,
    load_error,
)
from keras_mpseq.ledger import WorkerState
from keras_mpseq.local import close_resources
from keras_mpseq.local_backend import LocalBackend
from keras_mpseq.messages import (
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
    Layout,
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
from keras_mpseq.run import Answer, Parts, Run, Signal, Stats
from keras_mpseq.scheduler import Scheduler
from keras_mpseq.slots import SLOT_HEAD, Slot, anonymous_file, whole_pages
from keras_mpseq.versions import Versions

_DEPTH = 2
"""Tasks a worker holds: one to build and one so that it need not wait for the next."""
_LEASES = 2
"""Slots beyond those being built and ready: the batch in use, and the one TensorFlow lets go late."""
_COPY_BELOW = 1 << 15
"""Bytes. Copying so little costs less than a lease (3 us), and frees the slot at once."""
_CHUNK_S = 0.0005
"""Seconds of work in a task of several small batches: ten times what a message costs both sides."""
_CHUNK_BYTES = 1 << 18
_CHUNK_MOST = 64
_LAST_WORDS_S = 2.0
"""For an interrupted worker to write its stack and die; then it is killed."""
_PATIENCE_S = 5.0
"""For workers to end in good order when the pool is closed; then they are killed."""
log = logging.getLogger("keras_mpseq")


class Loss(NamedTuple):
    """Why a worker was lost."""

    status: int
    stack: str
    timed_out: bool


class Pool:
    """Worker processes that build the batches of one sequence, for any number of epochs."""

    def __init__(self, sequence: Any, options: Options) -> None:
        self.sequence = sequence
        self.options = options
        self.epochs = Epochs(sequence, options)
        self._pid = os.getpid()
        self._turn = threading.Condition()
        self._driving = False
        self._closed = False
        self._events: deque[Event] = deque()
        self._runs: dict[int, Run] = {}
        self._numbers = itertools.count()
        self._released: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._dropped: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._structures: dict[Structure, int] = {}
        self._layouts: dict[tuple[int, int], int] = {}
        self._since: dict[int, float] = {}
        self._interrupted: dict[int, float] = {}
        self._unfit: dict[int, MpseqError] = {}
        self._warned = False
        self._alive: set[int] = set()
        self._known: list[Structure] = []
        self._restarts = self._delivered = self.skipped = 0
        self._waited_s = 0.0
        self._room = options.max_bytes
        self._sized = False
        self._chunk = 1
        # The first batch is built alone, in the only slot there is: it tells how large slots are (max_bytes).
        self._scheduler = Scheduler(
            workers=options.workers,
            depth=_DEPTH,
            attempts=options.attempts,
            slots=1,
            copy_below=_COPY_BELOW,
        )
        with contextlib.ExitStack() as resources:
            resources.callback(close_resources, sequence)
            self._versions = Versions(sequence)
            resources.callback(self._versions.close)
            count = options.workers + options.prefetch + _LEASES
            self._slots: list[Slot] = []
            for _ in range(count):
                self._slots.append(Slot(anonymous_file()))
                resources.callback(self._slots[-1].close)
            setup = Setup(
                options.seed,
                options.workers,
                options.strict,
                options.worker_threads,
                count,
                self._versions.first.state,
            )
            fds = [slot.fd for slot in self._slots] + self._versions.first.fds
            self._backend = LocalBackend(setup, fds, options.launcher)
            resources.callback(self._close_backend)
            self._backend.start()
            self._resources = resources.pop_all()

    # --- epochs ---

    def iterate(self) -> Run:
        """See Source."""
        self._check_open()
        self._end_dropped()
        return self._start(self.epochs.begin())

    def _start(self, begun: Begun) -> Run:
        with self._turn:
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
        with self._turn:
            if begun.length == run.begun.length and self._publish() is run.version:
                return run
        self.abandon(run)
        return self._start(begun)

    def _publish(self) -> Any:
        before = self._versions.current
        version = self._versions.publish(self.sequence)
        if version is not before:
            for worker in self._alive:
                self._backend.send(worker, version.state, version.fds)
            self._forget_versions()
        return version

    def _forget_versions(self) -> None:
        for number in self._versions.retire():
            for worker in self._alive:
                self._backend.send(worker, Forget(number))

    def abandon(self, run: Run) -> None:
        """See Source."""
        with self._turn:
            if not self._closed:
                self._end_run(run)
                self._feed(RunAbandoned(run.number))

    def _end_run(self, run: Run) -> None:
        if self._runs.pop(run.number, None) is not None and run.version is not None:
            run.version.runs -= 1
            self._forget_versions()

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
        with self._turn:
            self._check_open()
            self._collect()
            if not run.wanted and not run.answers:  # An error may have come before it was asked for.
                run.wanted = True
                self._feed(Wanted(run.number))
            while not run.answers:
                if not wait:
                    return Signal.NOT_READY
                if self._driving:
                    self._turn.wait()
                else:
                    self._drive()
                self._check_open()
            self._waited_s += time.perf_counter() - began
            run.wanted = False
            return run.answers.popleft()

    def _drive(self) -> None:
        """Wait once in the backend, without the lock, and handle what happened."""
        patience = self._time_left()
        self._driving = True
        self._turn.release()
        try:
            ready = self._backend.wait(patience)
        finally:
            self._turn.acquire()
            self._driving = False
            self._turn.notify_all()
        if self._closed:
            return
        for happening in self._backend.receive(ready):
            self._hear(happening)
        self._collect()
        self._watch_time()

    def _collect(self) -> None:
        """Take in what finalizers left: ended leases, dropped iterators."""
        while not self._released.empty():
            self._feed(Released(self._released.get()))
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
        except BaseException:
            # Interrupted between two actions (Ctrl-C): what was done is unknown, so that nothing may go on.
            self._closed = True
            raise
        if self._driving:
            self._backend.wake()  # Deadlines may have changed.

    def _perform(self, action: Any) -> None:
        match action:
            case Send(worker, task):
                run = self._runs[task.run]
                assert run.version is not None
                self._since.setdefault(worker, time.monotonic())
                self._backend.send(
                    worker,
                    Build(task.run, run.begun.number, run.version.number, task.indices, task.slot, self._room),
                )
            case Deliver():
                self._deliver(action)
            case CopyOut(run_number, position, outcome, slot):
                self._runs[run_number].kept[position] = self._parts(outcome, slot, lease=False)
            case Cancel(run_number):
                for worker in self._alive:
                    self._backend.send(worker, Skip(run_number))
            case Finish(run_number):
                run = self._runs[run_number]
                self._end_run(run)
                run.answers.append(Signal.END)
            case GiveUp(run_number, worker, attempts, cause):
                run = self._runs[run_number]
                self._end_run(run)
                run.answers.append(self._start_error(worker, attempts, cause))
            case Spawn(worker):
                self._spawn(worker)

    def _deliver(self, action: Deliver) -> None:
        run = self._runs[action.run]
        outcome = action.outcome
        if isinstance(outcome, Failure):
            assert isinstance(outcome.error, MpseqError)
            run.answers.append(outcome.error)
        elif not isinstance(outcome, Batch):
            run.answers.append(self._lost_error(run, action.index, outcome))
        elif action.slot is None:
            run.answers.append(run.kept.pop(action.position))
        else:
            run.answers.append(self._parts(outcome, action.slot, action.lease))
        run.index = action.index
        self._delivered += 1

    def _parts(self, outcome: Any, slot: int, lease: bool) -> Parts:
        structure = self._known[outcome.layout]
        if lease:
            release = functools.partial(self._released.put, slot)
            return Parts(structure, self._slots[slot].leased(outcome.leaves, structure.dtypes, release))
        return Parts(structure, self._slots[slot].arrays(outcome.leaves, structure.dtypes, copy=True))

    # --- workers ---

    def _spawn(self, worker: int) -> None:
        try:
            self._backend.spawn(worker)
        except (MpseqError, OSError) as error:
            found = (
                error
                if isinstance(error, MpseqError)
                else MpseqError(
                    f"A worker process cannot be started: {error}",
                    worker=worker,
                    remedy="Lower workers, or raise the limits on processes, memory and open files (ulimit).",
                )
            )
            self._events.append(StartFailed(worker, found))
            return
        self._alive.add(worker)
        for version in self._versions.live[1:]:
            self._backend.send(worker, version.state, version.fds)
        self._backend.send(worker, Start())

    def _hear(self, happening: Said | Ended) -> None:
        match happening:
            case Said(worker, Started()):
                self._feed(WorkerReady(worker))
            case Said(worker, Layout(number, data)):
                structure: Structure = pickle.loads(data)
                known = self._structures.setdefault(structure, len(self._structures))
                if known == len(self._known):
                    self._known.append(structure)
                self._layouts[worker, number] = known
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
            self._outcome(worker, outcome, task.run, position)
            for outcome, position in zip(done.outcomes, task.positions, strict=False)
        )
        largest = max((outcome.nbytes for outcome in outcomes), default=0)
        if largest and not self._sized:
            self._size_slots(largest)
        if done.changed and not self._warned:
            self._warned = True
            warnings.warn(f"{done.changed[0]}.", UserWarning, stacklevel=2)
        self._feed(Built(worker, outcomes))
        self._restart_clock(worker)
        if outcomes:
            self._tune(largest, done.seconds / len(outcomes))

    def _outcome(self, worker: int, outcome: Batch | Failure, run: int, position: int) -> Batch | Failure:
        if isinstance(outcome, Batch):
            return outcome._replace(layout=self._layouts[worker, outcome.layout])
        assert isinstance(outcome.error, bytes)
        error = load_error(outcome.error)
        error.worker, error.attempt = worker, self._scheduler.attempt(run, position)
        return Failure(error)

    def _restart_clock(self, worker: int) -> None:
        self._since.pop(worker, None)
        if self._scheduler.current(worker) is not None:
            self._since[worker] = time.monotonic()

    def _hear_stopped(self, worker: int, data: bytes) -> None:
        if data:
            error = load_error(data)
            error.worker = worker
            log.warning("Worker %d did not stop in good order: %s", worker, error)

    def _hear_ended(self, worker: int, status: int, stack: str) -> None:
        self._alive.discard(worker)
        self._since.pop(worker, None)
        timed_out = self._interrupted.pop(worker, None) is not None
        self._layouts = {key: known for key, known in self._layouts.items() if key[0] != worker}
        self._restarts += 1
        unfit = self._unfit.pop(worker, None)
        if unfit is not None and self._scheduler.state(worker) is WorkerState.STARTING:
            self._feed(StartFailed(worker, unfit))
            return
        task = self._scheduler.current(worker)
        done = self._slots[task.slot].progress if task else 0
        self._feed(WorkerLost(worker, unfit or Loss(status, stack, timed_out), done))

    def _size_slots(self, nbytes: int) -> None:
        """Give as many slots as `max_bytes` allows for batches as large as the first."""
        self._sized = True
        count = max(1, min(len(self._slots), self.options.max_bytes // whole_pages(SLOT_HEAD + nbytes)))
        self._room = self.options.max_bytes // count
        self._feed(SlotsAdded(count - 1))

    def _tune(self, nbytes: int, seconds: float) -> None:
        """Let a task take several batches when one is so small that its message costs more."""
        most = min(_CHUNK_BYTES, self._room // 2) // max(1, nbytes)
        chunk = max(1, min(_CHUNK_MOST, most, int(_CHUNK_S / max(seconds, 1e-6))))
        if chunk != self._chunk:
            self._chunk = chunk
            self._feed(ChunkChanged(chunk))

    # --- time ---

    def _time_left(self) -> float | None:
        """Return the seconds until the first deadline, or None."""
        limit = self.options.timeout
        deadlines = [began + _LAST_WORDS_S for began in self._interrupted.values()]
        if limit is not None:
            deadlines += [began + limit for worker, began in self._since.items() if worker not in self._interrupted]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _watch_time(self) -> None:
        now = time.monotonic()
        limit = self.options.timeout
        for worker, began in list(self._since.items()):
            if worker in self._interrupted:
                if now >= self._interrupted[worker] + _LAST_WORDS_S:
                    self._backend.kill(worker)
            elif limit is not None and now >= began + limit:
                self._interrupted[worker] = now
                self._backend.interrupt(worker)

    # --- errors ---

    def _lost_error(self, run: Run, index: int, lost: Any) -> MpseqError:
        if isinstance(lost.cause, MpseqError):  # A later version of the sequence did not unpickle.
            return lost.cause
        loss: Loss = lost.cause
        place = f"while building batch {index}, attempt {lost.attempts} of {self.options.attempts}"
        error: WorkerLostError
        if loss.timed_out:
            error = WorkerTimeoutError(
                f"Worker {lost.worker} took longer than timeout={self.options.timeout:g} s and was killed {place}",
                remedy="Raise timeout, or look at the stack below for what it waits for.",
            )
            error.stack = loss.stack
        else:
            name, remedy = describe_exit(loss.status)
            error = WorkerLostError(f"Worker {lost.worker} died ({name}) {place}", remedy=remedy)
            error.traceback = loss.stack
        error.index, error.epoch = index, run.begun.number
        error.worker, error.attempt = lost.worker, lost.attempts
        return error

    def _start_error(self, worker: int, attempts: int, cause: object) -> MpseqError:
        if isinstance(cause, MpseqError):
            cause.worker = worker if cause.worker is None else cause.worker
            return cause
        assert isinstance(cause, Loss)
        name, remedy = describe_exit(cause.status)
        return WorkerLostError(
            f"Worker {worker} died ({name}) while it started, attempt {attempts} of {self.options.attempts}",
            worker=worker,
            attempt=attempts,
            remedy=remedy,
            traceback=cause.stack,
        )

    # --- state and end ---

    def stats(self) -> Stats:
        """See Source."""
        with self._turn:
            return Stats(
                workers=self.options.workers,
                batches=self._delivered - self.skipped,
                skipped=self.skipped,
                restarts=self._restarts,
                waited_s=self._waited_s,
                bytes_pickled=self._versions.nbytes_pickled,
                bytes_shared=self._versions.nbytes_shared,
                slots=len(self._slots),
                bytes_slots=sum(slot.nbytes for slot in self._slots),
            )

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("The loader is closed", remedy="Iterate inside its `with` block, or make a new one.")

    def close(self) -> None:
        """End the workers and free everything. Arrays that the consumer holds stay valid."""
        if os.getpid() != self._pid:  # A process that the user's code forked: nothing here is its own.
            return
        with self._turn:
            self._closed = True
            while self._driving:
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

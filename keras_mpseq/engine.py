"""Between the workers and the scheduler: events go in, actions are carried out, batches come out as answers of runs.

Decides nothing and waits for nothing. Not for several threads at a time: the pool sees to turns.

Owns slots, versions, scheduler and workers, and closes them in that order's reverse.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from keras_mpseq.backend import Backend, Ended, Said, Workplace
from keras_mpseq.crew import Crew
from keras_mpseq.delivery import Delivery
from keras_mpseq.errors import InternalError, MpseqError, copied, scarce
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
    Retire,
    RunAbandoned,
    RunStarted,
    Send,
    SlotsAdded,
    Spawn,
    Wanted,
    WorkerReady,
)
from keras_mpseq.local import close_resources
from keras_mpseq.local_backend import LocalWorkplace
from keras_mpseq.losses import Loss, loss_error
from keras_mpseq.messages import (
    Batch,
    Done,
    Failure,
    Forget,
    Layout,
    Lost,
    Over,
    Past,
    Recorded,
    Setup,
    Skip,
    Started,
    Stopped,
    Unfit,
)
from keras_mpseq.options import Options
from keras_mpseq.run import Answer, Run, Signal, Stats
from keras_mpseq.scheduler import Scheduler
from keras_mpseq.staff import WorkerState
from keras_mpseq.streams import Streamed, name_of
from keras_mpseq.versions import Versions

_LEASES = 2
"""Slots beyond those being built and ready: the batch in use, and the one TensorFlow lets go late."""
_COPY_BELOW = 1 << 15
"""Bytes. Copying so little costs less than a lease (3 us), and frees the slot at once."""


def _workplace(options: Options) -> Workplace:
    """Return where workers are to be."""
    if options.ray is None:
        return LocalWorkplace(options)
    from keras_mpseq.ray_workplace import RayWorkplace  # Not above: Ray is an extra, and takes half a second.

    return RayWorkplace(options)


class Engine:
    """The parts of a pool of workers for *sequence*, and what passes between them."""

    def __init__(self, sequence: Any, options: Options) -> None:
        self._sequence = sequence
        self._options = options
        self._events: deque[Event] = deque()
        self._runs: dict[int, Run] = {}
        self._over: list[Over] = []
        # A sequence that keeps state is told of by the pipeline that is used, not by one that measures.
        self._warned = options.record
        self.broken: bool = False
        """Interrupted between two actions (Ctrl-C): what was done is unknown, so that nothing may go on."""
        self.warning: str = ""
        """To be given, and then emptied."""
        self.records: list[tuple[int, Recorded]] = []
        """To be taken out."""
        place = _workplace(options)
        # The first batch is built alone, in the only slot there is: it tells how large slots are (max_bytes).
        self._scheduler = Scheduler(
            workers=options.workers,
            depth=place.depth,
            attempts=options.attempts,
            slots=1,
            copy_below=_COPY_BELOW,
            most=options.limits.max_tasks_per_worker,
        )
        with scarce("Worker processes cannot be started"), contextlib.ExitStack() as resources:
            resources.callback(close_resources, sequence)
            self._versions = Versions(sequence, place.segment)
            resources.callback(self._versions.close)
            count = options.workers + options.prefetch + _LEASES
            self._delivery = Delivery(count, place.max_bytes, place.slot)
            resources.callback(self._delivery.close)
            first = self._versions.first
            setup = Setup(
                options.seed,
                options.workers,
                options.strict,
                options.worker_threads,
                count,
                first.state,
                options.doubles,
                options.record,
            )
            self.backend: Backend = place.backend(setup, self._delivery.slots, first.handles)
            self._crew = Crew(sequence, options, self._versions, self._delivery, self.backend)
            resources.callback(self.backend.let_go)
            resources.callback(self._crew.close, self._is_idle)
            self.backend.start()
            self._resources = resources.pop_all()

    # --- runs ---

    def start(self, run: Run) -> None:
        """Begin *run* with the sequence as it is now."""
        run.version = self._crew.publish()
        run.version.runs += 1
        self._runs[run.number] = run
        self.feed(RunStarted(run.number, run.begun.order))

    def is_current(self, run: Run) -> bool:
        """Tell whether the sequence is still as it was when *run* began."""
        return self._crew.publish() is run.version

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
                for action in self._decided(self._events[0]):
                    self._perform(action)
                self._events.popleft()
            # After the actions: what a run still has in workers is cancelled before its version goes.
            self._crew.tell(*map(Forget, self._versions.retire()), *self._over)
            self._over.clear()
        except BaseException:
            self.broken = True
            raise

    def _decided(self, event: Event) -> list[Action]:
        try:
            return self._scheduler.handle(event)
        except ValueError as error:
            raise self._bug(f"What has happened cannot be ({str(error).rstrip('.')})") from error

    def _perform(self, action: Action) -> None:
        match action:
            case Send(worker, task):
                self._crew.send(worker, self._runs[task.run], task)
            case Deliver():
                self._deliver(action)
            case CopyOut(number, position, outcome, slot):
                self._runs[number].kept[position] = self._delivery.parts(outcome, slot, lease=False)
            case Cancel(number):
                self._crew.tell(Skip(number))
            case Finish(number):
                self._answer_last(self._runs[number], Signal.END)
            case GiveUp(number, worker, attempts, cause):
                error = loss_error(cause, self._crew.seat(worker), "while it started", attempts, self._options.attempts)
                self._answer_last(self._runs[number], error)
            case Spawn(worker):
                if failed := self._crew.spawn(worker):
                    self._events.append(failed)
            case Retire(worker):
                self._crew.retire(worker)

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
            run.answers.append(copied(outcome.error))
        elif isinstance(outcome, Lost):
            mark = outcome.cause.mark if isinstance(outcome.cause, Loss) else -1
            what = f"while building {name_of(self._sequence, action.index, mark)}"
            worker = self._crew.seat(outcome.worker)
            error = loss_error(outcome.cause, worker, what, outcome.attempts, self._options.attempts)
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

    def _answer_last(self, run: Run, answer: Answer) -> None:
        self._end_run(run)
        run.answers.append(answer)

    # --- workers ---

    def hear(self, happening: Said | Ended) -> None:
        """Take in what the backend tells."""
        match happening:
            case Said(worker, Started()):
                self._crew.watch.started(worker)
                self.feed(WorkerReady(worker))
            case Said(worker, Layout() as layout):
                self._delivery.learn(worker, layout)
            case Said(worker, Recorded() as recorded):
                self.records.append((self._crew.seat(worker), recorded))
            case Said(worker, Done() as done):
                self._hear_done(worker, done)
            case Said(worker, Unfit(data)):
                self._crew.unfit(worker, data)
            case Said(worker, Stopped(data)):
                self._crew.stopped(worker, data)
            case Ended(worker):
                self.feed(self._crew.ended(happening, self._scheduler.state(worker)))

    def _hear_done(self, worker: int, done: Done) -> None:
        task = self._scheduler.current(worker)
        assert task is not None
        seat, node = self._crew.seat(worker), self.backend.node(worker)
        outcomes = tuple(
            self._delivery.received(outcome, worker, seat, self._scheduler.attempt(task.run, position), node)
            for outcome, position in zip(done.outcomes, task.positions, strict=False)
        )
        largest = max((outcome.nbytes for outcome in outcomes), default=0)
        if more := self._delivery.size(largest):
            self.feed(SlotsAdded(more))
        if done.warning and not self._warned:
            self._warned = True
            self.warning = done.warning
        self._crew.watch.answered(worker)
        self._crew.built[seat] += len(outcomes)
        self.feed(Built(worker, outcomes))
        chunk = self._delivery.chunk(largest, done.seconds / len(outcomes)) if outcomes else None
        if chunk is not None:
            self.feed(ChunkChanged(chunk))

    # --- time ---

    def left(self) -> float | None:
        """Return the seconds until `watch_time` is to be called; None means for ever."""
        return self._crew.watch.left()

    def watch_time(self) -> None:
        """End the workers whose time is over, and ask those that are slow."""
        self._crew.watch.look()
        if self._crew.watch.forgotten:
            raise self._bug(f"The pool has locked itself up: {self._crew.watch.forgotten}")

    def notices(self) -> Iterator[str]:
        """Take out what is to be logged."""
        while self._crew.watch.notices:
            yield self._crew.watch.notices.popleft()

    def check_moving(self, run: Run) -> None:
        """Make sure that somebody works, before the consumer of *run* waits.

        Raises:
            InternalError: Nobody does, nor is about to.
        """
        if self._crew.watch.idle:
            raise self._bug(f"The pool has locked itself up: the consumer of run {run.number} waits, but nobody works")

    def _bug(self, what: str) -> InternalError:
        self.broken = True
        error = InternalError(what, remedy="This is a bug in keras_mpseq: please report it, with all of this text.")
        error.trace = self._scheduler.report()
        return error

    # --- state and end ---

    def stats(self, batches: int, skipped: int, waited_s: float) -> Stats:
        """Return what was done so far, given what consumers took and how long they waited."""
        return Stats(
            workers=self._options.workers,
            batches=batches,
            skipped=skipped,
            restarts=self._crew.restarts,
            recycled=self._crew.recycled,
            waited_s=waited_s,
            bytes_pickled=self._versions.nbytes_pickled,
            bytes_shared=self._versions.nbytes_shared,
            slots=len(self._delivery.slots),
            bytes_slots=self._delivery.nbytes,
            ready=self._scheduler.ready,
            built=tuple(self._crew.built),
        )

    def close(self) -> None:
        """End the workers and free everything. Arrays that the consumer holds stay valid."""
        self._resources.close()

    def _is_idle(self, worker: int) -> bool:
        """Tell whether a worker has started, is fit, and has nothing to build."""
        state = self._scheduler.state(worker)
        return state in (WorkerState.READY, WorkerState.RETIRING) and self._scheduler.current(worker) is None

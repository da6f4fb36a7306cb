"""The worker processes of a pool as the engine sees them: whom there is, what they are told, what their ends mean.

Owns the backend and the watch over the workers' time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from keras_mpseq import inputs
from keras_mpseq.backend import Backend, Ended, Said
from keras_mpseq.delivery import Delivery
from keras_mpseq.errors import MpseqError, WorkerLostError, WorkerTimeoutError, load_error, scarce
from keras_mpseq.events import Event, Retired, StartFailed, WorkerLost
from keras_mpseq.losses import loss_error
from keras_mpseq.messages import Build, Forget, Over, Skip, Start, Stop, Stopped, Task
from keras_mpseq.options import Options
from keras_mpseq.run import Run
from keras_mpseq.staff import WorkerState
from keras_mpseq.versions import Version, Versions
from keras_mpseq.watch import Watch

_PATIENCE_S = 5.0
"""For workers to end in good order at the end; then they are killed."""
log: logging.Logger = logging.getLogger("keras_mpseq")


class Crew:
    """The workers for *sequence*.

    Args:
        sequence: What they build batches of.
        options: Of the pool.
        versions: Of the sequence.
        delivery: Has the slots.
        backend: Runs the processes.
    """

    def __init__(
        self, sequence: Any, options: Options, versions: Versions, delivery: Delivery, backend: Backend
    ) -> None:
        self.backend = backend
        self.watch: Watch = Watch(options, backend, delivery, sequence)
        self.restarts: int = 0
        self.recycled: int = 0
        self.built: list[int] = [0] * options.workers
        """Batches, by the number of the worker as the user sees it."""
        self._sequence = sequence
        self._seats = options.workers
        self._versions = versions
        self._delivery = delivery
        self._alive: set[int] = set()
        self._unfit: dict[int, MpseqError] = {}

    def seat(self, worker: int) -> int:
        """Return the number of *worker* as the user sees it."""
        return worker % self._seats

    # --- what they are told ---

    def spawn(self, worker: int) -> StartFailed | WorkerLost | None:
        """Start *worker* with every version in use; return what happened if there are no means for it."""
        try:
            with scarce("A worker process cannot be started"):
                self.backend.spawn(worker)
        except MpseqError as error:
            error.worker = self.seat(worker)
            # A template that dies while it starts is tried again, like a worker that does.
            died = isinstance(error, WorkerLostError) and not isinstance(error, WorkerTimeoutError)
            return WorkerLost(worker, error, None) if died else StartFailed(worker, error)
        self._alive.add(worker)
        self.watch.starts(worker)
        for version in self._versions.live[1:]:
            self.backend.send(worker, version.state, version.handles)
        self.backend.send(worker, Start())
        return None

    def publish(self) -> Version:
        """Return the version of the sequence as it is now; if that is new, every worker gets it."""
        before = self._versions.current
        version = self._versions.publish(self._sequence)
        if version is not before:
            for worker in self._alive:
                self.backend.send(worker, version.state, version.handles)
        return version

    def tell(self, *messages: Forget | Skip | Over) -> None:
        """Send *messages* to every worker."""
        for message in messages:
            for worker in self._alive:
                self.backend.send(worker, message)

    def send(self, worker: int, run: Run, task: Task) -> None:
        """Let *worker* build *task*."""
        assert run.version is not None
        supply = run.begun.supply
        if supply is not None:
            inputs.place(supply, run, task, self._delivery, self._sequence)
        self._delivery.slots[task.slot].progress = None
        room = self._delivery.room
        message = Build(run.number, run.begun.number, run.version.number, task.indices, task.slot, room)
        self.watch.sent(worker, run, task)
        self.backend.send(worker, inputs.with_inputs(message, run, task))

    def retire(self, worker: int) -> None:
        """Let *worker* end in good order; it gets no further message."""
        self._alive.discard(worker)
        self.watch.stops(worker)
        self.backend.send(worker, Stop())

    # --- what their ends mean ---

    def unfit(self, worker: int, data: bytes) -> None:
        """Note why *worker* is about to end."""
        self._unfit[worker] = error = load_error(data)
        error.node = self.backend.node(worker)

    def stopped(self, worker: int, data: bytes) -> None:
        """Log what went wrong when *worker* closed what it had open."""
        if data:
            error = load_error(data)
            error.worker, error.node = self.seat(worker), self.backend.node(worker)
            log.warning("Worker %d did not stop in good order: %s", self.seat(worker), error)

    def ended(self, end: Ended, state: WorkerState) -> Event:
        """Return what the end of a worker means, given the scheduler's *state* of it."""
        worker = end.worker
        loss, done = self.watch.ended(end)
        self._alive.discard(worker)
        self._delivery.forget(worker)
        unfit = self._unfit.pop(worker, None)
        if state is WorkerState.RETIRING:
            self.recycled += 1
            if end.status:
                self._log_loss(worker, loss)
            return Retired(worker)
        self.restarts += 1
        if unfit is not None and state is WorkerState.STARTING:
            return StartFailed(worker, unfit)
        if unfit is not None and done is None:
            done = 0  # It gave up before the first batch: not charged, that would go on for ever.
        return WorkerLost(worker, unfit or loss, done)

    def _log_loss(self, worker: int, loss: object) -> None:
        log.warning("%s", loss_error(loss, self.seat(worker), "while it stopped", 1, 0))

    def close(self, is_idle: Callable[[int], bool]) -> None:
        """End all of them.

        Args:
            is_idle: Tells who has nothing to do; for what the others build nobody waits, or their error has been told.
        """
        silent = {worker for worker in self._alive if worker not in self._unfit and is_idle(worker)}
        for happening in self.backend.close(_PATIENCE_S):
            match happening:
                case Said(worker, Stopped(data)):
                    silent.discard(worker)
                    self.stopped(worker, data)
                case Ended(worker) if worker in silent:
                    silent.discard(worker)
                    loss, _ = self.watch.ended(happening)
                    self._log_loss(worker, loss)
        for worker in sorted(silent):
            log.warning(
                "Worker %d was killed because it took longer than %g s while it stopped.",
                self.seat(worker),
                _PATIENCE_S,
            )

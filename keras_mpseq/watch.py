"""The clocks of the workers, and what is done when they strike; what each worker has been sent and not answered.

A worker that is slow is asked for its Python stack, which it writes without being stopped, and told of; one whose time
is over is interrupted, which makes it write its stack and die, and killed if it does not. Nobody waits here: the pool's
one wait ends at the next deadline.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from keras_mpseq import stacks
from keras_mpseq.backend import Backend, Ended
from keras_mpseq.deadlines import Deadlines, Due
from keras_mpseq.delivery import Delivery
from keras_mpseq.losses import Loss
from keras_mpseq.messages import Task
from keras_mpseq.options import Options
from keras_mpseq.run import Run
from keras_mpseq.streams import name_of


class Watch:
    """Looks after the workers of *backend*.

    Args:
        options: How long what may take.
        backend: Runs the workers.
        delivery: Has the slots, in which workers note their progress.
        sequence: What is built.
    """

    def __init__(self, options: Options, backend: Backend, delivery: Delivery, sequence: Any) -> None:
        self._seats = options.workers
        self._backend = backend
        self._slots = delivery.slots
        self._sequence = sequence
        self._deadlines = Deadlines(options.limits.timeout, options.limits.slow_warning_s)
        self._held: dict[int, deque[tuple[Run, Task]]] = {}
        """What each living worker was sent and has not answered."""
        self._states: dict[int, str] = {}
        """What the system said of those that were interrupted."""
        self._told: set[tuple[str, int]] = set()
        """What was told of as slow; see `_work`."""
        self._suspects: dict[int, Task] = {}
        """What workers are to build that were seen waiting for a message."""
        self.notices: deque[str] = deque()
        """To be logged."""
        self.forgotten: str = ""
        """What a worker was sent and does not know of: a bug of ours."""

    # --- what workers are at ---

    def starts(self, worker: int) -> None:
        """Note that *worker* is being started."""
        self._held[worker] = deque()
        self._deadlines.start(worker, time.monotonic())

    def started(self, worker: int) -> None:
        """Note that *worker* is ready."""
        self._deadlines.rest(worker)

    def sent(self, worker: int, run: Run, task: Task) -> None:
        """Note that *worker* was sent *task*."""
        held = self._held[worker]
        held.append((run, task))
        if len(held) == 1:
            self._deadlines.build(worker, time.monotonic())

    def answered(self, worker: int) -> None:
        """Note that *worker* has finished its oldest task."""
        held = self._held[worker]
        held.popleft()
        if held:
            self._deadlines.build(worker, time.monotonic())
        else:
            self._deadlines.rest(worker)

    def stops(self, worker: int) -> None:
        """Note that *worker* was told to end."""
        self._deadlines.stop(worker, time.monotonic())

    def ended(self, end: Ended) -> tuple[Loss, int | None]:
        """Note the end of a worker; return what is known of it, and how much of its oldest task was finished."""
        worker = end.worker
        held, overtime_s = self._held.pop(worker), self._deadlines.end(worker)
        self._suspects.pop(worker, None)
        slot = self._slots[held[0][1].slot] if held else None
        state = self._states.pop(worker, "")
        mark = slot.noted if slot else -1
        loss = Loss(end.status, stacks.shown(end.stack), overtime_s, mark, state, end.how, end.node)
        return loss, slot.progress if slot else None

    @property
    def idle(self) -> bool:
        """No worker builds, starts or ends: nothing will ever happen."""
        return self._deadlines.idle

    # --- deadlines ---

    def left(self) -> float | None:
        """Return the seconds until `look` is to be called; None means for ever."""
        return self._deadlines.left(time.monotonic())

    def look(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now < self._deadlines.next:
            return
        for worker in self._deadlines.reached(now):
            self._grant(worker)
        for worker, due in self._deadlines.due(now):
            match due:
                case Due.ASK:
                    if self._work(worker) not in self._told:
                        self._backend.ask(worker)
                case Due.READ:
                    if not self._grant(worker) and self._work(worker) not in self._told:
                        self._read(worker, self._backend.answer(worker))
                case Due.INTERRUPT:
                    self._states[worker] = self._backend.state(worker)
                    self._backend.interrupt(worker)
                case Due.KILL:
                    self._backend.kill(worker)

    def _grant(self, worker: int) -> bool:
        """Let each batch of a task have the time of one; tell whether another is being built than was thought."""
        since = self._deadlines.since(worker)
        held = self._held.get(worker)
        began = self._slots[held[0][1].slot].since if held else 0.0
        if since is None or began <= since:
            return False
        self._deadlines.build(worker, began)
        return True

    def _work(self, worker: int) -> tuple[str, int]:
        """Return what *worker* is at, and for which index or seat."""
        held = self._held[worker]
        if not held:
            return "starting", worker % self._seats
        _, task = held[0]
        done = self._slots[task.slot].progress or 0
        return "building", task.indices[min(done, len(task.indices) - 1)]

    def _read(self, worker: int, stack: str) -> None:
        """Take in where a slow worker stands."""
        held = self._held[worker]
        if held and stacks.is_idle(stack):
            self._suspect(worker, held[0][1])
            return
        work = what, index = self._work(worker)
        self._told.add(work)
        if held:
            what = f"building {name_of(self._sequence, index)} of epoch {held[0][0].begun.number}"
        self._say(worker, f"has been {what} for more than {self._deadlines.patience(worker):g} s", stack)

    def _say(self, worker: int, what: str, stack: str) -> None:
        place = stacks.place_in(stack)
        parts = [f"it is in {place}" if place else "", self._backend.state(worker)]
        told = "; ".join(filter(None, parts))
        node = self._backend.node(worker)
        self.notices.append(
            f"Worker {worker % self._seats}{f' on node {node}' if node else ''} {what}{': ' if told else ''}{told}."
        )

    def _suspect(self, worker: int, task: Task) -> None:
        """Note that *worker* waits for a message though it has a task, unless its answer was on its way."""
        if self._suspects.get(worker) is task:
            self.forgotten = f"worker {worker % self._seats} waits for a task, but it was sent one"
        else:
            self._suspects[worker] = task
            self._deadlines.ask_again(worker)

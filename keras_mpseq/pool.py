"""Several threads, one loop: who waits for a batch drives the engine; epochs come out as runs.

There is no thread of our own. Whoever waits for a batch drives the loop meanwhile, and hands it on when the batch is
there; other consumers of the same pool (`zip(ds, ds)`, tf.data's threads) wait on a condition. All state is touched
under that condition's lock, which is let go only while the driver waits in the backend.
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
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from keras_mpseq.engine import Engine
from keras_mpseq.epochs import Begun, Epochs
from keras_mpseq.errors import MpseqError, PoolClosedError
from keras_mpseq.messages import Recorded
from keras_mpseq.options import Options
from keras_mpseq.run import Answer, Run, Signal, Stats
from keras_mpseq.streams import Supply

log: logging.Logger = logging.getLogger("keras_mpseq")


class Pool:
    """Worker processes that build the batches of one sequence, for any number of epochs."""

    def __init__(self, sequence: Any, options: Options) -> None:
        self.sequence = sequence
        self.options = options
        self.epochs: Epochs = Epochs(sequence, options)
        self.delivered = self.bytes_delivered = self.skipped = 0
        self._pid = os.getpid()
        self._beginning = threading.RLock()
        """From `on_epoch_begin` until the state that it left is sent: it is no other epoch's."""
        self._turn = threading.Condition()
        self._driver: int | None = None
        """The thread that waits in the backend."""
        self._closed = self._close_late = False
        self._mine = threading.local()
        self._numbers = itertools.count()
        self._dropped: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._waited_s = 0.0
        self._engine = Engine(sequence, options)

    # --- epochs ---

    def iterate(self) -> Run:
        """See Source."""
        self._check_open()
        with self._whole():
            self._end_dropped()
        with self._beginning:
            return self.start(self.epochs.begin())

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Hold the turn. What is interrupted within (Ctrl-C) is in an unknown state, so that nothing may go on."""
        with self._turn:
            outer, self._mine.inside = self._is_inside(), True
            try:
                yield
            except MpseqError:
                self._closed = self._closed or self._engine.broken
                raise
            except BaseException:
                self._closed = True
                raise
            finally:
                self._mine.inside = outer
                if self._close_late and not outer:
                    self._close_late = False
                    self._engine.close()

    def _is_inside(self) -> bool:
        """Tell whether this thread is in the middle of bookkeeping, and what runs now is a signal handler."""
        return getattr(self._mine, "inside", False)

    def start(self, begun: Begun) -> Run:
        """See Source."""
        with self._whole():
            self._check_open()
            run = Run(next(self._numbers), begun)
            self._engine.start(run)
            self._tell_driver()
            return run

    def settle(self) -> None:
        """See Source."""
        with self._whole():
            self._end_dropped()
        with self._beginning:
            self.epochs.end_dropped()

    def refreshed(self, run: Run, taken: int, skipped: int) -> Run:
        """See Source."""
        begun = self.epochs.again(run.begun, taken, skipped)
        with self._whole():
            if begun.length == run.begun.length and self._engine.is_current(run):
                return run
        self.abandon(run)
        return self.start(begun)

    def abandon(self, run: Run) -> None:
        """See Source."""
        if os.getpid() != self._pid:  # A process that the user's code forked: the workers are not its own.
            return
        with self._whole():
            if not self._closed:
                self._engine.abandon(run)
                self._tell_driver()

    def drop(self, run: Run) -> None:
        """See Source."""
        self._dropped.put(run)

    def _end_dropped(self) -> None:
        while not self._dropped.empty():
            run = self._dropped.get()
            if self._engine.is_live(run):
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
        if wait and run.begun.supply is not None:
            self._supply(run, run.begun.supply)
        while True:
            self._warn()
            with self._whole():
                answer = self._answer(run, wait)
            if answer is not None:
                self._waited_s += time.perf_counter() - began
                return answer
            self._drive()

    def _supply(self, run: Run, supply: Supply) -> None:
        """Let the order of *run* grow, as long as too little is under way and the consumer would wait anyway."""
        workers = self.options.workers
        while supply.grow(run.delivered, self._engine.chunk):
            with self._whole():
                self._check_open()
                self._engine.grew(run)
                if not self._others_drive():
                    self._hear(self._engine.backend.wait(0.0))
                self._tell_driver()
                if supply.order.known - run.delivered > workers and self._engine.is_ready(run):
                    return

    def _answer(self, run: Run, wait: bool) -> Answer | None:
        """Return the next answer of *run*, or None when this thread is to drive first."""
        self._check_open()
        if wait and not self._others_drive():
            # Also while batches are ready: workers get new tasks, and a dead one its replacement, without delay.
            self._hear(self._engine.backend.wait(0.0))
        self._collect()
        self._engine.want(run)
        self._tell_driver()
        while not run.answers:
            if not wait:
                return Signal.NOT_READY
            if not self._others_drive():
                self._engine.check_moving(run)
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
            ready = self._engine.backend.wait(self._engine.left())
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
            self._hear(ready)
            self._collect()

    def _hear(self, ready: Any) -> None:
        """Take in what happened, given what waiting in the backend returned."""
        for happening in self._engine.backend.receive(ready):
            self._engine.hear(happening)
        self._engine.watch_time()

    def _warn(self) -> None:
        """Give the warnings that are due: outside of all bookkeeping, because a filter may make one an exception."""
        for notice in self._engine.notices():
            log.warning("%s", notice)
        if self._engine.warning:
            warning, self._engine.warning = self._engine.warning, ""
            warnings.warn(warning, UserWarning, stacklevel=3)

    def _collect(self) -> None:
        """Take in what finalizers left: ended leases, dropped iterators."""
        self._engine.collect()
        self._end_dropped()

    def _tell_driver(self) -> None:
        """Let who waits in the backend look at the deadlines again, which may have changed."""
        if self._others_drive():
            self._engine.backend.wake()

    # --- state and end ---

    def stats(self) -> Stats:
        """See Source."""
        with self._turn:
            stats = self._engine.stats(self.delivered, self.skipped, self._waited_s)
        return replace(stats, bytes_delivered=self.bytes_delivered)

    def records(self) -> list[tuple[int, Recorded]]:
        """See Source."""
        with self._turn:
            records, self._engine.records = self._engine.records, []
            return records

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
                    self._engine.backend.wake()
                    self._turn.wait()
                self._engine.close()
        while not self._dropped.empty():
            self.epochs.dropped.put(self._dropped.get().begun)
        self.epochs.end_dropped()

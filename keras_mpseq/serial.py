"""Batches built in this process, `workers=0`: the same batches, errors and hooks, without a pool."""

from __future__ import annotations

import functools
import itertools
import logging
import queue
import time
import warnings
from typing import Any

from keras_mpseq.build import Job, build, call_hook, placed
from keras_mpseq.codec import take_apart
from keras_mpseq.epochs import Begun, Epochs
from keras_mpseq.errors import MpseqError, PoolClosedError, is_interrupt, user_error
from keras_mpseq.local import close_resources, context
from keras_mpseq.messages import Recorded
from keras_mpseq.options import Options
from keras_mpseq.order import preserved_globals
from keras_mpseq.recording import Recorder
from keras_mpseq.run import Answer, Parts, Run, Signal, Stats
from keras_mpseq.stateless import Watcher
from keras_mpseq.streams import PAST, Streamed, in_its_words

log: logging.Logger = logging.getLogger("keras_mpseq")


class Serial:
    """Builds batches when they are asked for. This process is worker 0 for the hooks."""

    def __init__(self, sequence: Any, options: Options) -> None:
        self.sequence = sequence
        self.options = options
        self.epochs: Epochs = Epochs(sequence, options)
        self.delivered = self.bytes_delivered = self.skipped = 0
        self._numbers = itertools.count()
        self._dropped: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._started = self._closed = False
        self._warning = ""
        # Between two calls this process goes on with what is the user's.
        self._watcher = Watcher(strict=options.strict, alone=False)
        self._waited_s = 0.0
        self._recorder = Recorder(sequence) if options.record else None

    def iterate(self) -> Run:
        """See Source."""
        self._check_open()
        if not self._started:
            call_hook(self.sequence, "on_worker_start", 0)
            self._started = True
        self._end_dropped()
        return Run(next(self._numbers), self.epochs.begin())

    def _end_dropped(self) -> None:
        while not self._dropped.empty():
            run = self._dropped.get()
            self._over(run)
            self.epochs.dropped.put(run.begun)

    def start(self, begun: Begun) -> Run:
        """See Source."""
        return Run(next(self._numbers), begun)

    def settle(self) -> None:
        """See Source."""
        self._end_dropped()
        self.epochs.end_dropped()

    def refreshed(self, run: Run, taken: int, skipped: int) -> Run:
        """See Source. What changed since cannot be told here, so a batch that was peeked at is built again."""
        return Run(next(self._numbers), self.epochs.again(run.begun, taken, skipped))

    def take(self, run: Run, wait: bool = True) -> Answer:
        """See Source; the next batch is never ready before it is waited for."""
        if not wait:
            return Signal.NOT_READY
        self._check_open()
        self._warn()
        order, supply = run.begun.order, run.begun.supply
        if supply is not None:
            while run.position >= supply.order.known and supply.grow(run.position, 1):
                continue
        if order.size is not None and run.position >= order.size:
            self._over(run)
            return Signal.END
        run.index = order.index(run.position)
        given = None if supply is None else supply.element(run.position)
        context.element = given and given.batch
        order.delivered(run.position)
        run.position += 1
        job = Job(self.options.seed, run.begun.number, run.index)
        began = time.perf_counter()
        context.skipped.clear()
        try:
            parts = self._parts(job)
            run.skipped += context.skipped
            return parts or Signal.PAST
        except MpseqError as error:
            return self._failed(error, job)
        except BaseException as error:  # What the user's classes do while they are taken apart is the user's code too.
            if is_interrupt(error):
                raise
            return self._failed(user_error("Taking the batch apart", error), job)
        finally:
            context.element = None
            self._waited_s += time.perf_counter() - began

    def _failed(self, error: MpseqError, job: Job) -> MpseqError:
        placed(error, job).attempt = 1
        return in_its_words(error, self.sequence)

    def _parts(self, job: Job) -> Parts | None:
        with preserved_globals():
            call = functools.partial(build, self.sequence, job)
            timed = self._recorder.timed(call) if self._recorder else call
            batch, warning = self._watcher.call(self.sequence, job.epoch, timed)
            self._warning = self._warning or warning
        if batch is PAST:
            return None
        began = time.perf_counter()
        structure, parts = take_apart(batch, self.options.doubles)
        given = Parts(
            structure, [part.astype(dtype, copy=False) for part, dtype in zip(parts, structure.dtypes, strict=True)]
        )
        if self._recorder:
            self._recorder.encoded(job.index, time.perf_counter() - began, given.nbytes)
        return given

    def _warn(self) -> None:
        """Give the warning that is due: not where a filter that makes it an exception would cost the batch."""
        if self._warning:
            warning, self._warning = self._warning, ""
            warnings.warn(warning, UserWarning, stacklevel=3)

    def abandon(self, run: Run) -> None:
        """See Source: nothing is under way."""
        self._over(run)

    def _over(self, run: Run) -> None:
        if isinstance(self.sequence, Streamed):
            try:
                self.sequence.over(run.begun.number)
            except Exception as error:  # The user's `finally` blocks.
                log.warning("%s", user_error("Closing a generator", error))

    def drop(self, run: Run) -> None:
        """See Source."""
        self._dropped.put(run)

    def stats(self) -> Stats:
        """See Source."""
        return Stats(
            workers=0,
            batches=self.delivered,
            skipped=self.skipped,
            restarts=0,
            recycled=0,
            waited_s=self._waited_s,
            bytes_pickled=0,
            bytes_shared=0,
            slots=0,
            bytes_slots=0,
            bytes_delivered=self.bytes_delivered,
        )

    def records(self) -> list[tuple[int, Recorded]]:
        """See Source."""
        recorded = self._recorder.told(at_once=True) if self._recorder else None
        return [(0, recorded)] if recorded else []

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("The loader is closed", remedy="Iterate inside its `with` block, or make a new one.")

    def close(self) -> None:
        """See Source."""
        if not self._closed:
            self._closed = True
            if self._recorder:
                self._recorder.close()
            self._end_dropped()
            try:
                self.epochs.end_dropped()
            finally:
                self._stop()

    def _stop(self) -> None:
        try:
            if self._started:
                call_hook(self.sequence, "on_worker_stop")
        except MpseqError as error:  # As for a worker: the resources must be closed as well.
            log.warning("The sequence did not stop in good order: %s", error)
        try:
            close_resources(self.sequence)
        except BaseException as error:  # The user's code, as above.
            if is_interrupt(error):
                raise
            told = user_error("Closing a per_worker resource", error)
            log.warning("The sequence did not stop in good order: %s", told)

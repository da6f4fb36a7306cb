"""The iterator that a consumer holds: one pass over an epoch, what it has taken of it, and padding at its end."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from keras_mpseq.epochs import Begun
from keras_mpseq.errors import MpseqError, SequenceLengthError, SpecMismatchError
from keras_mpseq.local import syncs_of
from keras_mpseq.padding import padding
from keras_mpseq.run import Answer, Feed, Parts, Run, Signal
from keras_mpseq.streams import in_its_words

_SKIPS_NAMED = 10
_SKIPS_IN_A_ROW = 100
"""So many failures in a row of an endless sequence are no longer single bad batches."""
_KEPT = 1
"""Keras takes one batch to build a model by."""
log: logging.Logger = logging.getLogger("keras_mpseq")


class Progress(NamedTuple):
    """How far the consumer of an iterator is."""

    taken: int
    """Positions of the run that are over, up to the last batch that was taken."""
    given: int
    """Batches of the epoch, padding not included."""
    pads: int = 0
    """Padding."""


class Peeked(NamedTuple):
    """A batch that was looked at and not taken, and the progress that taking it makes."""

    parts: Parts
    progress: Progress


class Iteration(Iterator[Parts]):
    """The consumer's iterator over one epoch. Dropped or closed half-way it gives everything back."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._source = feed.source
        self._begin(feed.source.iterate())
        self.origin: Begun = self._run.begun
        """The epoch as it was when the iterator was made."""
        self.peeked: deque[Peeked] = deque()
        """Batches that were looked at and not taken."""
        self.before_batch: Callable[[], None] | None = None
        """Called before a batch is taken."""
        self.stale: bool = False
        """The sequence may have changed: to be refreshed before the next batch."""
        self._error: MpseqError | None = None
        self._skips: list[tuple[int, MpseqError]] = []
        self._row = 0
        self._over = 0
        """Positions of the run that are over; those that were peeked at included."""
        self._progress = Progress(0, self.origin.start - self.origin.skipped, self.origin.pads)
        self._first = self._progress
        self.kept: list[Peeked] | None = None
        """The first batches that were taken one by one, where they are to be kept."""
        self._last: Parts | None = None
        """The batch that padding is made of, where there is to be some."""
        self._exhausted = False
        """The run has nothing more; there may be padding."""
        self._syncs = syncs_of(feed.source.sequence)

    @property
    def length(self) -> int | None:
        """The sequence's length in this epoch."""
        return self._run.begun.length

    def _begin(self, run: Run) -> None:
        self._run = run
        self._dropped = weakref.finalize(self, self._source.drop, run)
        self._dropped.atexit = False

    def __next__(self) -> Parts:
        parts = self._next(wait=True)
        assert parts is not None
        if self.kept is not None:
            self.kept = [*self.kept, Peeked(parts, self._progress)] if len(self.kept) < _KEPT else None
        return parts

    def put_back(self) -> bool:
        """Let what was taken be taken again; tell whether that can be."""
        if self.kept is None:
            return False
        self.peeked.extendleft(reversed(self.kept))
        self.kept, self._progress = None, self._first
        return True

    def _next(self, wait: bool) -> Parts | None:
        """Return the next batch, or None when it is not ready and is not to be waited for."""
        if wait and self.before_batch:
            self.before_batch()
        if self.stale or self._syncs != syncs_of(self._source.sequence):
            self.refresh()
        if self.peeked:
            parts, self._progress = self.peeked.popleft()
            return parts
        if self._error:
            error, self._error = self._error, None
            raise error
        while self._dropped.alive:
            answer = Signal.END if self._exhausted else self._take(wait)
            if answer is Signal.NOT_READY:
                return None
            if answer is Signal.END:
                self._exhausted = True
                if self._wants_padding():
                    if self._last is not None:
                        return self._padding(self._last)
                    self._look_back()
                    continue
                self._end()
                break
            if self._run.begun.backwards:
                self._find(answer)
                continue
            self._over += 1
            if isinstance(answer, Parts):
                return self._taking(answer)
            elif isinstance(answer, MpseqError):
                self._failed(answer)
        raise StopIteration

    def _taking(self, parts: Parts) -> Parts:
        if self._run.begun.steps is not None:
            self._last = parts
        self._row = 0
        self._source.delivered += 1
        self._source.bytes_delivered += parts.nbytes
        self._progress = Progress(self._over, self._progress.given + 1)
        return parts

    # --- padding ---

    def _wants_padding(self) -> bool:
        steps = self._run.begun.steps
        return steps is not None and self._progress.given + self._progress.pads < steps

    def _padding(self, last: Parts) -> Parts:
        self._progress = Progress(self._over, self._progress.given, self._progress.pads + 1)
        return Parts(last.structure, padding(*last))

    def _look_back(self) -> None:
        """Have the last batch built anew that was delivered before the epoch was resumed."""
        begun = self._run.begun
        if begun.backwards or not begun.start:
            raise SequenceLengthError(
                f"Share {self._source.options.shard} has no batch that padding could be made of",
                remedy='See the log for what was skipped, or pass uneven="drop" or "wrap".',
            )
        self._dropped.detach()
        self._begin(self._source.start(self._source.epochs.backwards(begun)))
        self._exhausted = False

    def _find(self, answer: Answer) -> None:
        if isinstance(answer, Parts):
            self._last, self._exhausted = answer, True
            self._source.abandon(self._run)
        elif isinstance(answer, MpseqError) and (self._source.options.on_error != "skip" or answer.index is None):
            self._failed(answer)

    # --- the run ---

    def _take(self, wait: bool) -> Answer:
        supply = self._run.begun.supply
        if supply is None:
            return self._checked(self._source.take(self._run, wait))
        while (arranged := supply.next()) is None:
            answer = self._checked(self._source.take(self._run, wait))
            if answer is Signal.END and supply.error is not None:
                return supply.error
            if answer is Signal.NOT_READY or (isinstance(answer, MpseqError) and answer.index is None):
                return answer
            supply.put(self._run.index, answer)
        found: Answer
        self._run.index, found = arranged
        return found

    def _failed(self, error: MpseqError) -> None:
        # Without an index it is the end of the run, such as a worker that cannot be started.
        if self._source.options.on_error == "skip" and error.index is not None and not self._hopeless():
            self._skip(error)
        else:
            self._dropped.detach()
            self._source.abandon(self._run)
            raise error

    def next_ready(self, most: int, alike: Callable[[Parts], object]) -> list[Parts]:
        """Return the next batch, and those after it that are ready and *alike*, *most* in all; [] at the end."""
        group: list[Parts] = []
        try:
            while len(group) < most:
                before = self._progress
                if (parts := self._next(wait=not group)) is None:
                    break
                if group and alike(parts) != alike(group[0]):
                    self.peeked.appendleft(Peeked(parts, self._progress))
                    self._progress = before
                    break
                group.append(parts)
        except StopIteration:
            return group
        except MpseqError as error:
            if not group:
                raise
            self._error = error  # After the batches that came before it.
        return group

    def _checked(self, answer: Answer) -> Answer:
        if isinstance(answer, Parts):
            try:
                return self._feed.checked(answer)
            except SpecMismatchError as error:
                error.index, error.epoch = self._run.index, self._run.begun.number
                return in_its_words(error, self._source.sequence)
        return answer

    def peek(self, count: int) -> list[Parts]:
        """Return the next batches, up to *count*, without taking them."""
        before = self._progress
        found = [Peeked(parts, self._progress) for parts in itertools.islice(self, count)]
        self.peeked.extend(found)
        self._progress = before
        return [parts for parts, _ in found]

    def refresh(self) -> None:
        """If the sequence has changed since the iterator was made, have what is left of the epoch built anew."""
        self.stale, self._syncs = False, syncs_of(self._source.sequence)
        taken = self._progress.taken
        if not self._dropped.alive or self._error or (taken and not self._run.begun.order.ordered):
            return  # Out of order there is no telling what is left.
        if self._run.begun.backwards or self._progress.pads:
            return  # Nothing is left but padding.
        if self._run.begun.supply is not None:
            return  # It has no state of the user's that could have changed.
        skipped = self._run.begun.start + taken - self._progress.given
        run = self._source.refreshed(self._run, taken, skipped)
        if run is not self._run:
            self._dropped.detach()
            self.peeked.clear()
            del self._skips[skipped - self.origin.skipped :]  # They are tried again.
            self._over, self._exhausted = 0, False
            self._progress = self._progress._replace(taken=0)
            run.skipped = self._run.skipped
            self._begin(run)

    @property
    def left(self) -> int | None:
        """How many batches of the epoch are still to be taken; None: endless."""
        if not self._dropped.alive:
            return len(self.peeked)
        order, steps = self._run.begun.order, self._run.begun.steps
        if steps is not None:
            return steps - self._progress.given - self._progress.pads
        return None if order.size is None else max(order.size - self._over + len(self.peeked), 0)

    @property
    def ended(self) -> bool:
        """All of it was taken, or it was closed."""
        return not self._dropped.alive

    @property
    def position(self) -> int:
        """Positions of the epoch that are over, and padding, up to the last batch that the consumer took."""
        return self._run.begun.start + self._progress.taken + self._progress.pads

    @property
    def skipped(self) -> int:
        """How many of these positions were skipped."""
        return self._run.begun.start + self._progress.taken - self._progress.given

    @property
    def epoch(self) -> int:
        """Its number."""
        return self._run.begun.number

    def _end(self) -> None:
        self._dropped.detach()
        self._tell_skipped()
        self._source.epochs.end(self._run.begun)

    def _tell_skipped(self) -> None:
        if self._skips:
            one, several = ("element", "elements") if self._skips[0][1].where else ("batch", "batches")
            named = [(error.where or str(index), error.message) for index, error in self._skips]
            self._tell(named, one, several)
        self._source.skipped += len(self._run.skipped)
        if self._run.skipped:
            self._tell(self._run.skipped, "sample", "samples")

    def _tell(self, skipped: list[tuple[str, str]], one: str, several: str) -> None:
        named = "; ".join(f"{name} ({why})" for name, why in skipped[:_SKIPS_NAMED])
        more = len(skipped) - _SKIPS_NAMED
        log.warning(
            "Epoch %d skipped %d %s that failed: %s%s.",
            self._run.begun.number,
            len(skipped),
            one if len(skipped) == 1 else several,
            named,
            f"; and {more} more" if more > 0 else "",
        )

    def _skip(self, error: MpseqError) -> None:
        self._row += 1
        self._source.skipped += 1
        self._skips.append((self._run.index, error))

    def _hopeless(self) -> bool:
        return self._run.begun.order.size is None and self._row >= _SKIPS_IN_A_ROW

    def close(self) -> None:
        """Give the rest of the epoch up, and end it."""
        self.peeked.clear()
        if self._dropped.detach():
            self._source.abandon(self._run)
            self._tell_skipped()
            self._source.epochs.end(self._run.begun)

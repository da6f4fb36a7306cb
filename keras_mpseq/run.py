"""One pass of a consumer over an epoch: its record in the pool, and the iterator that the consumer holds."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from keras_mpseq.codec import Array, Structure, put_together
from keras_mpseq.epochs import Begun, Epochs
from keras_mpseq.errors import MpseqError, SpecMismatchError
from keras_mpseq.local import syncs_of
from keras_mpseq.options import Options
from keras_mpseq.spec import ElementSpec
from keras_mpseq.streams import in_its_words

if TYPE_CHECKING:
    from keras_mpseq.messages import Input
    from keras_mpseq.versions import Version

_SKIPS_NAMED = 10
_SKIPS_IN_A_ROW = 100
"""So many failures in a row of an endless sequence are no longer single bad batches."""
log = logging.getLogger("keras_mpseq")


class Parts(NamedTuple):
    """A batch, taken apart."""

    structure: Structure
    arrays: list[Array]

    @property
    def batch(self) -> Any:
        """The batch as the user gave it, in NumPy."""
        return put_together(self.structure, self.arrays)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(array.nbytes for array in self.arrays)


class Signal(Enum):
    """What stands in the place of a batch when there is none."""

    END = "the run is over"
    NOT_READY = "the next batch is still being built"
    PAST = "there is no such element, nor any after it in its lane"


Answer: TypeAlias = Parts | MpseqError | Signal


@dataclass(slots=True, eq=False)
class Run:
    """A pass over an epoch, from its first task to its end."""

    number: int
    begun: Begun
    version: Version | None = None
    answers: deque[Answer] = field(default_factory=deque)
    """What the scheduler delivered and the consumer has not taken: at most one."""
    kept: dict[int, Parts] = field(default_factory=dict)
    """Batches by position that were copied out because their slot was needed."""
    wanted: bool = False
    """The scheduler has been asked for the next batch."""
    index: int = -1
    """Of the last batch that was delivered."""
    position: int = 0
    """Of the next batch, where batches are built in this process."""
    delivered: int = 0
    """Positions that are over."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Samples that batches were built without: the name of each, and why."""
    inputs: dict[int, Input | bytes] = field(default_factory=dict)
    """What batches are made of and where it lies, by position, from the first time that they are sent."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What a loader has done so far."""

    workers: int
    batches: int
    """Delivered to the consumer, over all epochs."""
    skipped: int
    """Left out by `on_error="skip"`."""
    restarts: int
    """Workers that were lost and replaced."""
    recycled: int
    """Workers that were replaced after `max_tasks_per_worker` batches."""
    waited_s: float
    """Seconds that the consumer waited for batches."""
    bytes_pickled: int
    """Of the sequence, as it was sent to workers last, without what is shared."""
    bytes_shared: int
    """Of its arrays of 1 MiB and more, in memory that all workers map."""
    slots: int
    bytes_slots: int
    """Shared memory that batches lie in."""


class Source(Protocol):
    """Where batches come from: worker processes (`Pool`) or this one (`Serial`)."""

    sequence: Any
    options: Options
    epochs: Epochs
    delivered: int
    """Batches that consumers took."""
    skipped: int

    def iterate(self) -> Run:
        """Begin an epoch."""

    def refreshed(self, run: Run, taken: int) -> Run:
        """Return *run*, or one for what is left after *taken* batches when the sequence has changed meanwhile."""

    def take(self, run: Run, wait: bool = True) -> Answer:
        """Return the next batch of *run*, an error in its place, or END; without *wait* also NOT_READY."""

    def abandon(self, run: Run) -> None:
        """Give *run* up."""

    def drop(self, run: Run) -> None:
        """Say that the iterator of *run* is garbage. A finalizer's one thing to do."""

    def stats(self) -> Stats:
        """Return what was done so far."""

    def close(self) -> None:
        """End the workers and free everything."""


class Feed:
    """A source with its element spec: what `Loader` and `to_dataset` hold. Garbage, it closes the source.

    Args:
        source: Where batches come from.
        fixed: From which dimension on a spec that is taken from the first batch fixes sizes; None for none.
    """

    def __init__(self, source: Source, fixed: int | None) -> None:
        self.source = source
        self.fixed = fixed
        self.spec: ElementSpec | None = source.options.element_spec
        self._garbage = weakref.finalize(self, source.close)

    def close(self) -> None:
        """Close the source. When an interrupt cuts it short, closing again goes on."""
        self.source.close()
        self._garbage.detach()

    def check(self, parts: Parts) -> None:
        """Check a batch against the spec, which the first one makes."""
        shapes = [array.shape for array in parts.arrays]
        if self.spec is None:
            self.spec = ElementSpec.of_batch(parts.structure, shapes, self.fixed)
        self.spec.check(parts.structure, shapes)


class Iteration(Iterator[Parts]):
    """The consumer's iterator over one epoch. Dropped or closed half-way it gives everything back."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._source = feed.source
        self._begin(feed.source.iterate())
        self.peeked: deque[Parts] = deque()
        """Batches that were looked at and not taken."""
        self.before_batch: Callable[[], None] | None = None
        """Called before a batch is taken."""
        self.stale = False
        """The sequence may have changed: to be refreshed before the next batch."""
        self._error: MpseqError | None = None
        self._skips: list[tuple[int, MpseqError]] = []
        self._row = 0
        self._taken = 0
        """Positions of the run that are over; those that were peeked at included."""
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
        return parts

    def _next(self, wait: bool) -> Parts | None:
        """Return the next batch, or None when it is not ready and is not to be waited for."""
        if wait and self.before_batch:
            self.before_batch()
        if self.stale or self._syncs != syncs_of(self._source.sequence):
            self.refresh()
        if self.peeked:
            return self.peeked.popleft()
        if self._error:
            error, self._error = self._error, None
            raise error
        while self._dropped.alive:
            answer = self._take(wait)
            if answer is Signal.NOT_READY:
                return None
            self._taken += 1
            if answer is Signal.END:
                self._end()
            elif isinstance(answer, Parts):
                self._row = 0
                self._source.delivered += 1
                return answer
            elif isinstance(answer, MpseqError):
                self._failed(answer)
        raise StopIteration

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
            while len(group) < most and (parts := self._next(wait=not group)):
                if group and alike(parts) != alike(group[0]):
                    self.peeked.append(parts)
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
                self._feed.check(answer)
            except SpecMismatchError as error:
                error.index, error.epoch = self._run.index, self._run.begun.number
                return in_its_words(error, self._source.sequence)
        return answer

    def peek(self, count: int) -> list[Parts]:
        """Return the next batches, up to *count*, without taking them."""
        found = list(itertools.islice(self, count))
        self.peeked.extend(found)
        return found

    def refresh(self) -> None:
        """If the sequence has changed since the iterator was made, have what is left of the epoch built anew."""
        self.stale, self._syncs = False, syncs_of(self._source.sequence)
        taken = self._taken - len(self.peeked)
        if not self._dropped.alive or self._error or (taken and not self._run.begun.order.ordered):
            return  # Out of order there is no telling what is left.
        if self._run.begun.supply is not None:
            return  # It has no state of the user's that could have changed.
        run = self._source.refreshed(self._run, taken)
        if run is not self._run:
            self._dropped.detach()
            self.peeked.clear()
            self._taken = 0
            run.skipped = self._run.skipped
            self._begin(run)

    @property
    def left(self) -> int | None:
        """How many batches of the epoch are still to be taken; None: endless."""
        size = self._run.begun.order.size if self._dropped.alive else 0
        return None if size is None else max(size - self._taken + len(self.peeked), 0)

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

"""The epochs of one pipeline: their numbers, hooks, length and order. Runs in the training process only.

`on_epoch_begin` and `on_epoch_end` run exactly once for every epoch: the first before any batch of the epoch is
built, the second after its last batch was taken or its iterator was closed; for an iterator that was merely dropped,
before the next epoch begins or when the pipeline is closed. An epoch that ended with an error has no end.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, NamedTuple

from keras_mpseq.build import call_hook
from keras_mpseq.errors import SequenceLengthError, UserCodeError
from keras_mpseq.local import set_epoch
from keras_mpseq.options import Options, length_of, steps_of
from keras_mpseq.order import Order, epoch_order
from keras_mpseq.streams import Streamed, Supply


class Begun(NamedTuple):
    """An epoch that began."""

    number: int
    length: int | None
    """Of the sequence, before sharding."""
    order: Order
    supply: Supply | None = None
    """What makes the order grow."""
    steps: int | None = None
    """Batches that the consumer is to get, padding included; None where there is no padding."""
    start: int = 0
    """Positions of the epoch that were over before the order begins."""
    skipped: int = 0
    """Of these, how many were skipped."""
    pads: int = 0
    """Padding that was delivered before."""
    backwards: bool = False
    """The order is that of what was over before, from its end on, to find the batch that padding is made of."""


class Start(NamedTuple):
    """Where an epoch is to begin that is resumed."""

    position: int = 0
    skipped: int = 0
    begun: bool = False
    """It began already."""
    hooked: bool = False
    """Its `on_epoch_begin` has had its effect already, which the sequence was given back."""


class Epochs:
    """Begins and ends epochs of *sequence*. Hooks of several threads run one after the other."""

    def __init__(self, sequence: Any, options: Options) -> None:
        self._sequence = sequence
        self._options = options
        self._next = options.first_epoch
        self._start = Start()
        """Where the next epoch begins."""
        self._hooks = threading.RLock()
        self.dropped: queue.SimpleQueue[Begun] = queue.SimpleQueue()
        """Epochs whose iterator was garbage; put there by finalizers."""

    @property
    def coming(self) -> int:
        """Number of the epoch that begins next."""
        return self._next

    @property
    def start(self) -> Start:
        """Where the epoch that begins next begins."""
        return self._start

    def begin_at(self, epoch: int, start: Start) -> None:
        """Let the next epoch be *epoch*, from *start* on."""
        self._next, self._start = epoch, start

    def begin(self) -> Begun:
        """Begin the next epoch."""
        with self._hooks:
            self.end_dropped()
            number, self._next = self._next, self._next + 1
            start, self._start = self._start, Start()
            set_epoch(self._sequence, number)
            if not start.hooked:
                self._call("on_epoch_begin", number)
            return self._begun(number, start.position, start.skipped)

    def again(self, begun: Begun, taken: int, skipped: int) -> Begun:
        """Return what is left of *begun* after *taken* positions, for the sequence as it is now.

        Args:
            begun: The epoch.
            taken: Positions of its order that are over.
            skipped: How many positions of the epoch were skipped so far.

        Raises:
            SequenceLengthError: The sequence has another length, and batches were taken already.
        """
        with self._hooks:
            if not taken:
                return self._begun(begun.number, begun.start, begun.skipped)
            if (length := length_of(self._sequence)) != begun.length:
                raise self._changed(begun, length)
            return begun._replace(order=begun.order.after(taken), start=begun.start + taken, skipped=skipped)

    def backwards(self, begun: Begun) -> Begun:
        """Return what was over before *begun*, which was resumed, from its end to its beginning."""
        whole = self._begun(begun.number)
        return begun._replace(order=whole.order.backwards(begun.start), backwards=True)

    def _changed(self, begun: Begun, length: int | None) -> SequenceLengthError:
        return SequenceLengthError(
            f"The length of {type(self._sequence).__name__} changed from {begun.length} to {length} "
            f"during epoch {begun.number}",
            remedy="Change it in on_epoch_begin or on_epoch_end, or between epochs.",
        )

    def _begun(self, number: int, start: int = 0, skipped: int = 0) -> Begun:
        if isinstance(self._sequence, Streamed):
            supply = self._sequence.supply(self._options)
            return Begun(number, None, supply.order, supply)
        length, o = length_of(self._sequence), self._options
        order = epoch_order(
            length=length,
            seed=o.seed,
            epoch=number,
            shuffle=o.shuffle,
            shard=o.shard,
            partition=o.partition,
            workers=o.workers,
            ordered=o.ordered,
            uneven=o.uneven,
        )
        # The length may be another one than before the hook.
        steps = None if length is None else steps_of(self._sequence, length, o)
        begun = Begun(number, length, order, None, steps if o.uneven == "pad" else None)
        return _resumed(begun, start, skipped) if start else begun

    def end(self, begun: Begun) -> None:
        """End an epoch.

        Raises:
            SequenceLengthError: The sequence has another length than when the epoch began.
        """
        if not self._options.hooks:  # Whoever runs them has done so by now, and may have changed the length.
            return
        with self._hooks:
            # With a later epoch under way the length is that one's.
            if begun.number == self._next - 1 and (length := length_of(self._sequence)) != begun.length:
                raise self._changed(begun, length)
            # Of two epochs at a time the other may have begun since.
            set_epoch(self._sequence, begun.number)
            try:
                self._call("on_epoch_end", begun.number)
            finally:
                set_epoch(self._sequence, self._next - 1)

    def _call(self, hook: str, epoch: int) -> None:
        if not self._options.hooks:
            return
        try:
            call_hook(self._sequence, hook)
        except UserCodeError as error:
            error.epoch = epoch
            raise

    def end_dropped(self) -> None:
        """End the epochs whose iterators were dropped."""
        while not self.dropped.empty():
            self.end(self.dropped.get())


def _resumed(begun: Begun, position: int, skipped: int) -> Begun:
    """Return what is left of a whole epoch from *position* on, which counts padding too."""
    size = begun.order.size
    over = position if size is None else min(position, size)
    pads = position - over
    return begun._replace(order=begun.order.after(over), start=over, skipped=skipped, pads=pads)

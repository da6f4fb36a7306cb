"""Generators: a generator function over partitions, run in workers. What the workers need of `generator_dataset`.

Partition p belongs to lane p modulo the number of lanes. A lane runs its partitions one after the other, in one worker.
An element is known by its lane and its number in the lane. So a worker that takes the place of a lost one comes to
where that one was by running the lane from its start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_mpseq.errors import MpseqError, cut
from keras_mpseq.growing import Lanes
from keras_mpseq.local import context, local_of
from keras_mpseq.order import seed_globals
from keras_mpseq.run import Signal
from keras_mpseq.streams import PAST, Streamed

if TYPE_CHECKING:
    from keras_mpseq.options import Options


class Generators(Streamed):
    """Gives the elements of `function(partition)`, by lane and number.

    Args:
        function: Returns a generator, or another iterable, for a partition.
        partitions: All of them.
        lanes: How many run at a time.
    """

    called = "fn"

    def __init__(self, function: Callable[[Any], Any], partitions: Sequence[Any], lanes: int) -> None:
        self.function = function
        self.partitions = partitions
        self.lanes = lanes

    def __getitem__(self, index: int) -> Any:
        """Return the element, or PAST."""
        step, lane = divmod(index, self.lanes)
        opened = self._opened()
        key = context.epoch or 0, lane
        run = opened.get(key)
        if run is None or run.step > step:
            if run is not None:
                run.close()
            run = opened[key] = Lane(self, lane)
        if run.step < step:
            run.forward(step)
            seed_globals(context.seed or 0, context.epoch or 0, index)
        return run.next()

    def _opened(self) -> dict[tuple[int, int], Lane]:
        """Return the lanes that this process runs, by epoch and number."""
        local = local_of(self)
        if "lanes" not in local.resources:
            opened: dict[tuple[int, int], Lane] = {}
            local.resources["lanes"] = opened
            local.closers.append(lambda: _close(opened, list(opened)))
        lanes: dict[tuple[int, int], Lane] = local.resources["lanes"]
        return lanes

    def over(self, epoch: int) -> None:
        """See Streamed."""
        opened = self._opened()
        _close(opened, [key for key in opened if key[0] == epoch])

    def supply(self, options: Options) -> LaneSupply:
        """See Streamed."""
        return LaneSupply(self.lanes, options)

    def name_of(self, index: int, mark: int) -> str:
        """See Streamed."""
        if mark >= 0:
            partition, number = mark >> 32, mark & 0xFFFF_FFFF
            return f"element {number} of partition {cut(repr(self.partitions[partition]))}"
        step, lane = divmod(index, self.lanes)
        return f"element {step} of the partitions {lane}, {lane + self.lanes}, ..."


def _close(opened: dict[tuple[int, int], Lane], keys: list[tuple[int, int]]) -> None:
    errors = []
    for key in keys:
        try:
            opened.pop(key).close()
        except Exception as error:  # The user's `finally`: the other generators must be closed as well.
            errors.append(error)
    if errors:
        raise errors[0]


class Lane:
    """Some partitions, one after the other."""

    def __init__(self, sequence: Generators, lane: int) -> None:
        self._sequence = sequence
        self._lane = lane
        self._left = deque(range(lane, len(sequence.partitions), sequence.lanes))
        self._iterator: Iterator[Any] | None = None
        self._number = 0
        self.step: int = 0
        """Number of the next element."""

    def next(self) -> Any:
        """Return the next element, or PAST. An exception of the user's ends its partition and counts as an element."""
        while self._left:
            partition = self._left[0]
            context.mark = partition << 32 | self._number
            if context.allocator is not None:
                context.allocator.note(context.mark)
            try:
                if self._iterator is None:
                    self._iterator = self._begun(self._sequence.partitions[partition])
                element = next(self._iterator)
            except StopIteration:
                self._end()
                continue
            except BaseException:
                self._end()
                self.step += 1
                raise
            self._number += 1
            self.step += 1
            return element
        return PAST

    def _begun(self, partition: Any) -> Iterator[Any]:
        found = self._sequence.function(partition)
        if not hasattr(type(found), "__iter__") or isinstance(found, (str, bytes, dict)):
            raise TypeError(
                f"fn must return a generator (a function with yield) or another iterable of elements, "
                f"got {type(found).__name__} for partition {cut(repr(partition))}."
            )
        return iter(found)

    def _end(self) -> None:
        self._left.popleft()
        self._iterator = None
        self._number = 0

    def forward(self, step: int) -> None:
        """Run up to element *step*, with the seeds that the elements before it had."""
        while self.step < step and self._left:
            index = self.step * self._sequence.lanes + self._lane
            seed_globals(context.seed or 0, context.epoch or 0, index)
            try:
                self.next()
            except Exception:  # It was told when it happened first.
                continue

    def close(self) -> None:
        """Close the generator that runs, so that its `finally` blocks do."""
        iterator, self._iterator = self._iterator, None
        self._left.clear()
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


class LaneSupply:
    """Lets every lane go on by blocks of elements, and arranges what comes back: one element of each lane in turn.

    The blocks depend on how long elements take; what the consumer gets does not. See Supply.
    """

    def __init__(self, lanes: int, options: Options) -> None:
        self.order: Lanes = Lanes(lanes, options.workers, options.ordered)
        self.error: MpseqError | None = None
        self._live = list(range(lanes))
        self._queues: list[deque[tuple[int, Any]]] = [deque() for _ in range(lanes)]
        self._turns = deque(range(lanes if options.ordered else 1))
        """Queues in the order of their turns, without those of lanes that are over; unordered there is but one."""
        self._ended: Any = None
        self._round = 0

    def grow(self, delivered: int, chunk: int) -> bool:
        """See Supply: always one round of blocks more than the one that is being delivered."""
        if self.order.size is not None or self.order.known - delivered > self._round:
            return False
        if not self._live:
            self.order.end()
        for lane in self._live:
            self.order.grow_lane(lane, chunk)
        self._round = len(self._live) * chunk
        return True

    def element(self, position: int) -> None:
        """See Supply: elements are made of nothing that the pool has."""

    def put(self, index: int, answer: Any) -> None:
        """See Supply."""
        lane, ordered = index % self.order.lanes, self.order.ordered
        if answer is Signal.END:
            self._ended = answer
        elif answer is not Signal.PAST:
            self._queues[lane if ordered else 0].append((index, answer))
        elif lane in self._live:
            self._live.remove(lane)
            if ordered:
                self._queues[lane].append((index, answer))

    def next(self) -> tuple[int, Any] | None:
        """See Supply."""
        while self._turns and (queue := self._queues[self._turns[0]]):
            index, answer = queue.popleft()
            if answer is Signal.PAST:
                self._turns.popleft()
                continue
            self._turns.rotate(-1)
            return index, answer
        return None if self._ended is None or any(self._queues) else (-1, self._ended)

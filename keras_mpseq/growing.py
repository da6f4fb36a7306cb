"""Orders that are not known ahead: they grow while the epoch runs, until they end.

`Growing` is for elements that come from elsewhere, one after the other. `Lanes` is for generators: each lane gives its
elements in turn, all of them by one worker, and nobody knows how many there are until they are over.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from keras_mpseq.order import Order


class Growing(Order):
    """An order whose index at a position is the position; anybody may build it.

    Args:
        workers: How many there are.
        ordered: Deliver in the order of positions.
    """

    def __init__(self, workers: int, ordered: bool, partition: str = "dynamic") -> None:
        super().__init__(None, length=None, shard=(0, 1), partition=partition, workers=max(workers, 1), ordered=ordered)
        self.known: int = 0
        """Positions so far."""

    @property
    def reach(self) -> int:
        """How many positions are known."""
        return self.known

    def grow(self, count: int) -> None:
        """Add *count* positions."""
        self.known += count

    def end(self) -> None:
        """Say that it grows no more."""
        self.size: int | None = self.known

    def next_of(self, owner: int | None, position: int) -> int | None:  # noqa: ARG002
        """Return *position*, unless the order has not come so far."""
        return position if position < self.known else None

    def together(self, position: int, most: int) -> int:
        """Return how many positions from *position* on may be dealt as one task, *most* at the most."""
        return min(most, self.known - position)


class Block(NamedTuple):
    """Some elements of a lane, one after the other."""

    lane: int
    step: int
    """Number of the first in its lane."""
    start: int
    """Position of the first."""
    end: int


class Lanes(Growing):
    """The elements of several lanes; those of one lane are built by one worker, in turn.

    The index of an element is `step * lanes + lane`.

    Args:
        lanes: How many there are.
        workers: How many there are.
        ordered: Deliver in the order of positions.
    """

    def __init__(self, lanes: int, workers: int, ordered: bool) -> None:
        super().__init__(workers, ordered, "stride")
        self.lanes = lanes
        self.steps: list[int] = [0] * lanes
        """Elements of each lane that have a position."""
        self._blocks: dict[int, Block] = {}
        """Of each position that was not delivered yet."""
        self._ahead: list[deque[Block]] = [deque() for _ in range(self.workers)]
        """Of each owner, from the one on that it was asked for last."""

    def grow_lane(self, lane: int, count: int) -> None:
        """Add the next *count* elements of *lane*."""
        block = Block(lane, self.steps[lane], self.known, self.known + count)
        self._blocks.update(dict.fromkeys(range(block.start, block.end), block))
        self._ahead[lane % self.workers].append(block)
        self.steps[lane] += count
        self.grow(count)

    def index(self, position: int) -> int:
        """Return the index at *position*, which has not been delivered yet."""
        block = self._blocks[position]
        return (block.step + position - block.start) * self.lanes + block.lane

    def owner(self, position: int) -> int | None:
        """Return the worker that runs the lane of *position*."""
        return self._blocks[position].lane % self.workers

    def next_of(self, owner: int | None, position: int) -> int | None:
        """Return the first position of *owner* from *position* on, as far as the order is known.

        *position* never is before that of the call before.
        """
        assert owner is not None
        ahead = self._ahead[owner]
        while ahead and ahead[0].end <= position:
            ahead.popleft()
        return max(position, ahead[0].start) if ahead else None

    def together(self, position: int, most: int) -> int:  # noqa: ARG002
        """Return how many positions the block has that begins at *position*.

        Never less: one slot is reserved for each task that is passed over, and two tasks could take the slots of a
        block before them, for which delivery then waits for ever.
        """
        return self._blocks[position].end - position

    def pieces(self, start: int, end: int) -> int:
        """Return how many blocks there are from *start* to before *end*."""
        count = 0
        while start < end:
            start = self._blocks[start].end
            count += 1
        return count

    def delivered(self, position: int) -> None:
        """Forget *position*."""
        del self._blocks[position]

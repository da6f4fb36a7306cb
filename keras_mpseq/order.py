"""The order of an epoch: the index at each position, and who builds it; the seeds of an index.

Everything follows from (seed, epoch) alone, so that any process, host or later attempt comes to the
same order and the same numbers without being told. Each use of a seed has its own tag: shuffling,
`rng_of` and `seed_globals` never see the same random stream.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from keras_mpseq.shares import UNEVEN, share_of

Indices = TypeVar("Indices", int, NDArray[np.int64])

PARTITIONS = ("dynamic", "block", "stride")

_SHUFFLE, _RNG, _GLOBALS = 1, 2, 3
_WORD = 0xFFFF_FFFF


class Order:
    """What one epoch delivers on this host, by position; made by `epoch_order`."""

    def __init__(
        self,
        indices: NDArray[np.int64] | None,
        *,
        length: int | None,
        shard: tuple[int, int],
        partition: str,
        workers: int,
        ordered: bool,
        uneven: str = "error",
    ) -> None:
        """Keep what `epoch_order` has checked; *indices* is None where arithmetic says it all."""
        self.partition = partition
        self.workers = workers
        self.ordered = ordered
        self._indices = indices
        self._length = length
        self._shard = shard
        self._turns: list[NDArray[np.int64]] | None = None
        self._start = 0
        self.size: int | None = None if length is None else share_of(length, shard, uneven).size
        """Positions in this epoch on this host; None: endless."""

    @property
    def reach(self) -> int:
        """How many positions are known: all, except of an order that grows."""
        return self.size or 0

    @property
    def partitioned(self) -> bool:
        """Each position belongs to one worker."""
        return self.partition != "dynamic"

    def after(self, start: int) -> Order:
        """Return what is left of this order from position *start* on, as positions from 0."""
        rest = copy.copy(self)
        rest._turns = None
        rest._start += start
        rest._indices = None if self._indices is None else self._indices[start:]
        rest.size = None if self.size is None else max(self.size - start, 0)
        return rest

    def backwards(self, end: int) -> Order:
        """Return what is before position *end* of this finite order, from there to its beginning."""
        turned = copy.copy(self)
        turned._turns = None
        turned._indices = np.array([self.index(position) for position in range(end)][::-1], np.int64)
        turned.size = end
        return turned

    def index(self, position: int) -> int:
        """Return the sequence's index at *position*, which counts from 0."""
        if self._indices is not None:
            return int(self._indices[position])
        return self._unshuffled(position)

    def _unshuffled(self, position: Indices) -> Indices:
        first, step = self._shard
        index = first + step * (self._start + position)
        return index if self._length is None else index % self._length

    def owner(self, position: int) -> int | None:
        """Return the worker that is to build *position*; None: whoever has time."""
        return self._owner_of(self.index(position)) if self.partitioned else None

    def next_of(self, owner: int | None, position: int) -> int | None:
        """Return the first position of *owner*, from *position* on, or None where there is none.

        Args:
            owner: A worker; None only, and always, when the order is not partitioned.
            position: Where to begin to look, from 0.
        """
        if self.size is None:
            # Endless orders are not shuffled: the owners take strict turns.
            return position if owner is None else position + (owner - self._start - position) % self.workers
        if owner is None:
            return position if position < self.size else None
        if self._turns is None:
            self._turns = self._turns_of_owners(self.size)
        turns = self._turns[owner]
        rank = int(turns.searchsorted(position))
        return int(turns[rank]) if rank < len(turns) else None

    def together(self, position: int, most: int) -> int:  # noqa: ARG002  An order that grows looks at the position.
        """Return how many positions from *position* on may be dealt as one task, *most* at the most."""
        return 1 if self.partitioned else most

    def pieces(self, start: int, end: int) -> int:
        """Return how many tasks, at the least, the positions from *start* to before *end* are dealt as."""
        return end - start

    def delivered(self, position: int) -> None:
        """Take note that *position* was delivered: nobody asks for it any more."""

    def _owner_of(self, index: Indices) -> Indices:
        if self.partition == "stride":
            # Host i of n sees, unshuffled, i, i + n, i + 2n …: without the division by n some
            # workers would own nothing where n and the number of workers have a common factor.
            return index // self._shard[1] % self.workers
        assert self._length is not None  # epoch_order refuses blocks of an endless sequence
        return ((index + 1) * self.workers - 1) // self._length

    def _turns_of_owners(self, size: int) -> list[NDArray[np.int64]]:
        indices = self._indices
        owners = self._owner_of(self._unshuffled(np.arange(size)) if indices is None else indices)
        return [np.flatnonzero(owners == worker) for worker in range(self.workers)]


def epoch_order(
    *,
    length: int | None,
    seed: int,
    epoch: int,
    shuffle: bool,
    shard: tuple[int, int],
    partition: str,
    workers: int,
    ordered: bool,
    uneven: str = "error",
) -> Order:
    """Return the order of one epoch.

    Args:
        length: Of the sequence, in batches; None: endless.
        seed: An int of 0 or more; hosts that share an epoch by *shard* must have the same.
        epoch: From 0; another epoch is shuffled otherwise.
        shuffle: Permute the indices; else they ascend.
        shard: (i, n): this is host i of n, and takes every n-th position of the whole order.
        partition: "dynamic": any worker builds any position. "stride": worker w owns every N-th
            index. "block": worker w owns one contiguous part of the indices. Owners depend on the
            index, not on the position, so that a worker meets the same ones in every epoch.
        workers: How many there are; 0, this process alone, owns like 1.
        ordered: Batches are to be delivered in the order of positions.
        uneven: See `share_of`; shards of an endless sequence are all endless.

    Raises:
        ValueError: An argument is out of its range, or an endless sequence is to be shuffled or cut
            into blocks.
    """
    host, hosts = shard
    if uneven not in UNEVEN:
        raise ValueError(f"uneven must be one of {', '.join(UNEVEN)}, got {uneven!r}.")
    if partition not in PARTITIONS:
        raise ValueError(f"partition must be one of {', '.join(PARTITIONS)}, got {partition!r}.")
    if not 0 <= host < hosts:
        raise ValueError(f"shard must be (i, n) with 0 <= i < n, got {shard!r}.")
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}.")
    indices = None
    if length is None:
        if shuffle:
            raise ValueError(
                "shuffle=True needs a sequence of finite length, got an endless one: "
                "shuffle downstream, such as with dataset.shuffle(1000)."
            )
        if partition == "block":
            raise ValueError(
                "partition='block' needs a sequence of finite length, got an endless one: "
                "use partition='stride' or 'dynamic'."
            )
    elif length < 0:
        raise ValueError(f"length must be 0 or more, or None if endless, got {length}.")
    elif shuffle:
        generator = Generator(PCG64(_sequence_of(_SHUFFLE, seed, epoch)))
        # A copy of this host's share, so that the permutation of the whole is not kept alive.
        positions = host + hosts * np.arange(share_of(length, shard, uneven).size)
        indices = generator.permutation(length)[positions % max(length, 1)]
    return Order(
        indices,
        length=length,
        shard=shard,
        partition=partition,
        workers=max(workers, 1),
        ordered=ordered,
        uneven=uneven,
    )


def rng_of(seed: int, epoch: int, index: int) -> Generator:
    """Return a fresh generator for one batch, the same in every process and at every attempt."""
    return Generator(PCG64(_sequence_of(_RNG, seed, epoch, index)))


def seed_globals(seed: int, epoch: int, index: int) -> None:
    """Seed `random` and `np.random` for one batch, independently of each other and of `rng_of`."""
    # 128 bits each: an int for np.random.seed has 32 bits, of which two in 10^5 are likely equal.
    words = _sequence_of(_GLOBALS, seed, epoch, index).generate_state(8)
    random.seed(int.from_bytes(words[:4].astype("<u4", copy=False).tobytes(), "little"))
    np.random.seed(words[4:])


@contextmanager
def preserved_globals() -> Iterator[None]:
    """Put back the state of `random` and `np.random` at the end, also after an exception."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _sequence_of(tag: int, seed: int, epoch: int, index: int = 0) -> SeedSequence:
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    # Words of fixed width and place, the seed of any width last: a list of ints is cut into words
    # by their size and run together, so that (0, 2**32) and (0, 0, 1) give the same numbers.
    words = [tag, epoch & _WORD, epoch >> 32 & _WORD, index & _WORD, index >> 32 & _WORD]
    words.append(seed & _WORD)
    while seed := seed >> 32:
        words.append(seed & _WORD)
    return SeedSequence(np.array(words, np.uint32))

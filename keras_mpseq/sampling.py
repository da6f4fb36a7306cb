"""Which samples are in which batch of an epoch: from (seed, epoch) alone, in every process, without being sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.random.bit_generator import ISpawnableSeedSequence
from numpy.typing import NDArray

WINDOW = 100
"""Batches whose samples are sorted by length together: the more, the less padding, and the less is left to chance."""
_KEPT = 2
"""RecentEpochs of which the order is kept: of two that are under way at a time, tasks may come in turn."""
_ORDER, _SAMPLES = -1, -2
"""In the place of an index, of which there are none below 0: whose generator shuffles, and seeds the samples'."""


class Plan(NamedTuple):
    """How samples are dealt to batches."""

    samples: int
    batch_size: int
    shuffle: bool
    drop_remainder: bool

    @property
    def batches(self) -> int:
        """How many there are."""
        return self.samples // self.batch_size if self.drop_remainder else -(-self.samples // self.batch_size)

    def order(self, rng: Generator, lengths: NDArray[Any] | None) -> NDArray[Any] | None:
        """Return the samples of an epoch, batch after batch; None where they just ascend.

        Args:
            rng: Of the epoch.
            lengths: Of the samples; batches are made of samples of similar length.
        """
        if not self.shuffle and lengths is None:
            return None
        # Of half the size for any number of samples that there are in practice: every worker has its own.
        numbers = np.arange(self.samples, dtype=np.uint32 if self.samples < 1 << 32 else np.int64)
        if self.shuffle:
            rng.shuffle(numbers)
        if lengths is None:
            return numbers
        if self.drop_remainder:
            # Before the lengths are looked at, or it would be the longest that are dropped.
            numbers = numbers[: self.batches * self.batch_size]
        for start in range(0, len(numbers), WINDOW * self.batch_size):
            part = numbers[start : start + WINDOW * self.batch_size]
            part[...] = part[np.argsort(lengths[part], kind="stable")]
        if self.shuffle:
            # What is left over stays last, so that all other batches are full.
            full = len(numbers) // self.batch_size * self.batch_size
            rng.shuffle(numbers[:full].reshape(-1, self.batch_size))
        return numbers


class Epoch(NamedTuple):
    """What is the same for all batches of an epoch."""

    order: NDArray[Any] | None
    key: NDArray[np.uint64]
    """From which `generators` makes those of the samples."""

    def numbers(self, first: int, end: int) -> NDArray[Any]:
        """Return the numbers of the samples at these positions."""
        return np.arange(first, end) if self.order is None else self.order[first:end].astype(np.int64)


class RecentEpochs:
    """The last epochs, in one process."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Plan, int, int], Epoch] = {}

    def epoch(
        self, plan: Plan, seed: int, number: int, rng_of: Callable[[int], Generator], lengths: NDArray[Any] | None
    ) -> Epoch:
        """Return an epoch, made once for each *seed* and *number*, from which *rng_of* follows."""
        identity = plan, seed, number
        if identity not in self._kept:
            made = Epoch(plan.order(rng_of(_ORDER), lengths), rng_of(_SAMPLES).integers(0, 1 << 64, 4, np.uint64))
            # A new dict: another thread may be reading the old one.
            self._kept = dict([*self._kept.items(), (identity, made)][-_KEPT:])
            return made
        return self._kept[identity]


class _Words(ISpawnableSeedSequence):
    """Seeds one generator by words that are there. NumPy's own SeedSequence takes ten times as long."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        """Return the words (called by PCG64, which wants four of 64 bits)."""
        del n_words, dtype
        return self._words

    def spawn(self, n_children: int) -> list[Any]:
        """Return seeds for independent generators (called by `Generator.spawn`)."""
        return list(SeedSequence(self._words.tolist()).spawn(n_children))


def generators(key: NDArray[np.uint64], numbers: NDArray[Any]) -> Iterator[Generator]:
    """Yield the generator of each sample of *numbers*, keyed by *key* and the sample's number."""
    # The finalizer of SplitMix64: every bit of the number counts for every bit of the words.
    words = numbers.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15) + key
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    for one in words ^ (words >> np.uint64(31)):
        yield Generator(PCG64(_Words(one)))  # type: ignore[arg-type]  # NumPy's stubs know its own seeds only.

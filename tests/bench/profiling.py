"""What a profile costs: the same pipeline with workers that measure themselves, and with workers that do not.

Batches are of pure Python, so that the processor's time for a batch is what limits the throughput. It is compared
instead of the clock's, because what measuring takes is less than what a machine that does something else changes.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_mpseq.loader import Batches, feed_of
from keras_mpseq.options import checked
from tests.bench.workloads import Work

_WORKERS = 2
_BATCH_S = 0.010
_ROUNDS = 12
_GROUP = 8
"""Batches of a worker that are one figure: in some single ones it looks where it is, in others it does not."""
_ROUND = 40
"""Batches of each in a round. In turn, so that both have the same of whatever else the machine does."""


class Clocked(Work):
    """Batches that say who built them, and the processor's time of that process so far, of all of its threads."""

    def __getitem__(self, index: int) -> NDArray[Any]:
        super().__getitem__(index)
        return np.array([os.getpid(), time.process_time()])


def percent_lost() -> float:
    """Return how much more a worker computes for a batch while it is measured, in percent."""
    sequence = Clocked(1_000_000, _loops())
    plain = checked(sequence, workers=_WORKERS)
    feeds = [feed_of(sequence, options, fixed=None) for options in (plain, replace(plain, record=True))]
    try:
        epochs = [Batches(feed) for feed in feeds]
        taken: list[list[Any]] = [[], []]
        for _ in range(_ROUNDS):
            for at in (0, 1):
                taken[at] += list(itertools.islice(epochs[at], _ROUND))
        # The lower quartile: neighbours on a core make the same work take longer, and never less.
        plain_s, measured_s = (statistics.quantiles(_spent(iter(batches)))[0] for batches in taken)
        return (measured_s / plain_s - 1) * 100
    finally:
        for feed in feeds:
            feed.close()


def _spent(batches: Iterator[Any]) -> Iterator[float]:
    """Yield the processor's time of each group of batches of a worker, which is all that it does meanwhile."""
    clocks: dict[int, list[float]] = defaultdict(list)
    for pid, clock in batches:
        clocks[int(pid)].append(float(clock))
    for found in clocks.values():
        yield from (later - earlier for earlier, later in itertools.pairwise(found[::_GROUP]))


def _loops() -> int:
    """Return how many rounds of a loop take as long as a batch is to take."""
    work = Work(1, 10_000)
    began = time.thread_time()
    for _ in range(10):
        work[0]
    return round(10_000 * _BATCH_S / ((time.thread_time() - began) / 10))


FIGURES = {"profiled": percent_lost}

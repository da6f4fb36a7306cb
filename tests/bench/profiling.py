"""What a profile costs: the same pipeline with workers that measure themselves, and with workers that do not.

Imports NumPy and keras_mpseq only.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from keras_mpseq.loader import Batches, feed_of
from keras_mpseq.options import checked
from keras_mpseq.run import Feed
from tests.bench.workloads import Work

_WORKERS = 2
_BATCH_S = 0.010
_ROUNDS = 21
_AHEAD, _ROUND = 32, 32
"""Batches that each takes in a round, before the clock starts: more than are built ahead while the other has its turn;
and then. Both have the same of whatever else the machine does."""


def percent_lost() -> float:
    """Return how much longer batches of pure Python take while they are measured, in percent."""
    sequence = Work(1_000_000, _loops())
    plain = checked(sequence, workers=_WORKERS)
    feeds = [feed_of(sequence, options, fixed=None) for options in (plain, replace(plain, record=True))]
    try:
        epochs = [iter(Batches(feed)) for feed in feeds]
        ratios = []
        for number in range(_ROUNDS):
            # In turn, and each first as often as second.
            spent = {at: _seconds(epochs[at], feeds[at]) for at in ((0, 1) if number % 2 else (1, 0))}
            if number:  # Not the first, in which workers start.
                ratios.append(spent[1] / spent[0])
        return (statistics.median(ratios) - 1) * 100
    finally:
        for feed in feeds:
            feed.close()


def _seconds(epoch: Iterator[Any], feed: Feed) -> float:
    """Take the batches of a round, and return how long those took that were not built ahead."""
    for _ in itertools.islice(epoch, _AHEAD):
        pass
    began = time.perf_counter()
    for _ in itertools.islice(epoch, _ROUND):
        pass
    spent = time.perf_counter() - began
    feed.source.records()
    return spent


def _loops() -> int:
    """Return how many rounds of a loop take as long as a batch is to take."""
    work = Work(1, 10_000)
    began = time.thread_time()
    for _ in range(10):
        work[0]
    return round(10_000 * _BATCH_S / ((time.thread_time() - began) / 10))


FIGURES = {"profiled": percent_lost}

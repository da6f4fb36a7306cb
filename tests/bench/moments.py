"""Figures of keras_mpseq alone, each against a limit: first batch, replaced worker, memory, gap between epochs."""

from __future__ import annotations

import itertools
import os
import re
import signal
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mpseq import Loader, to_dataset
from tests.bench.workloads import TINY, WORKERS, Pids, Tiny

_TIMES = 5
_MANY = 100_000
_MEMORY_WORKERS = 4
_WATCHED = 500
"""Batches between two kills: more than are ahead, so that none of a dead worker comes after them."""


def first_batch_s() -> float:
    """From `to_dataset(...)` to the first batch, when the user's module imports neither TensorFlow nor Keras."""
    _first(Tiny(WORKERS))  # What TensorFlow does once in a process is no part of it.
    return statistics.median(_first(Tiny(_MANY)) for _ in range(_TIMES))


def _first(sequence: Tiny) -> float:
    began = time.perf_counter()
    next(iter(to_dataset(sequence, workers=WORKERS)))
    return time.perf_counter() - began


def replaced_s() -> float:
    """From SIGKILL of a worker until its replacement has built a batch."""
    batches = iter(to_dataset(Pids(_MANY), workers=WORKERS))
    known, latest = _watch(batches)
    spent = []
    for _ in range(_TIMES):
        began = time.monotonic_ns()
        os.kill(latest, signal.SIGKILL)
        built = next(at for pid, at in batches if int(pid) not in known)
        spent.append((int(built) - began) / 1e9)
        seen, latest = _watch(batches)
        known |= seen
    return statistics.median(spent)


def _watch(batches: Iterator[Any]) -> tuple[set[int], int]:
    """Take some batches: return who built them, and who built the last."""
    pids = [int(pid) for pid, _ in itertools.islice(batches, _WATCHED)]
    return set(pids), pids[-1]


def private_mb() -> float:
    """Memory that the largest of several workers has for itself; the sequence allocates nothing worth counting."""
    with Loader(Pids(_MANY), workers=_MEMORY_WORKERS) as loader:
        pids: set[int] = set()
        for batch in loader:
            pids.add(int(batch[0]))
            if len(pids) == _MEMORY_WORKERS:
                return max(map(_private_kb, pids)) * 1024 / 1e6
    raise RuntimeError(f"Only {len(pids)} of {_MEMORY_WORKERS} workers built a batch.")


def _private_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.MULTILINE))


_EPOCH = 200
_EPOCHS = 20
_GROUP = 10
"""Batches that one step of a plain generator brings, about as many as come out of a pool together."""


def gap_loader_s() -> float:
    """From the last batch of an epoch to the first of the next: two `for` loops over one Loader."""
    with Loader(Tiny(_EPOCH), workers=WORKERS) as loader:
        return _gap(batch for _ in range(_EPOCHS) for batch in loader)


def gap_repeat_s() -> float:
    """The same within `dataset.repeat()`."""
    return _gap(to_dataset(Tiny(_EPOCH), workers=WORKERS).repeat(_EPOCHS))


def gap_dataset_s() -> float:
    """The same with a new iterator of one dataset for each epoch, as `fit` does."""
    dataset = to_dataset(Tiny(_EPOCH), workers=WORKERS)
    return _gap(batch for _ in range(_EPOCHS) for batch in dataset)


def gap_generator_s() -> float:
    """The same for TensorFlow alone: `from_generator` over an array that is there, set up as our dataset is."""
    groups = np.zeros((_EPOCH // _GROUP, _GROUP, *TINY), np.float32)
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(groups), output_signature=tf.TensorSpec((_GROUP, *TINY), tf.float32)
    ).unbatch()
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    return _gap(batch for _ in range(_EPOCHS) for batch in dataset)


def _gap(batches: Iterable[object]) -> float:
    times = [time.perf_counter() for _ in batches]
    assert len(times) == _EPOCH * _EPOCHS, f"{len(times)} batches instead of {_EPOCH * _EPOCHS}"
    return statistics.median(times[end] - times[end - 1] for end in range(_EPOCH, len(times), _EPOCH))


MOMENTS = {
    "first-batch": first_batch_s,
    "replaced": replaced_s,
    "memory": private_mb,
    "gap-loader": gap_loader_s,
    "gap-repeat": gap_repeat_s,
    "gap-dataset": gap_dataset_s,
    "gap-generator": gap_generator_s,
}

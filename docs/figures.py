"""Measure what the pages in docs/explanation quote: `python docs/figures.py`, medians, some 45 seconds.

These are the figures behind decisions. How fast the package is, and its peers are, is told by `make bench`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mpseq import Loader
from keras_mpseq.events import Wanted

_REPETITIONS = 5
_BATCH_SHAPE = (32, 224, 224, 3)
_LARGE = 256 << 20
"""Bytes of the sequence's array."""
_MOST_WORKERS = 8
_EVENTS = 10_000
_EVENTS_A_BATCH = 1.1
"""Each is wanted; a task of 64 of them is built, and may change how many the next one has."""


class Tiny:
    """The cheapest sequence there is, with or without a large array."""

    def __init__(self, nbytes: int = 0) -> None:
        self.array = np.zeros(nbytes // 4, np.float32)

    def __len__(self) -> int:
        """Return the number of batches."""
        return _MOST_WORKERS

    def __getitem__(self, index: int) -> Any:
        """Return a batch of eight bytes."""
        return np.int64(index)


def main() -> None:
    """Print a line for each figure."""
    for modules in ("numpy, cloudpickle", "keras"):
        seconds, mib = imported(modules)
        print(f"import {modules}: {seconds:.2f} s, {mib:.0f} MiB at the peak")
    for shift in (0, 8):
        print(f"19 MB array into TensorFlow, {shift} bytes off alignment: {1e3 * into_tensorflow(shift):.2f} ms")
    print(f"one element of eight bytes out of a generator: {1e6 * step(1):.0f} us")
    print(f"the same in groups of 32 with unbatch: {1e6 * step(32):.0f} us")
    one, all_of_them = started(1), started(_MOST_WORKERS)
    print(f"from Loader() to the end of eight small batches, one worker: {1e3 * one:.0f} ms")
    print(f"for each further worker: {1e3 * (all_of_them - one) / (_MOST_WORKERS - 1):.1f} ms")
    print(f"between two epochs, small sequence: {1e3 * boundary(0):.2f} ms")
    print(f"between two epochs, 256 MiB on the sequence: {1e3 * boundary(_LARGE):.0f} ms")
    kept, whole = trace()
    print(
        f"trace: {1e9 * kept:.0f} ns to keep an event; {kept * _EVENTS_A_BATCH / whole:.2%} of a batch of eight bytes"
    )


def median(measure: Callable[[], float]) -> float:
    """Return the median of some measurements."""
    return statistics.median(measure() for _ in range(_REPETITIONS))


def imported(modules: str) -> tuple[float, float]:
    """Return seconds and peak memory in MiB that a fresh process needs to import *modules*."""
    code = (
        f"import re, time; began = time.perf_counter(); import {modules}; seconds = time.perf_counter() - began; "
        # Not resource.getrusage, whose peak begins with that of the process that forked this one.
        "print(seconds, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(_REPETITIONS)
    ]
    return statistics.median(float(run[0]) for run in runs), statistics.median(float(run[1]) for run in runs)


def into_tensorflow(shift: int) -> float:
    """Return the seconds from an array to its tensor, *shift* bytes after a multiple of 64."""
    nbytes = int(np.prod(_BATCH_SHAPE)) * 4
    memory = np.zeros(nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + shift
    array = memory[start : start + nbytes].view(np.float32).reshape(_BATCH_SHAPE)
    count = 20
    dataset = tf.data.Dataset.from_generator(
        lambda: (array for _ in range(count)), output_signature=tf.TensorSpec(_BATCH_SHAPE, tf.float32)
    )
    return median(lambda: _seconds(dataset) / count)


def step(group: int) -> float:
    """Return the seconds for one tiny element, out of a generator that yields *group* at a time."""
    count = 3200
    shape = () if group == 1 else (None,)
    element = np.zeros((group,)[: len(shape)], np.int64)
    dataset = tf.data.Dataset.from_generator(
        lambda: (element for _ in range(count // group)), output_signature=tf.TensorSpec(shape, tf.int64)
    )
    return median(lambda: _seconds(dataset if group == 1 else dataset.unbatch()) / count)


def started(workers: int) -> float:
    """Return the seconds from the making of a loader to the end of an epoch in which each worker builds a batch."""

    def once() -> float:
        began = time.perf_counter()
        with Loader(Tiny(), workers=workers, partition="stride") as loader:
            list(loader)
            return time.perf_counter() - began

    return median(once)


def boundary(nbytes: int) -> float:
    """Return the seconds from the last batch of an epoch to the first of the next."""
    with Loader(Tiny(nbytes), workers=2) as loader:
        list(loader)

        def once() -> float:
            began = time.perf_counter()
            next(epoch := iter(loader))
            seconds = time.perf_counter() - began
            list(epoch)
            return seconds

        return median(once)


def trace() -> tuple[float, float]:
    """Return the seconds that keeping an event takes, and those of CPU time of this process for a tiny batch."""
    ring: deque[tuple[Wanted, list[Wanted]]] = deque(maxlen=64)
    event, actions = Wanted(0), [Wanted(0)]
    batches = [np.int64(index) for index in range(_EVENTS)]

    def keep() -> float:
        start = time.perf_counter()
        for _ in range(_EVENTS):
            ring.append((event, actions))
        return (time.perf_counter() - start) / _EVENTS

    with Loader(batches, workers=1) as loader:
        list(loader)

        def build() -> float:
            start = time.process_time()
            for _ in loader:
                pass
            return (time.process_time() - start) / _EVENTS

        return median(keep), median(build)


def _seconds(dataset: Any) -> float:
    iterator: Iterator[Any] = iter(dataset)
    next(iterator)
    began = time.perf_counter()
    for _ in iterator:
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""What is loaded: sequences of batches that need NumPy only, so that any loader's process can import them cheaply.

Every participant of a row gets the same sequence. Building in place is the one exception: `in_place.py` has the same
batches with `self.empty` where these have `np.empty`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

WORKERS = 2
BIG = (32, 224, 224, 3)
"""float32: 19.3 MB, a batch of images as ImageNet models take them."""
TINY = (32, 8)
"""float32: 1 KiB."""
_SOURCES = 4
"""Arrays that filled batches are copied from: few, so that memory for them plays no part."""


class Batches(Protocol):
    """A sequence of batches, as all participants take it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[Any]: ...


class Counted:
    """A sequence of so many batches."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


class Held(Counted):
    """19 MB batches that are there already: only transport is measured."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.batch: NDArray[Any] = images(1)[0]

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.batch


class Touched(Counted):
    """19 MB batches, allocated each time, of which a few values are written: the least that building can cost."""

    def __getitem__(self, index: int) -> NDArray[Any]:
        return touch(np.empty(BIG, np.float32), index)


class Filled(Counted):
    """19 MB batches, allocated and written in full each time: what a decoder does at the least."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.sources = images(_SOURCES)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return fill(np.empty(BIG, np.float32), self.sources[index % _SOURCES])


class Tiny(Counted):
    """1 KB batches."""

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.full(TINY, index, np.float32)


class Work(Counted):
    """1 KB batches that each take so many loops of pure Python."""

    def __init__(self, count: int, loops: int) -> None:
        super().__init__(count)
        self.loops = loops

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.full(TINY, loop(self.loops) % 2, np.float32)


class Pids(Counted):
    """Batches of 2 ms that say who built them, and when, in nanoseconds of the clock that processes share."""

    def __getitem__(self, index: int) -> NDArray[Any]:
        time.sleep(0.002)
        return np.array([os.getpid(), time.monotonic_ns()])


def images(count: int) -> NDArray[Any]:
    """Return *count* 19 MB batches, (count, batch, height, width, channel)."""
    return np.random.default_rng(0).random((count, *BIG), np.float32)


def touch(batch: NDArray[Any], index: int) -> NDArray[Any]:
    """Write one value of each sample of *batch*."""
    batch[:, 0, 0, 0] = index
    return batch


def fill(batch: NDArray[Any], source: NDArray[Any]) -> NDArray[Any]:
    """Write all of *batch*."""
    batch[...] = source
    return batch


def loop(count: int) -> int:
    """Work *count* rounds in pure Python, holding the GIL."""
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFFFFFF
    return total


def make(workload: str, count: int, loops: int) -> Batches:
    """Return the sequence of *workload* with *count* batches; *loops* are those of `work`."""
    if workload == "work":
        return Work(count, loops)
    kinds: dict[str, Callable[[int], Batches]] = {"held": Held, "touched": Touched, "filled": Filled, "tiny": Tiny}
    return kinds[workload](count)

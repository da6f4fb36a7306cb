"""What workers build under chaos. Imports NumPy and keras_mpseq only."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, role
from tests.chaos.acting import act
from tests.chaos.script import PARTITIONS, Own

_TABLE = 1 << 17
"""Numbers in the array that all workers share: one MiB."""


class Chaotic(SafeSequence):
    """Random batches of one of several kinds; now and then the process that builds one dies of it, or sleeps.

    Args:
        kind: small: some numbers, which travel many at a time. large: 160 KiB, built in place and leased. varying: 1 to
            50 KiB, so that slots grow. versions: it changes before each epoch, also in an array that workers share.
        batches: In an epoch.
        work_ms: That building one takes.
        own: What the processes do to themselves.
        folder: For a file for each of these that has happened.
    """

    def __init__(self, kind: str, batches: int, work_ms: float, own: tuple[Own, ...], folder: str) -> None:
        super().__init__()
        self.kind = kind
        self.batches = batches
        self.work_ms = work_ms
        self.own = own
        self.folder = folder
        self.level = 0
        self.table = np.zeros(_TABLE) if kind == "versions" else np.zeros(0)

    def __len__(self) -> int:
        return self.batches

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._at("unpickle")

    def on_worker_start(self, worker: int) -> None:
        self._at("start")

    def on_epoch_begin(self) -> None:
        if self.kind == "versions":
            self.level = self.epoch * 7 + 1
            self.table[:] = self.level

    def __getitem__(self, index: int) -> Any:
        self._at("begin", index)
        batch = getattr(self, f"_{self.kind}")(index)
        self._at("end", index)
        return batch

    def _small(self, index: int) -> Any:
        numbers = self.rng(index).normal(size=(3, 2))
        self._work(index)
        return {
            # Sorted, as TensorFlow gives dictionaries back.
            "numpy": np.random.randint(0, 1 << 40, (3, 4)),
            "python": np.array([random.random() for _ in range(3)]),
            "rng": numbers,
            "which": (np.full(3, index), np.full(3, self.epoch)),
        }

    def _large(self, index: int) -> Any:
        image = self.empty((20, 32, 32), np.float64)
        rng = self.rng(index)
        image[:10] = rng.random((10, 32, 32))
        self._work(index)
        image[10:] = rng.random((10, 32, 32))
        return image, np.full(20, index)

    def _varying(self, index: int) -> Any:
        rows = 1 + (index * 7 + self.epoch * 3) % 50
        self._work(index)
        return self.rng(index).random((rows, 128)), np.full(rows, index)

    def _versions(self, index: int) -> Any:
        self._work(index)
        return self.table[index : index + 3] + self.rng(index).random(3), np.full(3, self.level)

    def _work(self, index: int) -> None:
        """Take as long as a batch takes; what happens half-way happens here."""
        self._half()
        self._at("half", index)
        self._half()

    def _half(self) -> None:
        if self.work_ms:
            time.sleep(self.work_ms / 2000)

    def _at(self, phase: str, index: int = -1) -> None:
        if role.in_worker:
            act(self.own, self.folder, phase, index)


class Mapped:
    """A function for process_map: random elements of a kind, small or large.

    Args:
        kind: As above, like all that follow.
        work_ms: For an element.
        own: With the number of an element as its index.
        folder: For files.
    """

    def __init__(self, kind: str, work_ms: float, own: tuple[Own, ...], folder: str) -> None:
        self.size = (20, 32, 32) if kind == "large" else (3, 2)
        self.work_ms = work_ms
        self.own = own
        self.folder = folder

    def __call__(self, number: Any) -> Any:
        self._at("begin", int(number))
        element = np.random.random(self.size), np.int64(number)
        time.sleep(self.work_ms / 1000)
        self._at("half", int(number))
        self._at("end", int(number))
        return element

    def _at(self, phase: str, index: int) -> None:
        if role.in_worker:
            act(self.own, self.folder, phase, index)


class Generated(Mapped):
    """A function for generator_dataset: the same elements, dealt to partitions of different size."""

    def __init__(self, elements: int, kind: str, work_ms: float, own: tuple[Own, ...], folder: str) -> None:
        super().__init__(kind, work_ms, own, folder)
        self.elements = elements

    def __call__(self, partition: Any) -> Iterator[Any]:
        for number in range(self.elements):
            if min(number % (PARTITIONS + 2), PARTITIONS - 1) == partition:
                yield super().__call__(number)

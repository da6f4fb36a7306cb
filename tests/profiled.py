"""Six pipelines, each with one thing in its way, for profiles. Imports NumPy only.

What computes does so for a time of its own thread, and not of the clock, so that a busy machine changes nothing.
"""

from __future__ import annotations

import threading
import time

import numpy as np

WORK_S = 0.003


def work(seconds: float) -> None:
    """Compute for so many seconds of this thread's time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))


class Computing:
    """Bound by its computing."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> np.ndarray:
        return self._augment(np.full((2, 3), index, np.float32))

    def _augment(self, batch: np.ndarray) -> np.ndarray:
        until = time.thread_time() + WORK_S
        while time.thread_time() < until:
            batch += sum(range(200))
        return batch


class Waiting(Computing):
    """Bound by what it waits for."""

    def __getitem__(self, index: int) -> np.ndarray:
        return self._read(index)

    def _read(self, index: int) -> np.ndarray:
        threading.Event().wait(0.02)  # As for a disk or a network.
        return np.full((2, 3), index, np.float32)


class Moving(Computing):
    """Bound by the size of its batches, which it has ready."""

    batch = np.zeros((16, 224, 224, 3), np.float32)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.batch


class SlowIndex(Computing):
    """One index takes far longer than the others."""

    SLOW = 5

    def __getitem__(self, index: int) -> np.ndarray:
        work(WORK_S * 25 if index == self.SLOW else WORK_S)
        return np.full((2, 3), index, np.float32)


class SlowWorker(Computing):
    """One worker takes far longer than the others for the same."""

    SLOW = 1

    def on_worker_start(self, worker: int) -> None:
        self.seconds = WORK_S * 5 if worker == self.SLOW else WORK_S

    def __getitem__(self, index: int) -> np.ndarray:
        work(self.seconds)
        return np.full((2, 3), index, np.float32)


def make_computing() -> Computing:
    """Make it, as a factory of a user does."""
    return Computing()

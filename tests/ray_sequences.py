"""Sequences and functions that workers on Ray import in test_ray.py's runs: without TensorFlow, for speed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence
from tests.sequences import Draws, LargeDraws, address, append_line, once


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class StopsOnce(Draws):
    """Its process is stopped, once, in the middle of a batch."""

    def __init__(self, marker: Path) -> None:
        super().__init__(20)
        self.marker = str(marker)

    def __getitem__(self, index: int) -> Any:
        if index == 5 and once(self.marker):
            Path(self.marker).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().__getitem__(index)


def is_in_store(where: int) -> bool:
    """Tell whether the object store is mapped at the address *where*."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if low <= where < high:
                return "plasma" in line
    return False


class Where(SafeSequence):
    """Tells whether its large array is in the store, whether it can be written, and its sum."""

    def __init__(self) -> None:
        super().__init__()
        self.data = np.full(1 << 20, 5.0)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.array([is_in_store(address(self.data)), self.data.flags.writeable, self.data[index]])


class Environment(SafeSequence):
    """Tells variables of the environment, and how many GPUs are visible."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.array(
            [int(os.environ["MINE"]), int(os.environ["OMP_NUM_THREADS"]), len(os.environ["CUDA_VISIBLE_DEVICES"])]
        )


class Samples(SafeSequence):
    """Random x and y."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        x = self.rng(index).normal(size=(8, 3))
        return x, x.sum(axis=1, keepdims=True)


class Logged(LargeDraws):
    """Writes each index that is built to a file."""

    def __init__(self, log: Path) -> None:
        super().__init__(60)
        self.log = str(log)

    def __getitem__(self, index: int) -> Any:
        append_line(self.log, str(index))
        return super().__getitem__(index)

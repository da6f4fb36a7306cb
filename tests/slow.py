"""Sequences that stand still, or that take more memory with each batch."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence
from tests.sequences import once

BATCHES = 8
AT = 3
"""The index at which it stands still."""
LEAK = 4 << 20
"""Bytes that a batch of Leaking leaves behind."""


class Reads(SafeSequence):
    """At one index it reads from a FIFO with the system's own read(), which fails where a signal cuts it short."""

    def __init__(self, fifo: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fifo = str(fifo)

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        return np.full(3, self.read() if index == AT else index)

    def read(self) -> int:
        fd = os.open(self.fifo, os.O_RDWR)  # To read alone would wait in open() for somebody who writes.
        buffer = ctypes.create_string_buffer(100)
        count: int = ctypes.CDLL(None).read(fd, buffer, 100)
        os.close(fd)
        return count


class Stops(SafeSequence):
    """At one index its process is stopped, as by Ctrl-Z or a debugger; it tells its number in a file."""

    def __init__(self, told: Path) -> None:
        super().__init__()
        self.told = str(told)

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        if index == AT and not os.path.exists(self.told):
            Path(self.told).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return np.full(3, index)


class SlowStart(SafeSequence):
    """Its workers read from a FIFO before they are ready."""

    def __init__(self, fifo: Path) -> None:
        super().__init__()
        self.fifo = str(fifo)

    def __len__(self) -> int:
        return BATCHES

    def on_worker_start(self, worker: int) -> None:
        with open(self.fifo) as fifo:
            fifo.read(1)

    def __getitem__(self, index: int) -> Any:
        return np.full(3, index)


class Numbered(SafeSequence):
    """Each batch: its index, the number of its worker, the process, how many that has built, and a draw of each kind.

    With *leak* each batch leaves 4 MiB behind.
    """

    def __init__(self, batches: int = 60, leak: bool = False, stop: Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches = batches
        self.leak = leak
        self.stop = stop and str(stop)
        self.worker = -1

    def __len__(self) -> int:
        return self.batches

    def on_worker_start(self, worker: int) -> None:
        self.worker = worker

    def on_worker_stop(self) -> None:
        if self.stop:
            with open(self.stop, "a") as file:
                file.write(f"{os.getpid()}\n")

    def __getitem__(self, index: int) -> Any:
        if self.leak:
            malloc = ctypes.CDLL(None).malloc
            malloc.restype = ctypes.c_void_p
            ctypes.memset(malloc(ctypes.c_size_t(LEAK)), 1, LEAK)
        draws = np.concatenate([self.rng(index).random(3), np.random.random(3), [self.epoch, index]])
        return {"batch": draws, "by": np.array([self.worker, os.getpid(), _resident()])}


def _resident() -> int:
    """Return the bytes of memory that this process has to itself."""
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


class DiesAtEnd(Numbered):
    """Its workers die while they stop."""

    def on_worker_stop(self) -> None:
        os._exit(3)


class HangsAtEnd(Numbered):
    """Its workers stop for ever."""

    def on_worker_stop(self) -> None:
        signal.pause()


class KillsOnce(Numbered):
    """At three indices its worker dies, once each; that is noted in a folder."""

    def __init__(self, batches: int, folder: Path) -> None:
        super().__init__(batches)
        self.folder = str(folder)

    def __getitem__(self, index: int) -> Any:
        if index in (4, 5, 17) and once(f"{self.folder}/{index}"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)

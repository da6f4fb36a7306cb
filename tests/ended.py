"""Sequences for `check` that hang, take long, or leave something behind. NumPy and keras_mpseq only."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Rows(SafeSequence):
    """Four batches of two rows."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 3), index, np.float32)


def wait_for_ever() -> None:
    threading.Event().wait()


class HangsInLength(Rows):
    def __len__(self) -> int:
        wait_for_ever()  # SEQ503
        return 4


class HangsWhenLoaded(Rows):
    def __setstate__(self, state: Any) -> None:
        wait_for_ever()  # SEQ101


class HasNoState(Rows):
    def __getstate__(self) -> Any:
        raise ValueError("no state")


class HangsWhenStopped(Rows):
    def on_worker_stop(self) -> None:
        wait_for_ever()  # SEQ306: it waits in a module of threads


class RaisesWhenStopped(Rows):
    def on_worker_stop(self) -> None:
        raise OSError("the disk is gone")  # SEQ501


class HasNoLength(Rows):
    def __len__(self) -> int:  # SEQ503
        return None  # type: ignore[return-value]


class RaisesAtLength(Rows):
    def __getitem__(self, index: int) -> Any:
        raise ValueError("first line\nsecond line")  # SEQ501


class ReturnsObject(Rows):
    def __getitem__(self, index: int) -> Any:  # SEQ501
        return object()


class TakesLong(Rows):
    """Each batch within the time-out, all of them not."""

    def __getitem__(self, index: int) -> Any:
        threading.Event().wait(0.3)
        return super().__getitem__(index)


class LeavesBehind(Rows):
    """Leaves a process in a session of its own, and shared memory; keeps a note of both."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = str(notes)

    def __getitem__(self, index: int) -> Any:
        left = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
        memory = shared_memory.SharedMemory(create=True, size=64)
        memory.close()
        with open(self.notes, "a") as file:
            file.write(f"{left.pid} {memory.name}\n")
        return super().__getitem__(index)


class ImportsLate(Rows):
    """Imports a library that draws and starts a thread once, when it is imported."""

    def __getitem__(self, index: int) -> Any:
        importlib.import_module("drawing_library")
        return super().__getitem__(index)

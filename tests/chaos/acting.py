"""What processes do to themselves, and batches for any loader. Imports neither Keras nor keras_mpseq.

So a peer's process begins with its own imports, and with the threads that these start, and no others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.chaos.script import Own


class Acting:
    """Batches that follow from their index alone, in any loader's workers; the same faults.

    Args:
        batches: How many.
        work_ms: That building one takes.
        own: What the processes do to themselves.
        folder: For a file for each of these that has happened.
    """

    def __init__(self, batches: int, work_ms: float, own: tuple[Own, ...], folder: str) -> None:
        self.batches = batches
        self.work_ms = work_ms
        self.own = own
        self.folder = folder
        self.home = os.getpid()

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        self._at("begin", index)
        batch = np.random.default_rng(index).random((20, 32, 32)), np.full(20, index)
        time.sleep(self.work_ms / 2000)
        self._at("half", index)
        time.sleep(self.work_ms / 2000)
        self._at("end", index)
        return batch

    def _at(self, phase: str, index: int) -> None:
        if os.getpid() != self.home:  # Keras builds the first two in the training process, which is to live.
            act(self.own, self.folder, phase, index)


def act(own: tuple[Own, ...], folder: str, phase: str, index: int) -> None:
    """Do what is due at this place and was not done before."""
    for fault in own:
        if (fault.phase, fault.index) == (phase, index) and _first(Path(folder) / str(fault.number)):
            match fault.what:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "template":
                    os.kill(os.getppid(), signal.SIGKILL)
                case "crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "exit":
                    os._exit(0)
                case "nap":
                    time.sleep(fault.ms / 1000)


def _first(marker: Path) -> bool:
    """Return True to the first process that asks."""
    with contextlib.suppress(FileExistsError):
        marker.touch(exist_ok=False)
        return True
    return False

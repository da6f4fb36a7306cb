"""Sequences for tests of PipelineMonitor: batches that cost work or nothing, and one that kills its worker."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence
from tests.sequences import once


def work() -> None:
    """Take much longer than a step of a small model, on whatever machine: one thread, no memory."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 60_000)


class Worked(SafeSequence):
    """Eight batches.

    Args:
        heavy: How often each of them takes `work`.
        marker: A file that does not exist; the worker that makes it dies.
    """

    def __init__(self, heavy: int = 0, marker: Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heavy, self.marker = heavy, marker

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if self.marker and index == 3 and once(self.marker):
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(self.heavy):
            work()
        return np.full((4, 4), index, np.float32), np.zeros((4, 1), np.float32)

"""A large array on disk, mapped by each worker for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, per_worker


class OnDisk(SafeSequence):
    def __init__(self, path: str, shape: tuple[int, ...], dtype: str = "float32", batch_size: int = 4) -> None:
        super().__init__()
        self.path, self.shape, self.dtype = path, shape, dtype
        self.batch_size = batch_size
        self.scale = np.float32(1)

    def on_worker_start(self, worker: int) -> None:
        self.scale = np.float32(1 / 255)

    @per_worker
    def array(self) -> np.ndarray:
        return np.memmap(self.path, self.dtype, "r", shape=self.shape)

    def __len__(self) -> int:
        return self.shape[0] // self.batch_size

    def __getitem__(self, i: int) -> Any:
        rows = np.array(self.array[i * self.batch_size : (i + 1) * self.batch_size])
        rows *= self.scale
        total = rows.sum(axis=1)
        rows[total > 1] = 0
        return rows, total


def make(folder: Path) -> OnDisk:
    path = folder / "rows.bin"
    np.arange(80, dtype=np.float32).tofile(path)
    return OnDisk(str(path), (20, 4))

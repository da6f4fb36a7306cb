"""Tables that are computed once: by functools, before a batch is built."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


@functools.lru_cache(maxsize=8)
def filters(size: int, count: int) -> np.ndarray:
    """Return triangular filters, the same array for the same arguments."""
    centres = np.linspace(0, size - 1, count + 2)
    positions = np.arange(size)
    rising = (positions - centres[:-2, None]) / (centres[1:-1] - centres[:-2])[:, None]
    falling = (centres[2:, None] - positions) / (centres[2:] - centres[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class Filtered(SafeSequence):
    def __init__(self, signals: np.ndarray, batch_size: int = 4, count: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.signals = signals
        self.batch_size = batch_size
        self.filters = filters(signals.shape[1] // 2 + 1, count)
        self.loudest = float(np.abs(signals).max())

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch_size, len(self.filters)

    @staticmethod
    def power(signals: np.ndarray) -> np.ndarray:
        return np.abs(np.fft.rfft(signals, axis=1)) ** 2

    def __len__(self) -> int:
        return len(self.signals) // self.batch_size

    def __getitem__(self, index: int) -> np.ndarray:
        first, size = index * self.batch_size, self.batch_size
        signals = self.signals[first : first + size] / self.loudest
        result = np.zeros(self.shape, np.float32)
        np.matmul(self.power(signals), self.filters.T, out=result)
        return result


def make(folder: Path) -> Filtered:
    return Filtered(np.random.default_rng(5).normal(size=(20, 32)))

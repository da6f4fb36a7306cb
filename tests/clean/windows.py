"""A time series in overlapping windows, each with the value that follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_mpseq import SafeSequence


class Windows(SafeSequence):
    def __init__(self, series: np.ndarray, *, length: int, ahead: int = 1, stride: int = 1, batch: int = 4) -> None:
        super().__init__()
        mean, deviation = series.mean(axis=0), series.std(axis=0)
        self.series = ((series - mean) / deviation).astype(np.float32)
        self.length, self.ahead, self.stride, self.batch = length, ahead, stride, batch
        self.starts = np.arange(0, len(series) - length - ahead + 1, stride)

    def __len__(self) -> int:
        return int(np.ceil(len(self.starts) / self.batch))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        starts = self.starts[index * self.batch : (index + 1) * self.batch]
        rows = starts[:, None] + np.arange(self.length)[None, :]
        inputs = self.series[rows]
        targets = self.series[starts + self.length + self.ahead - 1, 0]
        return inputs, targets, self._weights(starts)

    def _weights(self, starts: np.ndarray) -> np.ndarray:
        weights = np.ones(len(starts), np.float32)
        recent = starts > 0.8 * len(self.series)
        weights[recent] = 2
        weights /= weights.sum()
        return weights


def make(folder: Path) -> Windows:
    steps = np.arange(60)
    return Windows(np.stack([np.sin(steps / 3), np.cos(steps / 5)], axis=1), length=8, stride=2)

"""The first of three files of one hierarchy: how a batch is put together."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Root(SafeSequence, abc.ABC):
    def __init__(self, count: int, batch_size: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.batch_size = batch_size

    def __len__(self) -> int:
        return (self.count + self.batch_size - 1) // self.batch_size

    def __getitem__(self, index: int) -> Any:
        rows = range(index * self.batch_size, min((index + 1) * self.batch_size, self.count))
        rng = self.rng(index)
        return self.finished(np.stack([self.changed(self.row(row), rng) for row in rows]))

    @abc.abstractmethod
    def row(self, row: int) -> np.ndarray:
        """Return one row."""

    def changed(self, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return row

    def finished(self, batch: np.ndarray) -> Any:
        return batch

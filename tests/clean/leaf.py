"""The third of three files of one hierarchy: what is done with a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .middle import FromFiles


class Rotated(FromFiles):
    def __init__(self, folder: Path, most: int = 3, **kwargs: Any) -> None:
        super().__init__(folder, **kwargs)
        self.most = most

    def changed(self, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        row = super().changed(row, rng)
        return np.rot90(row, int(rng.integers(0, self.most + 1)))

    def finished(self, batch: np.ndarray) -> Any:
        return batch[..., None], batch.mean(axis=(1, 2))


def make(folder: Path) -> Rotated:
    for number in range(9):
        np.save(folder / f"{number}.npy", np.arange(16.0).reshape(4, 4) * number)
    return Rotated(folder)

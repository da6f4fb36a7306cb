"""A sequence around another one, which it changes as it goes by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Rows:
    """Not a sequence of Keras: anything with a length and items."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.x[row]


def squared(row: np.ndarray) -> np.ndarray:
    return row**2


class Mapped(SafeSequence):
    def __init__(self, source: Rows, function: Callable[[np.ndarray], np.ndarray] | None = None, size: int = 3) -> None:
        super().__init__()
        self.source = source
        self.function = function
        self.size = size

    def __len__(self) -> int:
        return len(self.source) // self.size

    def __getitem__(self, index: int) -> Any:
        rows = []
        for row in range(index * self.size, (index + 1) * self.size):
            value = self.source[row]
            if self.function is not None:
                value = self.function(value)
            rows.append(value)
        rows.reverse()
        return np.array(rows)


def make(folder: Path) -> Mapped:
    return Mapped(Rows(np.arange(48.0, dtype=np.float32).reshape(24, 2)), squared)

"""Batches of given sizes in bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class OfSizes(SafeSequence):
    """Every byte of a batch is its index (modulo 251).

    Args:
        sizes: In bytes, one a batch.
        in_place: Build them in the slot.
        parts: A batch is a tuple of so many arrays; with one it is the array.
    """

    def __init__(self, sizes: tuple[int, ...], in_place: bool = False, parts: int = 1) -> None:
        super().__init__()
        self.sizes = sizes
        self.in_place = in_place
        self.parts = parts

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Any:
        size = self.sizes[index] // self.parts
        parts = tuple(self._array(size, index % 251) for _ in range(self.parts))
        return parts if self.parts > 1 else parts[0]

    def _array(self, size: int, value: int) -> np.ndarray:
        array = self.empty(size, np.uint8) if self.in_place else np.empty(size, np.uint8)
        array[:] = value
        return array

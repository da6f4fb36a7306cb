"""A sequence for tests of `fit`: augmentation, hooks that change the state, and a batch that can be broken."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Noisy(SafeSequence):
    """Ten batches; every y of a batch is its index."""

    def __init__(self, broken: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.broken = broken
        self.hooks: list[str] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        if index == self.broken:
            raise ValueError("broken")
        x = self.rng(index).normal(size=(8, 4)) + np.random.rand() + len(self.hooks)
        return x, np.full((8,), index, np.float32)

    def on_epoch_begin(self) -> None:
        self.hooks.append(f"begin {self.epoch}")

    def on_epoch_end(self) -> None:
        self.hooks.append(f"end {self.epoch}")

"""Sequences for tests of tf_keras and of the backends of Keras; a worker that loads them loads nothing heavy."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence

HEAVY = ("tensorflow", "keras", "tf_keras", "jax", "torch")


class Numbered(SafeSequence):
    """Ten batches that say where they come from: x is the index, y the epoch, both in doubles."""

    def __init__(self, length: int | None = 10, size: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = length
        self.size = size
        self.begun = 0

    @property
    def num_batches(self) -> int | None:
        return self.length

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def __getitem__(self, index: int) -> Any:
        return np.full((2, self.size), float(index)), np.full((2, 1), float(self.begun))


class Light(Numbered):
    """Its y tells whether it was built by another process that has loaded nothing heavy."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parent = os.getpid()

    def __getitem__(self, index: int) -> Any:
        light = os.getpid() != self.parent and not any(name in sys.modules for name in HEAVY)
        return super().__getitem__(index)[0], np.full((2, 1), float(light))


class Unlabelled(Numbered):
    """Batches of x alone."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0]


class Weighted(Numbered):
    """Batches with a sample_weight, which is 0 for odd indices."""

    def __getitem__(self, index: int) -> Any:
        return *super().__getitem__(index), np.full((2,), float(index % 2 == 0))


class Broken(Numbered):
    """A batch of it fails."""

    def __init__(self, broken: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.broken = broken

    def __getitem__(self, index: int) -> Any:
        if index == self.broken:
            raise KeyError("no such image")
        return super().__getitem__(index)


class Lost(Numbered):
    """The process that builds its batch 7 ends."""

    def __getitem__(self, index: int) -> Any:
        if index == 7:
            os._exit(3)
        return super().__getitem__(index)


class Named(Numbered):
    """Two inputs and two outputs, by name."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return {"a": x, "b": -x}, {"sum": y, "difference": 2 * y}


class Bare:
    """A sequence without a base: ten batches, whose y is 1 where another process built them."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 4), float(index)), np.full((2, 1), float(os.getpid() != self.parent))

"""Samples first: a base that collates, and a class that only knows one sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Samples(SafeSequence):
    """Collate what `sample` returns, leaf by leaf."""

    batch_size = 4
    drop_last = False

    def count(self) -> int:
        raise NotImplementedError

    def sample(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        raise NotImplementedError

    def __len__(self) -> int:
        whole, rest = divmod(self.count(), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        first = index * self.batch_size
        positions = range(first, min(first + self.batch_size, self.count()))
        samples = [self.sample(p, rng) for p, rng in zip(positions, self.rng(index).spawn(len(positions)), strict=True)]
        return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


class Points(Samples):
    """Clouds of points, each a random choice of a larger one."""

    def __init__(self, clouds: list[np.ndarray], points: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clouds = clouds
        self.points = points

    def count(self) -> int:
        return len(self.clouds)

    def sample(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        cloud = self.clouds[position]
        chosen = cloud[rng.choice(len(cloud), self.points, replace=False)]
        chosen -= chosen.mean(axis=0)
        return {"points": chosen, "size": np.float32(np.linalg.norm(chosen, axis=1).max())}


def make(folder: Path) -> Points:
    rng = np.random.default_rng(4)
    return Points([rng.random((8 + k % 3, 3), np.float32) for k in range(18)])

"""Images in memory with a list of random steps, and two mixed into one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence

from . import pixels


class Augmented(SafeSequence):
    """Each image goes through all steps; then the batch is mixed with itself in another order."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int = 4, mix: float = 0.2) -> None:
        super().__init__(seed=7)
        self.images, self.labels = images, np.eye(3, dtype=np.float32)[labels]
        self.batch_size = batch_size
        self.mix = mix
        self.steps = [pixels.brightened, functools.partial(pixels.cut_out, size=3)]

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        rng = self.rng(index)
        images = np.stack([self.augment(image, rng) for image in self.images[rows]])
        order = rng.permutation(len(images))
        share = np.float32(rng.beta(self.mix, self.mix))
        labels = self.labels[rows]
        return images * share + images[order] * (1 - share), labels * share + labels[order] * (1 - share)

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in self.steps:
            image = step(image, rng)
        return np.clip(image, 0, 1)


def make(folder: Path) -> Augmented:
    rng = np.random.default_rng(2)
    return Augmented(rng.random((24, 6, 6, 3), np.float32), rng.integers(0, 3, 24))

"""Photographs in folders that are named by their class: read, cropped, flipped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_mpseq import SafeSequence

from .pixels import centred, normalised


class ImageFolder(SafeSequence):
    """Batches of images with the number of their class."""

    def __init__(self, folder: Path, batch_size: int = 2, size: int = 8, flip: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_size, self.size, self.flip = batch_size, size, flip
        self.paths = sorted(str(path) for path in folder.glob("*/*.png"))
        self.classes = sorted({Path(path).parent.name for path in self.paths})
        self.labels = np.array([self.classes.index(Path(path).parent.name) for path in self.paths])

    def __len__(self) -> int:
        return math.ceil(len(self.paths) / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        low = index * self.batch_size
        high = min(low + self.batch_size, len(self.paths))
        rng = self.rng(index)
        images = self.empty((high - low, self.size, self.size, 3), np.float32)
        for row, path in enumerate(self.paths[low:high]):
            images[row] = self._load(path, rng)
        return images, self.labels[low:high]

    def _load(self, path: str, rng: np.random.Generator) -> np.ndarray:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        pixels = centred(pixels, self.size)
        if self.flip and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return normalised(pixels)


def make(folder: Path) -> ImageFolder:
    rng = np.random.default_rng(1)
    for name in ("cat", "dog"):
        (folder / name).mkdir(exist_ok=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return ImageFolder(folder)

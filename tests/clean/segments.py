"""Images with masks, one file of both for each sample; batches of them as a dict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence

from .pixels import normalised


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = 4
    batch_size: int = 2
    mirror: bool = True


def crop(arrays: list[np.ndarray], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    height, width = arrays[0].shape[:2]
    top, left = rng.integers(0, height - size + 1), rng.integers(0, width - size + 1)
    return [array[top : top + size, left : left + size] for array in arrays]


class Segments(SafeSequence):
    """Random crops, the same of image and mask."""

    def __init__(self, names: list[str], settings: Settings | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = names
        self.settings = settings or Settings()

    @classmethod
    def of_folder(cls, folder: Path, **kwargs: Any) -> Segments:
        return cls(sorted(map(str, folder.glob("*.npz"))), **kwargs)

    def __len__(self) -> int:
        return max(1, len(self.names) // self.settings.batch_size)

    def __getitem__(self, index: int) -> Any:
        size = self.settings.batch_size
        images, masks = [], []
        names = self.names[index * size : (index + 1) * size]
        for name, rng in zip(names, self.rng(index).spawn(len(names)), strict=True):
            with np.load(name) as file:
                arrays = [file["image"], file["mask"]]
            image, mask = crop(arrays, self.settings.size, rng)
            if self.settings.mirror and rng.integers(2):
                image, mask = image[:, ::-1], mask[:, ::-1]
            images.append(normalised(image))
            masks.append(mask)
        batch = {"image": np.stack(images), "mask": np.stack(masks).astype(np.uint8)}
        if not batch["mask"].any():
            batch["mask"][...] = 0
        return batch


def make(folder: Path) -> Segments:
    rng = np.random.default_rng(6)
    for number in range(8):
        image = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        np.savez(folder / f"{number}.npz", image=image, mask=image[..., 0] > 127)
    return Segments.of_folder(folder, seed=3)

"""The demo's images: handwritten digits as PNG files, and the sequence that decodes and augments them.

Workers import this module. It therefore needs NumPy and Pillow only, neither Keras nor TensorFlow.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keras_mpseq.sequence import SafeSequence

SIZE = 64
"""Side of the images that the model sees, in pixels; those in the files are 8 x 8."""
_FINE = 2 * SIZE
"""Images are drawn at twice their size and averaged: a rotated border has no steps then."""
_GREYS = 16
"""Grey levels of scikit-learn's digits: 0 is paper, 16 is ink."""
_ANGLE = math.radians(12)
_ZOOM = 0.1
_NOISE = 0.05


def write_images(folder: Path, images: NDArray[Any], labels: NDArray[Any]) -> list[Path]:
    """Write *images* as PNG files, one folder for each label, and return their paths in order.

    Files of the same name are replaced, others are left alone.

    Args:
        folder: Where to; made if it is not there.
        images: Of shape (images, height, width), grey levels 0 to 16.
        labels: What each image shows.
    """
    files = [folder / str(label) / f"{number:04}.png" for number, label in enumerate(labels)]
    for parent in {file.parent for file in files}:
        parent.mkdir(parents=True, exist_ok=True)
    for file, image in zip(files, np.rint(images * (255 / _GREYS)).astype(np.uint8), strict=True):
        Image.fromarray(image).save(file)
    return files


class Digits(SafeSequence):
    """Batches of `(images, labels)`: float32 of shape (batch, 64, 64, 1), from 0 to 1, and int64.

    Args:
        files: PNG files, one for each image.
        labels: The digit on each.
        batch_size: Images in a batch; the last batch may be shorter.
        augment: Rotate, zoom and add noise, drawn anew for each batch of each epoch.
        seed: Of the augmentation, and of the shuffling.
    """

    def __init__(
        self, files: list[Path], labels: NDArray[np.int64], *, batch_size: int, augment: bool, seed: int
    ) -> None:
        super().__init__(seed=seed)
        self.files = files
        self.labels = labels
        self.batch_size = batch_size
        self.augment = augment

    def __len__(self) -> int:
        """Return the number of batches."""
        return math.ceil(len(self.files) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return batch *index*, decoded straight into its place in shared memory."""
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        files = self.files[part]
        rng = self.rng(index)
        x = self.empty((len(files), SIZE, SIZE, 1), np.float32)
        for place, file in zip(x, files, strict=True):
            angle, zoom = (rng.uniform(-_ANGLE, _ANGLE), 1 + rng.uniform(-_ZOOM, _ZOOM)) if self.augment else (0, 1)
            np.divide(_drawn(file, angle, zoom), 255, out=place[..., 0], dtype=np.float32)
        if self.augment:
            x += rng.normal(0, rng.uniform(0, _NOISE), x.shape)
        return x, self.labels[part]


def _drawn(file: Path, angle: float, zoom: float) -> NDArray[np.uint8]:
    """Return the image in *file* at the model's size, rotated by *angle* radians and *zoom* times as large."""
    with Image.open(file) as image:
        side = image.width
        # Pillow asks for the way back: from a pixel of the result to the place in the file that it shows.
        scale = side / _FINE / zoom
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        middle, centre = side / 2, _FINE / 2
        back = (cos, sin, middle - (cos + sin) * centre, -sin, cos, middle - (cos - sin) * centre)
        fine = image.transform((_FINE, _FINE), Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    return np.asarray(fine.reduce(_FINE // SIZE))

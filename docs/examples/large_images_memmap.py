"""Large images with memmap: tiles of an image that is larger than one wants to have in memory.

By hand:
    The sequence maps the file, and Keras has processes.

        class Tiles(keras.utils.PyDataset):
            def __init__(self, path):
                super().__init__(workers=2, use_multiprocessing=True)
                self.image = np.load(path, mmap_mode="r")

How it fails:
    A memmap pickles as an array: where workers are spawned (macOS, Windows) the whole file is read and sent to each of
    them, and where they are forked (Linux) they are forks of a process that runs threads of TensorFlow, which can
    hang. Keras starts its workers anew for each epoch. Each batch of tiles comes back pickled through a pipe.

With keras_mpseq:
    The same class on `SafeSequence`. A memmap travels as the name of its file and its place in it, and the workers map
    the file as well: the system has each page in memory once.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_images

from keras_mpseq import Loader, SafeSequence

TILE, BATCH = 256, 8


class Tiles(SafeSequence):
    """Random tiles of a mapped image: sharpened, and scaled to mean 0 and variance 1."""

    def __init__(self, path, batches):
        super().__init__(seed=3)
        self.image = np.load(path, mmap_mode="r")
        self.batches = batches

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        rng = self.rng(index)
        height, width, _ = self.image.shape
        batch = self.empty((BATCH, TILE, TILE, 3), np.float32)
        for row in range(BATCH):
            y, x = rng.integers(height - TILE), rng.integers(width - TILE)
            tile = self.image[y : y + TILE, x : x + TILE].astype(np.float32)  # Reads these pages, and no others.
            around = sum(np.roll(tile, shift, axis) for axis in (0, 1) for shift in (-2, -1, 1, 2)) / 8
            tile += tile - around
            batch[row] = (tile - tile.mean()) / tile.std()
        return batch


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "image.npy"
    photograph = load_sample_images().images[0]
    np.save(path, np.tile(photograph, (8, 8, 1)))  # 3,416 by 5,120 pixels, 52 MB.
    sequence = Tiles(path, batches=40)

    begin = time.perf_counter()
    plain = [sequence[index] for index in range(len(sequence))]
    plain_s = time.perf_counter() - begin

    with Loader(sequence, workers=2) as loader:
        for batch, expected in zip(loader, plain, strict=True):
            np.testing.assert_array_equal(batch, expected, strict=True)

        begin = time.perf_counter()
        batches = sum(1 for batch in loader)  # The next epoch, with other tiles.
        workers_s = time.perf_counter() - begin
        stats = loader.stats()

    assert stats.bytes_shared == 0
    assert stats.bytes_pickled < 10_000
    print(f"{batches} batches, the same as in a plain loop")
    print(f"{path.stat().st_size:,} bytes in the file, {stats.bytes_pickled:,} bytes sent to workers")
    print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

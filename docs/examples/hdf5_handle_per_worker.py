"""HDF5 with a handle per worker: batches from one file that several processes read.

By hand:
    The file is opened in `__init__`, or, after the usual advice, when `__getitem__` first needs it.

        class Rows(keras.utils.PyDataset):
            def __getitem__(self, index):
                if self.file is None:
                    self.file = h5py.File(self.path)
                return self.file["x"][32 * index : 32 * (index + 1)]

How it fails:
    A handle does not pickle ("h5py objects cannot be pickled"), so that no spawned worker gets one. Forked workers
    share the file, and its position, of a handle that was opened before. Old versions of HDF5 move the position and
    then read from there, and when another worker moves it in between, the data is wrong or the file looks damaged
    ("bad object header version number"). Newer ones read without it, but nothing provides for copies of a handle.
    Opening late does not help: Keras builds two batches in the training process, to learn their shapes, before it
    forks, so that the handle is open by then. With threads, h5py reads one batch at a time, under a lock of its own.

With keras_mpseq:
    `per_worker` marks the method that opens the file. Each process opens its own when it first uses it, closes it at
    its end, and never sends it. The class needs no base; with `SafeSequence` as its base it could be given to `fit`.
"""

import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from sklearn.datasets import load_sample_images

from keras_mpseq import Loader, per_worker


def edges(patches):
    """Return how steep the patches are at each pixel."""
    dy, dx = np.gradient(patches.astype(np.float32), axis=(1, 2))
    return np.hypot(dy, dx)


class Patches:
    """Batches of 32 compressed patches of photographs."""

    def __init__(self, path, batches):
        self.path, self.batches = path, batches

    @per_worker
    def file(self):
        """Open the file; in each process once."""
        return h5py.File(self.path)

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        return edges(self.file["patches"][32 * index : 32 * (index + 1)])  # Decompressed here.


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "patches.h5"
    corners = [(y, x) for y in range(0, 427 - 96, 15) for x in range(0, 640 - 96, 20)]
    patches = np.stack([image[y : y + 96, x : x + 96] for image in load_sample_images().images for y, x in corners])
    batches = len(patches) // 32
    with h5py.File(path, "w") as file:
        file.create_dataset("patches", data=patches, chunks=(1, 96, 96, 3), compression="gzip", compression_opts=1)

    # A plain loop, with one handle.
    begin = time.perf_counter()
    plain = []
    with h5py.File(path) as file:
        for first in range(0, 32 * batches, 32):
            plain.append(edges(file["patches"][first : first + 32]))
    plain_s = time.perf_counter() - begin

    with Loader(Patches(path, batches), workers=2) as loader:
        for batch, expected in zip(loader, plain, strict=True):
            np.testing.assert_array_equal(batch, expected, strict=True)

        begin = time.perf_counter()
        count = sum(1 for batch in loader)
        workers_s = time.perf_counter() - begin

print(f"{count} batches, the same as in a plain loop")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

"""A Sequence with a race, and its repair.

By hand:
    A sequence keeps a buffer, so that it need not allocate, and hands out copies of it. It works, until `workers=4`.

        class Batches(keras.utils.PyDataset):
            def __getitem__(self, index):
                for row, image in enumerate(self.images[32 * index : 32 * (index + 1)]):
                    self.buffer[row] = enlarged(image)
                return self.buffer.copy()

How it fails:
    In Keras 3 `workers=4` means four threads on one object. Two of them fill the buffer at the same time, and each
    batch has rows of others in it, under the wrong labels. Nothing raises; training learns less. Counters such as
    `self.position += 32` race the same way. With processes each has a copy of the counter, so that batches come twice.

With keras_mpseq:
    `__getitem__` runs in processes, one call at a time in each. What it writes to large arrays of the sequence would be
    seen by one worker only: they are read-only, and writing raises `StatefulGetitemError`; for other state
    `Loader(strict=True)` does. The repair: a batch follows from `index` alone, in an array of its own. `self.empty`
    costs no allocation, for it lies where the batch goes anyway.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.datasets import load_digits

from keras_mpseq import Loader, SafeSequence, StatefulGetitemError


def enlarged(image):
    """Return *image*, 8 by 8 pixels, at 128 by 128 pixels: a sum of cosines through all its pixels."""
    spectrum = np.fft.rfft2(np.block([[image, image[:, ::-1]], [image[::-1], image[::-1, ::-1]]]))
    wide = np.zeros((256, 129), complex)
    wide[:8, :9], wide[-8:, :9] = spectrum[:8], spectrum[8:]
    return np.fft.irfft2(wide)[:128, :128].astype(np.float32)


class Racy(SafeSequence):
    """Batches of 32 digits, by way of a buffer that all calls share."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels
        self.buffer = np.zeros((32, 128, 128), np.float32)

    def __len__(self):
        return len(self.images) // 32

    def __getitem__(self, index):
        part = slice(32 * index, 32 * (index + 1))
        for row, image in enumerate(self.images[part]):
            self.buffer[row] = enlarged(image)
        return self.buffer.copy(), self.labels[part]


class Repaired(SafeSequence):
    """The same batches, each in an array of its own."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images) // 32

    def __getitem__(self, index):
        part = slice(32 * index, 32 * (index + 1))
        batch = self.empty((32, 128, 128), np.float32)
        for row, image in enumerate(self.images[part]):
            batch[row] = enlarged(image)
        return batch, self.labels[part]


digits = load_digits()
racy, repaired = Racy(digits.images, digits.target), Repaired(digits.images, digits.target)

# One call at a time, the racy sequence is right.
begin = time.perf_counter()
plain = [racy[index] for index in range(len(racy))]
plain_s = time.perf_counter() - begin

with ThreadPoolExecutor(4) as threads:
    threaded = list(threads.map(racy.__getitem__, range(16)))
wrong = sum(not np.array_equal(x, plain_x) for (x, _), (plain_x, _) in zip(threaded, plain, strict=False))
print(f"four threads: {wrong} of {len(threaded)} batches are wrong")

try:
    with Loader(racy, workers=2) as loader:
        list(loader)
except StatefulGetitemError as error:
    print(f"two workers: {str(error).splitlines()[0]}")
else:
    raise AssertionError("The race was not found.")

with Loader(repaired, workers=2) as loader:
    for (x, y), (plain_x, plain_y) in zip(loader, plain, strict=True):
        np.testing.assert_array_equal(x, plain_x, strict=True)
        np.testing.assert_array_equal(y, plain_y, strict=True)

    begin = time.perf_counter()
    batches = sum(1 for batch in loader)
    workers_s = time.perf_counter() - begin

print(f"repaired: {batches} batches, the same as in a plain loop")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

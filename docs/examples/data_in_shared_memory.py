"""Data in shared memory: one copy of a large array for all workers, and batches that are built in place.

By hand:
    The array is copied into a segment with a name, which every process opens.

        segment = SharedMemory(create=True, size=images.nbytes)
        shared = np.ndarray(images.shape, images.dtype, segment.buf)
        shared[:] = images
        pool = Pool(2, initializer=attach, initargs=(segment.name, images.shape, images.dtype))
        for batch in pool.imap(build, range(len(images) // 16)):
            ...
        segment.close()
        segment.unlink()

How it fails:
    The segment is a file in /dev/shm that stays when nobody comes to `unlink`, and in a container /dev/shm often has
    64 MB. A process that is no child of `multiprocessing` and opens the segment deletes it at its end, for all, unless
    it says `track=False`, which Python 3.13 introduced. An array over the segment crashes when it is read after
    `close()`.
    Batches still come back pickled through a pipe, or need a second segment, and a protocol of who may write to it.

With keras_mpseq:
    The array stays an attribute of a `SafeSequence`. Arrays of 1 MiB or more are shared by all workers, read-only, in
    memory without a name. `self.empty` gives an array that lies in shared memory as well: returning it copies nothing.
"""

import time

import numpy as np
from sklearn.datasets import load_sample_images

from keras_mpseq import Loader, SafeSequence

BATCH, SIDE = 16, 160


class Whitened(SafeSequence):
    """Pieces of photographs, with all frequencies at the same strength."""

    def __init__(self, pieces):
        super().__init__()
        self.pieces = pieces

    def __len__(self):
        return len(self.pieces) // BATCH

    def __getitem__(self, index):
        batch = self.empty((BATCH, SIDE, SIDE, 3), np.float32)
        for row, piece in enumerate(self.pieces[BATCH * index : BATCH * (index + 1)]):
            spectrum = np.fft.rfft2(piece, axes=(0, 1))
            spectrum /= np.abs(spectrum) + 1
            batch[row] = np.fft.irfft2(spectrum, axes=(0, 1))
        return batch


photographs = load_sample_images().images
corners = [(y, x) for y in range(0, 427 - SIDE, 16) for x in range(0, 640 - SIDE, 32)]
pieces = np.stack([image[y : y + SIDE, x : x + SIDE] for image in photographs for y, x in corners])
sequence = Whitened(pieces)

begin = time.perf_counter()
plain = [sequence[index] for index in range(len(sequence))]
plain_s = time.perf_counter() - begin

with Loader(sequence, workers=2) as loader:
    for batch, expected in zip(loader, plain, strict=True):
        np.testing.assert_array_equal(batch, expected, strict=True)

    begin = time.perf_counter()
    batches = sum(1 for batch in loader)
    workers_s = time.perf_counter() - begin
    stats = loader.stats()

assert stats.bytes_shared == pieces.nbytes
assert stats.bytes_pickled < 10_000
print(f"{batches} batches, the same as in a plain loop")
print(f"{stats.bytes_shared:,} bytes shared, {stats.bytes_pickled:,} bytes pickled")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

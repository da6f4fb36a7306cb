"""Arrays through queues: batches of arrays that several processes augment.

By hand:
    Processes put batches into a queue, and a `None` when they have no more.

        order = np.random.permutation(len(x))
        queue = multiprocessing.Queue(10)
        for part in np.array_split(order, 2):
            Process(target=produce, args=(queue, x, y, part)).start()
        while ended < 2:
            batch = queue.get()
            ended += batch is None

How it fails:
    A process that is killed, for want of memory say, never puts its `None`, and `queue.get()` waits for ever.
    Joining a process before its queue is empty waits for ever too.
    Forked processes have the state of `np.random` as it was after `permutation`, so that they draw the same numbers.
    Each batch is pickled, written to a pipe and unpickled, and batches come in an order that depends on the run.

With keras_mpseq:
    A class says what batch `index` is. `Loader` has the processes, shared memory in the place of the queue, and an
    error that names the batch when a process is lost. `self.rng(index)` belongs to the batch, not to a process.
"""

import time

import numpy as np
from sklearn.datasets import load_digits

from keras_mpseq import Loader, SafeSequence


def rotated(image, angle):
    """Return *image*, 8 by 8 pixels, enlarged to 96 by 96 and rotated, with bilinear interpolation."""
    y, x = (np.mgrid[:96, :96] - 47.5) / 12
    row = np.clip(np.cos(angle) * y - np.sin(angle) * x + 3.5, 0, 6.999)
    column = np.clip(np.sin(angle) * y + np.cos(angle) * x + 3.5, 0, 6.999)
    top, left = row.astype(int), column.astype(int)
    down, right = row - top, column - left
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)


class Rotated(SafeSequence):
    """Digits in batches of 64, each rotated by an angle of its own."""

    def __init__(self, images, labels):
        super().__init__(seed=7)
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images) // 64

    def __getitem__(self, index):
        rng = self.rng(index)
        part = slice(64 * index, 64 * (index + 1))
        x = np.stack([rotated(image, rng.uniform(-0.5, 0.5)) for image in self.images[part]])
        return x, self.labels[part]


digits = load_digits()
sequence = Rotated(digits.images, digits.target)

begin = time.perf_counter()
plain = [sequence[index] for index in range(len(sequence))]
plain_s = time.perf_counter() - begin

with Loader(sequence, workers=2) as loader:
    for (x, y), (plain_x, plain_y) in zip(loader, plain, strict=True):
        np.testing.assert_array_equal(x, plain_x, strict=True)
        np.testing.assert_array_equal(y, plain_y, strict=True)

    begin = time.perf_counter()
    batches = sum(1 for batch in loader)  # The next epoch, with other angles.
    workers_s = time.perf_counter() - begin

print(f"{batches} batches, the same as in a plain loop")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

"""Variable-size samples with padding: images of different size in one batch.

By hand:
    Images are decoded and stacked, in processes of Keras.

        class Images(keras.utils.PyDataset):
            def __getitem__(self, index):
                images = [decoded(path) for path in self.paths[16 * index : 16 * (index + 1)]]
                height, width = max(i.shape[0] for i in images), max(i.shape[1] for i in images)
                return np.stack([padded(image, height, width) for image in images])

How it fails:
    Without `padded`, `np.stack` says "all input arrays must have the same shape". With it each batch is right, and
    Keras takes the shape from the first two batches: when they are of one size, the third ends training with
    "`generator` yielded an element of shape (16, 201, 224, 3) where an element of shape (None, 224, 224, 3) was
    expected". So one pads to the largest image of all, and computes on zeros.

With keras_mpseq:
    `BatchedSequence(..., pad=True)` pads to the largest of the batch, and writes each image straight to its place in
    shared memory. `element_spec` tells TensorFlow which dimensions vary.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from keras_mpseq import BatchedSequence, to_dataset


def edges(sample, _rng):
    """Return how steep an image is at each pixel, and its label."""
    path, label = sample
    with Image.open(path) as image:
        dy, dx = np.gradient(np.asarray(image, np.float32), axis=(0, 1))
    return np.hypot(dy, dx), label


with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(1)
    photographs = load_sample_images().images
    paths, labels = [], rng.integers(len(photographs), size=320)
    for number, label in enumerate(labels):
        height, width = rng.integers(64, 225, size=2)
        y, x = rng.integers(427 - height), rng.integers(640 - width)
        paths.append(Path(folder) / f"{number}.png")
        Image.fromarray(photographs[label][y : y + height, x : x + width]).save(paths[-1], compress_level=1)

    # A plain loop.
    begin = time.perf_counter()
    plain = []
    for first in range(0, len(paths), 16):
        images = [edges(sample, None)[0] for sample in zip(paths[first : first + 16], labels[first:], strict=False)]
        height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
        batch = np.zeros((16, height, width, 3), np.float32)
        for row, image in enumerate(images):
            batch[row, : image.shape[0], : image.shape[1]] = image
        plain.append(batch)
    plain_s = time.perf_counter() - begin

    sequence = BatchedSequence((paths, labels), 16, transform=edges, pad=(0, False))
    spec = tf.TensorSpec((None, None, None, 3), tf.float32), tf.TensorSpec((None,), tf.int64)
    dataset = to_dataset(sequence, workers=2, element_spec=spec)
    for number, ((x, y), expected) in enumerate(zip(dataset, plain, strict=True)):
        np.testing.assert_array_equal(x, expected, strict=True)
        np.testing.assert_array_equal(y, labels[16 * number : 16 * (number + 1)], strict=True)

    begin = time.perf_counter()
    shapes = [x.shape for x, y in dataset]
    workers_s = time.perf_counter() - begin

print(f"{len(shapes)} batches, the same as in a plain loop, such as {shapes[0]} and {shapes[1]}")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

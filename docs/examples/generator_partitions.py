"""`from_generator` with partitions: one generator for each file, run by several processes.

By hand:
    `interleave` runs a `from_generator` for each file, four at a time.

        def one_file(name):
            return tf.data.Dataset.from_generator(read, args=(name,), output_signature=...)

        dataset = tf.data.Dataset.from_tensor_slices(names).interleave(one_file, num_parallel_calls=4)

How it fails:
    All generators run in the training process, under one GIL: with generators that compute in Python, four take as long
    as one. What they cost comes out of the training loop's own Python. `read` gets its file's name as `bytes`, its
    errors are of TensorFlow and do not say from which file they are, and a generator of an iteration that is given up
    stays open until the dataset's iterator is collected.

With keras_mpseq:
    `generator_dataset` calls the generator function in the workers, each partition in one of them. The partitions take
    turns, so that the order is the same for any number of workers. Errors name the partition and the element.
"""

import csv
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from keras_mpseq import generator_dataset


def read(path):
    """Yield the image and the label of each line of a CSV file: 64 pixels and a digit."""
    with open(path, newline="") as file:
        for row in csv.reader(file):
            *pixels, label = map(int, row)
            yield np.array(enlarged(pixels), np.float32), np.int64(label)


def enlarged(pixels):
    """Return 113 by 113 pixels for 8 by 8: four times, means are put between neighbours. In plain Python."""
    rows = [pixels[8 * y : 8 * (y + 1)] for y in range(8)]
    for _ in range(8):  # Rows and columns in turn.
        rows = [between(column) for column in zip(*rows, strict=True)]
    return rows


def between(values):
    """Return *values*, and the mean of each two neighbours between them."""
    means = [(a + b) / 2 for a, b in itertools.pairwise(values)] + [0]
    return [value for pair in zip(values, means, strict=True) for value in pair][:-1]


with tempfile.TemporaryDirectory() as folder:
    digits = load_digits()
    table = np.column_stack([digits.data, digits.target]).astype(int)
    paths = []
    for number, part in enumerate(np.array_split(table[:300], 6)):
        paths.append(str(Path(folder) / f"part-{number}.csv"))
        np.savetxt(paths[-1], part, "%d", ",")

    # A plain loop: an element of each file in turn.
    begin = time.perf_counter()
    turns = itertools.zip_longest(*map(read, paths))
    plain = [element for turn in turns for element in turn if element is not None]
    plain_s = time.perf_counter() - begin

    dataset = generator_dataset(read, paths, workers=2)
    for (image, label), (plain_image, plain_label) in zip(dataset, plain, strict=True):
        np.testing.assert_array_equal(image, plain_image, strict=True)
        assert label == plain_label

    begin = time.perf_counter()
    count = sum(len(labels) for images, labels in dataset.batch(64))
    workers_s = time.perf_counter() - begin

assert count == len(plain)
print(f"{count} elements of {len(paths)} files, the same as in a plain loop")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

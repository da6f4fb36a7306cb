"""Dictionaries of images and labels, without serialising them.

By hand:
    A pool of processes returns dictionaries, which go into `from_generator`; or each dictionary is packed into a
    `tf.train.Example` on one side and parsed on the other.

        def build(index):
            return {"image": decode(paths[index]), "label": labels[index]}

        pool = multiprocessing.Pool(2)
        dataset = tf.data.Dataset.from_generator(lambda: pool.imap(build, range(len(paths))), output_signature=...)

How it fails:
    Every image is pickled in the worker, written to a pipe in pieces, read and unpickled in the training process: under
    its GIL, and by one thread, so that more workers do not help once that thread is busy. `tf.train.Example` copies
    the image into a protocol buffer and out of it again instead. `imap` reads its input without end ahead of what is
    taken, and waits for ever when a worker is killed.

With keras_mpseq:
    Batches are trees of dictionaries, tuples and arrays. The workers write each array into shared memory, where
    `BatchedSequence` builds it, and the tensors of `to_dataset` lie right there. Through a pipe go shapes and places.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from keras_mpseq import BatchedSequence, to_dataset


def decoded(sample, _rng):
    """Return what belongs into the batch for a file and its labels."""
    with Image.open(sample["file"]) as image:
        pixels = np.asarray(image, np.float32) / 255
        thumbnail = np.asarray(image.resize((56, 56), Image.Resampling.LANCZOS))
    return {"image": pixels, "thumbnail": thumbnail, "labels": sample["labels"]}


with tempfile.TemporaryDirectory() as folder:
    # Pieces of two photographs as JPEG files, each with the photograph and the corner that it is from.
    files, labels = [], []
    for number, photograph in enumerate(load_sample_images().images):
        for y in range(0, 427 - 224, 16):
            for x in range(0, 640 - 224, 32):
                files.append(Path(folder) / f"{number}-{y}-{x}.jpg")
                labels.append({"photograph": number, "corner": np.array([y, x])})
                Image.fromarray(photograph[y : y + 224, x : x + 224]).save(files[-1])
    columns = {key: np.array([label[key] for label in labels]) for key in ("photograph", "corner")}
    pairs = [{"file": file, "labels": label} for file, label in zip(files, labels, strict=True)]
    sequence = BatchedSequence({"file": files, "labels": columns}, 16, transform=decoded)

    # A plain loop.
    begin = time.perf_counter()
    plain = []
    for first in range(0, len(files), 16):
        samples = [decoded(sample, None) for sample in pairs[first : first + 16]]
        plain.append(tf.nest.map_structure(lambda *leaves: np.stack(leaves), *samples))
    plain_s = time.perf_counter() - begin

    dataset = to_dataset(sequence, workers=2)
    for batch, expected in zip(dataset, plain, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)

    begin = time.perf_counter()
    batches = sum(1 for batch in dataset)
    workers_s = time.perf_counter() - begin

print(f"{batches} batches of {', '.join(dataset.element_spec)}, the same as in a plain loop")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

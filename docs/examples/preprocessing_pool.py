"""A process pool for expensive preprocessing in front of tf.data, with failures tolerated.

By hand:
    A pool prepares the samples, and a generator hands them to tf.data.

        pool = multiprocessing.Pool(2)
        dataset = tf.data.Dataset.from_generator(lambda: pool.imap(prepare, paths), output_signature=...)
        dataset = dataset.shuffle(1000).batch(32)

How it fails:
    The first file that cannot be decoded raises out of `imap`, and the epoch is over. A worker that is killed is
    worse: `imap` waits for its result for ever, and with `ProcessPoolExecutor` all that follows is
    `BrokenProcessPool`. `imap` reads its input as fast as it can, whatever is taken, so that an endless input fills
    the memory; so do results when training is slower than the pool. The pool forks a process in which TensorFlow runs
    threads, which can hang.

With keras_mpseq:
    `process_map` is `Dataset.map` in processes, anywhere in a pipeline. `on_error="skip"` leaves out what raises, and
    logs it after the pass. A worker that is killed is replaced, and its element is built again.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images

from keras_mpseq import process_map

logging.basicConfig(stream=sys.stdout, format="%(message)s")


def prepared(path):
    """Return the image without specks, and its colours spread over the whole range."""
    with Image.open(path.decode()) as image:
        pixels = np.asarray(image.filter(ImageFilter.MedianFilter(3)))
    spread = np.empty(pixels.shape, np.float32)
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        spread[..., channel] = (np.cumsum(counts) / pixels[..., 0].size).astype(np.float32)[pixels[..., channel]]
    return spread


with tempfile.TemporaryDirectory() as folder:
    files = []
    for number, photograph in enumerate(load_sample_images().images):
        for y in range(0, 427 - 224, 32):
            for x in range(0, 640 - 224, 64):
                files.append(str(Path(folder) / f"{number}-{y}-{x}.jpg"))
                Image.fromarray(photograph[y : y + 224, x : x + 224]).save(files[-1])
    for broken in (files[3], files[40], files[77]):  # As a full disk or a download that stopped leaves them.
        Path(broken).write_bytes(Path(broken).read_bytes()[:2000])

    # A plain loop.
    begin = time.perf_counter()
    plain = []
    for file in files:
        try:
            plain.append(prepared(file.encode()))
        except OSError:
            continue
    plain_s = time.perf_counter() - begin
    assert len(plain) == len(files) - 3

    dataset = tf.data.Dataset.from_tensor_slices(files)
    images = process_map(dataset, prepared, workers=2, on_error="skip")
    for image, expected in zip(images, plain, strict=True):
        np.testing.assert_array_equal(image, expected, strict=True)

    begin = time.perf_counter()
    count = sum(len(batch) for batch in images.batch(32))
    workers_s = time.perf_counter() - begin

assert count == len(plain)
print(f"{count} images of {len(files)} files, the same as in a plain loop")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

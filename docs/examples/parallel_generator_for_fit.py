"""Parallel generator for `fit`: training while other processes augment.

By hand:
    A generator without end goes to `fit`, with workers.

        def batches():
            while True:
                index = np.random.randint(len(x) // 32)
                yield augmented(x[32 * index : 32 * (index + 1)]), y[32 * index : 32 * (index + 1)]

        model.fit(batches(), steps_per_epoch=len(x) // 32, workers=2, use_multiprocessing=True)

How it fails:
    In Keras 3 `fit` has no `workers` ("unexpected keyword argument"); without it one thread runs the generator, and
    shares the GIL with training. In Keras 2 each process runs a copy of the whole generator: one that goes through the
    data in order gives every batch twice, and of one that draws the forks draw the same numbers. With threads instead,
    the generator is found "already executing", or is run by one of them at a time.

With keras_mpseq:
    What the generator yields becomes `__getitem__` of a `SafeSequence`, which `fit` takes as it is, with
    `workers=2` processes. `PipelineMonitor` says how long training waited for data.
"""

import time

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_mpseq import PipelineMonitor, SafeSequence

tf.config.experimental.enable_op_determinism()  # The same sums in the same order, so that weights can be compared.


class Bent(SafeSequence):
    """Batches of 32 digits, each bent by waves of its own."""

    def __init__(self, images, labels, **kwargs):
        super().__init__(**kwargs)
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images) // 32

    def __getitem__(self, index):
        rng = self.rng(index)
        part = slice(32 * index, 32 * (index + 1))
        return np.stack([bent(image, rng) for image in self.images[part]]), self.labels[part]


def bent(image, rng):
    """Return *image*, 8 by 8 pixels, enlarged to 32 by 32, its rows and columns moved by random waves."""
    y, x = np.mgrid[:32, :32] / 4
    for _ in range(6):
        height, pitch, phase = rng.uniform(-0.15, 0.15), rng.uniform(0.3, 1.5), rng.uniform(0, 2 * np.pi)
        y, x = y + height * np.sin(pitch * x + phase), x + height * np.sin(pitch * y + phase)
    y, x = (np.clip(np.rint(axis), 0, 7).astype(int) for axis in (y, x))
    return image[y, x].astype(np.float32)[..., np.newaxis] / 16


def generator(sequence):
    """Yield the batches one after the other, in this process: the plain loop."""
    for index in range(len(sequence)):
        yield sequence[index]


def trained(data, steps, **options):
    """Return the seconds of so many steps, and the weights after them; each time from the same weights."""
    model.set_weights(weights)
    begin = time.perf_counter()
    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, **options)
    return time.perf_counter() - begin, model.get_weights()


layers = [keras.Input((32, 32, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
model = keras.Sequential(layers)
model.compile("sgd", "sparse_categorical_crossentropy")
weights = model.get_weights()

digits = load_digits()
sequence = Bent(digits.images, digits.target, workers=2)
trained(generator(sequence), steps=1)  # TensorFlow compiles the model.

plain_s, plain_weights = trained(generator(sequence), len(sequence))
workers_s, workers_weights = trained(sequence, len(sequence), callbacks=[PipelineMonitor()])
for ours, plain in zip(workers_weights, plain_weights, strict=True):
    np.testing.assert_array_equal(ours, plain, strict=True)

print("the same weights as from a generator in this process")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers and their start against a plain generator")

"""Audio spectrograms: WAV files of different length, read and transformed by several processes.

By hand:
    A function of NumPy in `Dataset.map`, with as many parallel calls as TensorFlow likes.

        dataset = tf.data.Dataset.from_tensor_slices(files)
        dataset = dataset.map(
            lambda file: tf.numpy_function(spectrogram, [file], tf.float32), num_parallel_calls=tf.data.AUTOTUNE
        )
        dataset = dataset.padded_batch(8)

How it fails:
    `padded_batch` refuses, because `numpy_function` has lost the shape; `ensure_shape` has to give it back.
    The calls are threads of this process. They hold the GIL, except where NumPy lets go of it, and what they hold it
    for is taken from the training loop as well.

With keras_mpseq:
    `process_map` takes the place of `map`, and the function is NumPy as it was. `element_spec` says that the first
    dimension varies; without it shape and dtype are those of the first element.
"""

import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_mpseq import process_map

RATE, WINDOW, HOP = 16_000, 1024, 64
BANDS = np.unique(np.geomspace(8, WINDOW // 2, 49).astype(int))  # First frequency of each band.


def spectrogram(path):
    """Return the logarithm of the energy in each band, each 4 ms, for a file of one channel and 16 bits."""
    with wave.open(path.decode()) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32768)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * np.hanning(WINDOW)
    energy = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(np.add.reduceat(energy, BANDS, axis=1) + 1e-6).astype(np.float32)


def write_bird(path, rng):
    """Write two to four seconds of whistling, each note of which rises or falls."""
    notes = []
    for _ in range(rng.integers(10, 21)):
        time_s = np.arange(0.2 * RATE) / RATE
        pitch = rng.uniform(1500, 4000) + rng.uniform(-5000, 5000) * time_s
        notes.append(np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.hanning(len(time_s)))
    samples = np.concatenate(notes) + rng.normal(0, 0.01, sum(map(len, notes)))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 20_000).astype("<i2").tobytes())


with tempfile.TemporaryDirectory() as folder:
    files = [str(Path(folder) / f"{number}.wav") for number in range(96)]
    for number, file in enumerate(files):
        write_bird(file, np.random.default_rng(number))

    begin = time.perf_counter()
    plain = [spectrogram(file.encode()) for file in files]
    plain_s = time.perf_counter() - begin

    dataset = tf.data.Dataset.from_tensor_slices(files)
    spec = tf.TensorSpec((None, len(BANDS)), tf.float32)
    spectrograms = process_map(dataset, spectrogram, workers=2, element_spec=spec)
    for ours, expected in zip(spectrograms, plain, strict=True):
        np.testing.assert_array_equal(ours, expected, strict=True)

    begin = time.perf_counter()
    shapes = [batch.shape for batch in spectrograms.padded_batch(8)]
    workers_s = time.perf_counter() - begin

print(f"{len(files)} spectrograms, the same as in a plain loop; batches such as {shapes[0]} and {shapes[1]}")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

"""Encoded images that workers decode: crops of scikit-learn's photographs, held in memory as files would be read.

Both participants call the same function for a sample, and make batches of 64 with labels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bench.workloads import WORKERS

BATCH = 64
_DISTINCT = 256
"""Images that differ; they come again and again."""
_SIZES = {"jpeg": 224, "png": 32}
Sample = tuple[NDArray[np.float32], int]


class Encoded:
    """Samples (image, label) by index, as torch takes a data set."""

    def __init__(self, workload: str, batches: int) -> None:
        distinct = encoded(workload)
        self.files = [distinct[number % _DISTINCT] for number in range(BATCH * batches)]
        self.labels = np.arange(BATCH * batches)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        return decoded((self.files[index], self.labels[index]))


def encoded(workload: str) -> list[bytes]:
    """Return crops of the photographs, as JPEG or PNG."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    size, rng = _SIZES[workload], np.random.default_rng(0)
    files = []
    for number in range(_DISTINCT):
        photograph = photographs[number % len(photographs)]
        top, left = (int(rng.integers(0, length - size)) for length in photograph.shape[:2])
        file = io.BytesIO()
        Image.fromarray(photograph[top : top + size, left : left + size]).save(file, workload.upper())
        files.append(file.getvalue())
    return files


def decoded(sample: tuple[bytes, int], rng: object = None) -> Sample:
    """Return one image as float32 from 0 to 1, and its label."""
    file, label = sample
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image).astype(np.float32) / np.float32(255), label


@contextmanager
def batched(samples: Encoded) -> Iterator[Any]:
    """BatchedSequence, as tensors of TensorFlow."""
    from keras_mpseq import BatchedSequence, to_dataset

    sequence = BatchedSequence((samples.files, samples.labels), BATCH, transform=decoded)
    yield to_dataset(sequence, workers=WORKERS)


@contextmanager
def torch_samples(samples: Encoded) -> Iterator[Any]:
    """A DataLoader that collates samples, as tensors of torch."""
    from torch.utils.data import DataLoader

    yield DataLoader(samples, batch_size=BATCH, num_workers=WORKERS)  # type: ignore[arg-type]


DECODING = {"batched": batched, "torch-samples": torch_samples}

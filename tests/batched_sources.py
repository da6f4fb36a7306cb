"""Transforms and sources that tests of BatchedSequence use in workers. Imports NumPy and keras_mpseq only."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import BatchedSequence
from tests.sequences import address, place_in_memory_file

BAD = (3, 7, 8)
"""Samples that `pair_or_error` cannot read."""


def noisy(sample: Any, rng: np.random.Generator) -> Any:
    """Return rows (x, y) as a structure of several kinds of leaves, with noise."""
    x, y = sample
    return {"x": x + rng.normal(size=x.shape), "y": (np.int32(y), f"no. {int(y)}"), "draw": rng.integers(1 << 40)}


def draw(sample: Any, rng: np.random.Generator) -> Any:
    """Return the sample beside a number drawn for it."""
    return sample, rng.integers(1 << 60)


def of_file(path: str | Path, rng: np.random.Generator) -> Any:
    """Return what the file holds, and the type of the path."""
    return np.load(path), type(path).__name__.removeprefix("Posix")


def decoded(sample: Any, rng: np.random.Generator) -> Any:
    """Return the image of (path or bytes, label)."""
    from PIL import Image

    image, label = sample
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
        return np.asarray(opened), label


def of_row(sample: dict[str, Any], rng: np.random.Generator) -> Any:
    """Return (x, y) of a row of a DataFrame."""
    return np.array([sample["a"], sample["b"]]), sample["name"] == "one"


def as_list(sample: Any, rng: np.random.Generator) -> Any:
    """Return an array as a list, of which the empty one has no dtype."""
    return sample.tolist()


def pair_or_error(sample: Any, rng: np.random.Generator) -> Any:
    """Raise for some samples."""
    x, y = sample
    if y in BAD:
        raise ValueError(f"y is {y}.")
    return x, y


def always_wrong(sample: Any, rng: np.random.Generator) -> Any:
    """Raise for all."""
    raise OSError("no such sample")


def in_place(sample: Any, rng: np.random.Generator) -> Any:
    """Write to the source."""
    sample -= 1
    return sample


def modules(sample: Any, rng: np.random.Generator) -> Any:
    """Return what the worker has imported."""
    return " ".join(sorted(sys.modules))


def pid(sample: Any, rng: np.random.Generator) -> Any:
    """Return the worker."""
    return os.getpid()


class Squares:
    """An indexable of samples that is no list."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return {"root": np.float32(index), "square": np.full((2, 2), index * index)}


class Structured:
    """Samples of which one differs."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return self.other if index == 4 else {"a": np.zeros((2, 3), np.float32), "b": 1}


class Given:
    """These samples, and no list of them."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


class Placed(BatchedSequence):
    """Batches (x, y), and where they lay in the worker: (inode, offset) of a memory file."""

    def __getitem__(self, index: int) -> Any:
        batch = super().__getitem__(index)
        return *batch, np.array([place_in_memory_file(address(leaf)) or (0, 0) for leaf in batch])


def scaled(sample: Any, rng: np.random.Generator) -> Any:
    """Return (x, y) with x in another dtype."""
    return sample[0].astype(np.float32), sample[1]

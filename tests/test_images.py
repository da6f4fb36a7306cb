"""Keras's image iterators, `ImageDataGenerator().flow(...)` and its like, in several processes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from PIL import Image

import keras_mpseq
from keras_mpseq import Loader, to_dataset

GENERATOR = ImageDataGenerator(channel_shift_range=20, horizontal_flip=True, rescale=1 / 255)


def in_memory(seed: int | None) -> Any:
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3)).astype(np.float32)
    return GENERATOR.flow(images, np.arange(20), batch_size=3, seed=seed)


def in_files(folder: Path, seed: int | None) -> Any:
    for number in range(20):
        (folder / f"{number % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 5 * number, 255 - number)).save(folder / f"{number % 2}" / f"{number}.png")
    return GENERATOR.flow_from_directory(folder, target_size=(8, 8), batch_size=3, seed=seed)


@pytest.mark.parametrize(("kind", "seed"), [("memory", None), ("files", 7)])
def test_the_same_batches_for_any_number_of_workers(kind: str, seed: int | None, tmp_path: Path) -> None:
    runs = []
    for workers in (0, 2):
        np.random.seed(1 if seed is None else random.randrange(1000))  # With a seed of its own it needs no other.
        flow = in_memory(seed) if kind == "memory" else in_files(tmp_path, seed)
        with Loader(flow, workers=workers) as loader:
            runs.append([[part.tobytes() for batch in loader for part in batch] for _ in range(2)])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]


def test_every_image_once_an_epoch_and_shuffled() -> None:
    dataset = to_dataset(in_memory(3), workers=2)
    epochs = [[int(label) for _, labels in dataset for label in labels] for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [[*range(20)]] * 3
    assert len({tuple(epoch) for epoch in [*epochs, sorted(epochs[0])]}) == 4


def test_in_fit_the_seed_of_the_iterator_decides_whatever_numpy_draws() -> None:
    losses = []
    for ambient in (1, 2):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        np.random.seed(ambient)
        history = keras_mpseq.fit(model, in_memory(5), workers=2, shuffle=False, epochs=3, verbose=0)
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]

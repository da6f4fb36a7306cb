"""A Sequence of tf.keras, as tutorials have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


class DataGenerator(tf.keras.utils.Sequence):
    def __init__(
        self, list_ids: list[str], labels: dict[str, int], folder: str, batch_size: int = 2, n_classes: int = 3
    ) -> None:
        super().__init__()
        self.list_ids = list_ids
        self.labels = labels
        self.folder = folder
        self.batch_size = batch_size
        self.n_classes = n_classes
        self.indexes = np.arange(len(list_ids))
        self.passes = 0

    def __len__(self) -> int:
        return int(np.floor(len(self.list_ids) / self.batch_size))

    def __getitem__(self, index: int) -> Any:
        indexes = self.indexes[index * self.batch_size : (index + 1) * self.batch_size]
        ids = [self.list_ids[k] for k in indexes]
        x, y = self.__data_generation(ids)
        return x, y

    def on_epoch_end(self) -> None:
        self.passes += 1
        self.indexes = np.random.RandomState(self.passes).permutation(len(self.list_ids))

    def __data_generation(self, ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
        x = np.empty((self.batch_size, 4, 2), np.float32)
        y = np.empty(self.batch_size, dtype=int)
        for i, name in enumerate(ids):
            x[i] = np.load(f"{self.folder}/{name}.npy")
            y[i] = self.labels[name]
        return x, tf.keras.utils.to_categorical(y, num_classes=self.n_classes)


def make(folder: Path) -> DataGenerator:
    names = [f"id{number}" for number in range(8)]
    for number, name in enumerate(names):
        np.save(folder / f"{name}.npy", np.full((4, 2), number, np.float32))
    return DataGenerator(names, {name: number % 3 for number, name in enumerate(names)}, str(folder))

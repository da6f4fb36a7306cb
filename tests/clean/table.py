"""A table from a CSV file, shuffled anew in each epoch by a seed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence


class Table(SafeSequence):
    """Standardised columns and weights that make all classes equal."""

    def __init__(self, path: str, target: str, batch_size: int = 4, shuffle: bool = True, seed: int = 5) -> None:
        super().__init__(seed=seed)
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in rows[0] if name != target]
        self.columns = np.array([[float(row[name]) for name in names] for row in rows], np.float32)
        self.columns -= self.columns.mean(axis=0)
        self.columns /= self.columns.std(axis=0) + 1e-6
        self.targets = np.array([int(row[target]) for row in rows])
        counts = np.bincount(self.targets)
        self.weights = (len(rows) / (len(counts) * counts))[self.targets].astype(np.float32)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.order = np.arange(len(rows))

    def on_epoch_begin(self) -> None:
        if self.shuffle:
            self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.columns))

    def __len__(self) -> int:
        return len(self.columns) // self.batch_size

    def __getitem__(self, index: int) -> Any:
        if index < 0:
            index += len(self)
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.columns[rows], self.targets[rows], self.weights[rows]


def make(folder: Path) -> Table:
    path = folder / "table.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "height", "kind"])
        writer.writerows([20 + k, 150 + (37 * k) % 40, k % 2] for k in range(24))
    return Table(str(path), "kind")

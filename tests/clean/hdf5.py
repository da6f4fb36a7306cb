"""Rows of an HDF5 file, which is opened for each batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keras_mpseq import SafeSequence


class Hdf5Rows(SafeSequence):
    def __init__(self, path: str, keys: tuple[str, str] = ("x", "y"), batch_size: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.keys = keys
        self.batch_size = batch_size
        with h5py.File(path, "r") as file:
            self.count = int(file[keys[0]].shape[0])
            self.mean = float(np.mean(file[keys[0]]))

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __getitem__(self, index: int) -> Any:
        first = index * self.batch_size
        rows = slice(first, first + self.batch_size)
        with h5py.File(self.path, "r") as file:
            x, y = (file[key][rows] for key in self.keys)
        x = x - self.mean
        if self.rng(index).random() < 0.5:
            x = x[:, ::-1]
        return x, y


def make(folder: Path) -> Hdf5Rows:
    path = folder / "rows.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(96, dtype=np.float32).reshape(24, 4)
        file["y"] = np.arange(24)
    return Hdf5Rows(str(path))

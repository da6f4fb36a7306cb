# ruff: noqa
"""SEQ301: open array files."""

import h5py
import keras
import keras_mpseq
import xarray as xr
from opener import Opener


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Direct(Base):
    def __init__(self, path):
        super().__init__([])
        self.h = h5py.File(path, "r")  # error: SEQ301
        self.images = self.h["images"]  # error: SEQ301
        self.labels = self.h["labels"][:]  # safe

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class Several(Base):
    def __init__(self, paths):
        super().__init__([])
        self.files = [opened(path) for path in paths]  # error: SEQ301
        self.sets = {}
        for path in paths:
            self.sets[path] = xr.open_dataset(path)  # error: SEQ301

    def __getitem__(self, index):
        return self.files[index]["x"][0]


def opened(path):
    return h5py.File(path, "r")


class FromBase(Opener):
    def __getitem__(self, index):
        return self.handle["x"][index]


class PerCall(Base):
    def __init__(self, path):
        super().__init__([])
        self.path = path
        with h5py.File(path) as h:
            self.n = len(h["x"])  # safe
            self.y = h["y"][:]  # safe

    def __getitem__(self, index):
        with h5py.File(self.path) as h:  # safe
            return h["x"][index], self.y[index]


class Own(keras_mpseq.SafeSequence):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 8

    @keras_mpseq.per_worker
    def h(self):
        return h5py.File(self.path)  # safe

    def on_worker_start(self, worker):
        self.other = h5py.File(self.path)  # safe

    def __getitem__(self, index):
        return self.h["x"][index] + self.other["x"][index]


# file: opener.py
import h5py
import keras


class Opener(keras.utils.PyDataset):
    def __init__(self, path):
        super().__init__()
        self.handle = h5py.File(path)  # error: SEQ301

    def __len__(self):
        return 8

# ruff: noqa
"""SEQ210: caches of each process."""

import functools

import h5py
import keras
import numpy as np


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Keyed(Base):
    def __init__(self, x):
        super().__init__(x)
        self.cache = {}
        self.mean = None
        self.name = None
        self.handle = None

    def __getitem__(self, index):
        if self.mean is None:
            self.mean = self.x.mean()  # error: SEQ210
        return self.load(index) - self.mean + self.by_name(index) + self.get(index)

    def load(self, index):
        if index in self.cache:
            return self.cache[index]
        self.cache[index] = self.x[index] * 2  # error: SEQ210
        return self.cache[index]

    def by_name(self, index):
        name = index // 4
        if self.name != name:
            self.rows = self.x[name]  # error: SEQ210
            self.name = name  # error: SEQ210
        return self.rows

    def get(self, index):
        try:
            return self.cache[index]
        except KeyError:
            self.cache[index] = np.sqrt(self.x[index])  # error: SEQ210
        return self.cache.setdefault(index, 3)  # error: SEQ210


class Lazy(Base):
    def __init__(self, x, path):
        super().__init__(x)
        self.path = path
        self.handle = None

    def __getitem__(self, index):
        if self.handle is None:
            self.handle = h5py.File(self.path)  # safe
        return self.handle["x"][index]


class Functions(Base):
    def __getitem__(self, index):
        return table(3)[index]


@functools.lru_cache(maxsize=None)
def table(n):  # error: SEQ210
    return np.arange(n)


class Random(Base):
    def __init__(self, x):
        super().__init__(x)
        self.order = None

    def __getitem__(self, index):
        if self.order is None:
            self.order = np.random.permutation(8)  # error: SEQ205, SEQ401
        return self.x[self.order[index]]

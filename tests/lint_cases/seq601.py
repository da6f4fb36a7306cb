# ruff: noqa
"""SEQ601: members that are heavy to carry."""

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


class Mapped(Base):
    def __init__(self, path):
        super().__init__([])
        self.a = np.memmap(path)  # error: SEQ601
        self.b = np.load(path, mmap_mode="r")  # error: SEQ601
        self.c = [0] * 10**8  # error: SEQ601
        self.d = np.load(path)  # safe
        self.e = [0] * 10  # safe

    def __getitem__(self, index):
        return self.a[index] + self.b[index]


class PerCall(Base):
    def __init__(self, path):
        super().__init__([])
        self.path = path

    def __getitem__(self, index):
        return np.load(self.path, mmap_mode="r")[index].copy()  # safe

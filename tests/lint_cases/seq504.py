# ruff: noqa
"""SEQ504: batches that overlap."""

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


class Overlapping(Base):
    batch_size = 8

    def __getitem__(self, index):
        return self.x[index : index + self.batch_size]  # error: SEQ504


class ByHelper(Base):
    def __init__(self, x, batch_size):
        super().__init__(x)
        self.batch_size = batch_size

    def __getitem__(self, index):
        return self.rows(index)

    def rows(self, start):
        return self.x[start : start + self.batch_size]  # error: SEQ504


class Rows(Base):
    def __init__(self, x, n):
        super().__init__(x)
        self.n = n

    def __len__(self):
        return len(self.x) // self.n

    def __getitem__(self, index):
        return self.x[index : index + self.n]  # error: SEQ504


class Good(Base):
    batch_size = 8

    def __getitem__(self, index):
        start = index * self.batch_size
        return self.x[start : start + self.batch_size], self.rows(start)  # safe

    def rows(self, start):
        return self.x[start : start + self.batch_size]  # safe


class Window(Base):
    def __init__(self, x, width):
        super().__init__(x)
        self.width = width

    def __len__(self):
        return len(self.x) - self.width

    def __getitem__(self, index):
        return self.x[index : index + self.width], self.x[index : index + 1]  # safe

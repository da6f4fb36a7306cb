# ruff: noqa
"""SEQ209: views of the source."""

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


class View(Base):
    def __getitem__(self, index):
        batch = self.x[2 * index : 2 * index + 2]
        batch /= 255  # error: SEQ209
        return batch


class Out(Base):
    def __getitem__(self, index):
        batch = self.x[2 * index : 2 * index + 2]
        np.clip(batch, 0, 1, out=batch)  # error: SEQ209
        return batch + 1


class Reshaped(Base):
    def __getitem__(self, index):
        batch = np.asarray(self.x[2 * index : 2 * index + 2]).reshape(2, -1)
        batch[:, 0] = 0  # error: SEQ209
        return batch + 1


class Helper(Base):
    def __getitem__(self, index):
        return scaled(self.x[2 * index : 2 * index + 2]) + 1


def scaled(batch):
    batch -= batch.mean()  # error: SEQ209
    return batch


class Copies(Base):
    def __init__(self, x):
        super().__init__(x)
        self.rows = list(x)
        self.table = np.arange(8)

    def __getitem__(self, index):
        batch = self.x[2 * index : 2 * index + 2].copy()
        batch /= 255  # safe
        other = self.x[2 * index : 2 * index + 2] / 255
        other -= 1  # safe
        picked = self.x[self.table[index : index + 2]]
        picked += 1  # safe
        rows = self.rows[0:2]
        rows[0] = 0  # safe
        return batch + other + picked + rows

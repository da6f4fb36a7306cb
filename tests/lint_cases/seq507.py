# ruff: noqa
"""SEQ507: rows that nobody wrote."""

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


class Conditional(Base):
    def __getitem__(self, index):
        out = np.empty((2, 4))  # error: SEQ507
        for k in range(2):
            row = self.x[index + k]
            if row is not None:
                out[k] = row
        return out


class Continued(Base):
    def __getitem__(self, index):
        out = np.empty((2, 4))  # error: SEQ507
        for k in range(2):
            if self.x[index + k] is None:
                continue
            out[k] = self.x[index + k]
        return out, index


class Tried(Base):
    def __getitem__(self, index):
        out = np.empty((2, 4))  # error: SEQ507
        for k in range(2):
            try:
                out[k] = self.x[index + k]
            except KeyError:
                pass
        return out


class Good(Base):
    def __getitem__(self, index):
        out = np.empty((2, 4))  # safe
        zeros = np.zeros((2, 4))  # safe
        for k in range(2):
            row = self.x[index + k]
            if row is None:
                out[k] = 0
            elif k > 1:
                raise ValueError(k)
            else:
                out[k] = row
                zeros[k] = row
        given = np.empty(3)  # safe
        fill(given)
        return out + given, zeros


def fill(x):
    x[:] = 0

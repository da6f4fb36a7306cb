# ruff: noqa
"""SEQ503: lengths that are none."""

import math

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


class Rows(Base):
    def __getitem__(self, index):
        return self.x[index]


class Zero(Rows):
    def __len__(self):
        return 0  # error: SEQ503


class Float(Rows):
    def __len__(self):
        return len(self.x) / 8  # error: SEQ503


class Ceil(Rows):
    def __len__(self):
        return np.ceil(len(self.x) / 8)  # error: SEQ503


class NoReturn(Rows):
    def __len__(self):  # error: SEQ503
        len(self.x)


class NotThere(Rows):
    def __len__(self):
        if not self.x:
            return None  # error: SEQ503
        return len(self.x)


class Empty(Rows):
    def __len__(self):
        if self.x is None:
            return 0  # safe
        return len(self.x)


class Template(keras.utils.PyDataset):
    def __len__(self):
        return 0  # safe

    def __getitem__(self, index):  # safe
        return np.zeros(1)


class Filled(Template):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full(1, index)


class Good(Rows):
    def __len__(self):
        return int(np.ceil(len(self.x) / 8))  # safe


class AlsoGood(Rows):
    def __len__(self):
        return math.ceil(len(self.x) / 8)  # safe


class Floor(Rows):
    def __len__(self):
        return len(self.x) // 8  # safe

# ruff: noqa
"""SEQ408: an index that is not read."""

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


class Ignored(Base):
    def __getitem__(self, index):  # error: SEQ408
        return self.sampler()

    def sampler(self):
        return self.x[0]


class Used(Base):
    def __getitem__(self, index):  # safe
        return self.sampler(index)

    def sampler(self, index):
        return self.x[index]


class Constant(Base):
    def __len__(self):
        return 1

    def __getitem__(self, index):  # safe
        return self.x


class Passed(Used):
    def __getitem__(self, index):  # safe
        return super().__getitem__(index)


class Abstract(keras.utils.PyDataset):
    def __getitem__(self, index):  # safe
        raise NotImplementedError("write it")
        return None


class Dummy(Base):
    def __getitem__(self, index):  # safe
        return self.x, [self.seed, 1]

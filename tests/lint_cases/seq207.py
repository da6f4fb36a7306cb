# ruff: noqa
"""SEQ207: one buffer for all batches."""

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


class Buffer(Base):
    def __init__(self, x):
        super().__init__(x)
        self.buffer = np.zeros((8, 4))

    def __getitem__(self, index):
        self.buffer[0] = self.x[index]  # error: SEQ205
        return self.buffer  # error: SEQ207


class Part(Base):
    def __init__(self, x):
        super().__init__(x)
        self.out = np.zeros((8, 4))

    def __getitem__(self, index):
        rows = np.stack([self.x[index]], out=self.out[:1])  # error: SEQ205
        return rows.reshape(-1), index  # error: SEQ207


class Copied(Base):
    def __init__(self, x):
        super().__init__(x)
        self.source = np.zeros((8, 4))

    def __getitem__(self, index):
        batch = np.zeros((8, 4))
        batch[0] = self.x[index]
        return batch, self.source[index]  # safe

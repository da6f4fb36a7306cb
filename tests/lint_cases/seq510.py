# ruff: noqa
"""SEQ510: an order that no batch sees."""

import random

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


class Unread(Base):
    def __init__(self, x):
        super().__init__(x)
        self.order = np.arange(8)
        self.generator = np.random.default_rng(3)

    def __getitem__(self, index):
        return self.x[index]

    def on_epoch_end(self):
        self.generator.shuffle(self.order)  # error: SEQ510


class Temporary(Base):
    def __getitem__(self, index):
        return self.x[index]

    def on_epoch_end(self):
        random.Random(3).shuffle(list(self.x))  # error: SEQ510
        np.random.default_rng(3).permutation(self.x)  # error: SEQ510


class Read(Base):
    def __init__(self, x):
        super().__init__(x)
        self.order = np.arange(8)
        self.pool = np.arange(8)
        self.generator = np.random.default_rng(3)

    def __getitem__(self, index):
        return self.x[self.at(index)] + self.batches[index]

    def at(self, index):
        return self.order[index]

    def on_epoch_end(self):
        self.generator.shuffle(self.order)  # safe
        self.generator.shuffle(self.pool)  # safe
        self.batches = [self.x[k] for k in self.pool]

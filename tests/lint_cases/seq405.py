# ruff: noqa
"""SEQ405: an order that cannot be had again."""

import random

import keras
import numpy as np
import pandas as pd


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Shuffled(Base):
    def __init__(self, x):
        super().__init__(x)
        self.order = np.arange(8)
        self.names = list(x)
        self.on_epoch_end()

    def __getitem__(self, index):
        return self.x[self.order[index]], self.names[index]

    def on_epoch_end(self):
        np.random.shuffle(self.order)  # error: SEQ405
        random.shuffle(self.names)  # error: SEQ405


class Unseeded(Base):
    def __init__(self, x):
        super().__init__(x)
        self.generator = np.random.default_rng()
        self.table = pd.read_csv("a.csv")

    def __getitem__(self, index):
        return self.x[self.order[index]], self.table.iloc[index]

    def on_epoch_end(self):
        self.order = self.generator.permutation(8)  # error: SEQ405
        self.table = self.table.sample(frac=1)  # error: SEQ405


class Keyed(Base):
    def __init__(self, x):
        super().__init__(x)
        self.epochs = 0
        self.on_epoch_end()

    def __getitem__(self, index):
        return self.x[self.order[index]]

    def on_epoch_end(self):
        self.order = np.random.default_rng((self.seed, self.epochs)).permutation(8)  # safe
        self.epochs += 1

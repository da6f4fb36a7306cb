# ruff: noqa
"""SEQ208: what the training process never sees."""

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


class Seen(Base):
    def __init__(self, x):
        super().__init__(x)
        self.seen = []
        self.last = None

    def __getitem__(self, index):
        self.seen.append(index)  # error: SEQ208
        self.last = index  # error: SEQ208
        return self.x[index]

    def report(self):
        return self.seen, self.last


class Read(Base):
    def __init__(self, x):
        super().__init__(x)
        self.seen = []

    def __getitem__(self, index):
        return self.x[index]

    def on_epoch_end(self):
        self.seen.append(len(self.seen))  # safe

    def report(self):
        return self.seen

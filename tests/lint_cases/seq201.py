# ruff: noqa
"""SEQ201: globals bound anew."""

import keras
import state


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


LAST = 0


def remember(index):
    global LAST
    LAST = index  # error: SEQ201


class Direct(Base):
    def __getitem__(self, index):
        global LAST
        LAST += index  # error: SEQ201
        return self.x[index]


class ByHelper(Base):
    def __getitem__(self, index):
        remember(index)
        return self.x[index]


class OfModule(Base):
    def __getitem__(self, index):
        state.count = index  # error: SEQ201
        return self.x[index]


class Parent(Base):
    def __getitem__(self, index):
        last = index  # safe
        return self.x[last]

    def on_epoch_end(self):
        global LAST
        LAST = 0  # safe


# file: state.py
count = 0

# ruff: noqa
"""SEQ202: containers of a module."""

import types

import keras
from log import LOG


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


SEEN = {}
ORDER = []
CONFIG = types.SimpleNamespace(last=0)
TABLE = {}


def note(target, key):
    target[key] = key  # error: SEQ202


class Direct(Base):
    def __getitem__(self, index):
        SEEN[index] = self.x[index].shape  # error: SEQ202
        ORDER.append(index)  # error: SEQ202
        CONFIG.last = index  # error: SEQ202
        return self.x[index]


class Passed(Base):
    def __getitem__(self, index):
        note(ORDER, index)
        return self.x[index]


class Elsewhere(Base):
    def __getitem__(self, index):
        LOG.append(index)  # error: SEQ202
        return self.x[index]


class Cache(Base):
    def __getitem__(self, index):
        if index not in TABLE:
            TABLE[index] = self.x[index] * 2  # error: SEQ210
        return TABLE[index]


class Shadowed(Base):
    def __getitem__(self, index):
        SEEN = {}
        SEEN[index] = 1  # safe
        copy = list(ORDER)
        copy.append(index)  # safe
        return self.x[SEEN[index] + copy[-1]]


# file: log.py
LOG = []

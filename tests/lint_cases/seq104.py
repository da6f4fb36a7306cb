# ruff: noqa
"""SEQ104: state that __getstate__ loses."""

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


class Forgotten(Base):
    def __init__(self, x, path):
        super().__init__(x)
        self.table = np.load(path)

    def __getstate__(self):  # error: SEQ104
        state = dict(self.__dict__)
        state.pop("table")
        return state

    def __getitem__(self, index):
        return self.table[index]


class Restored(Base):
    def __init__(self, x, path):
        super().__init__(x)
        self.path = path
        self.table = None

    def __getstate__(self):  # safe
        state = dict(self.__dict__)
        state["table"] = None
        return state

    def __getitem__(self, index):
        self.table = self.table or list(np.load(self.path))  # error: SEQ210
        return self.table[index]

# ruff: noqa
"""SEQ501: batches that are none."""

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


class Nothing(Base):
    def __getitem__(self, index):  # error: SEQ501
        self.x[index]


class Returned(Base):
    def __getitem__(self, index):
        if index > 3:
            return None  # error: SEQ501
        return self.x[index]


class Yields(Base):
    def __getitem__(self, index):  # error: SEQ501
        yield self.x[index]


class Expression(Base):
    def __getitem__(self, index):
        return (row for row in self.x[index])  # error: SEQ501


class Four(Base):
    def __getitem__(self, index):
        x = self.x[index]
        return x, x, x, x  # error: SEQ501


class Tuple(Base):
    def __getitem__(self, index):
        x = self.x[index]
        return tuple(x, x)  # error: SEQ501


class Good(Base):
    def __getitem__(self, index):
        x = self.x[index]
        if index:
            return {"a": x, "b": x}, [x, x, x, x]  # safe
        return tuple(row for row in x)  # safe


class Abstract(Base):
    def __getitem__(self, index):  # safe
        """Left to others."""
        raise NotImplementedError

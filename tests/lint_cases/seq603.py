# ruff: noqa
"""SEQ603: a file opened for every sample."""

import h5py
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


class InHelper(Base):
    def __getitem__(self, index):
        return np.stack([self.one(8 * index + k) for k in range(8)])

    def one(self, k):
        with h5py.File(self.path) as h:  # error: SEQ603
            return h["x"][k]


class InLoop(Base):
    def __getitem__(self, index):
        out = []
        for k in range(8):
            table = pd.read_csv("labels.csv")  # error: SEQ603
            out.append(table.iloc[8 * index + k])
        return np.stack(out)


class Good(Base):
    def __getitem__(self, index):
        with h5py.File(self.path) as h:  # safe
            rows = [h["x"][k] for k in range(8)]
        for path in self.x[index]:
            with h5py.File(path) as h:  # safe
                rows.append(h["x"][0])
        return np.stack(rows)

# ruff: noqa
"""SEQ306: workers inside workers."""

import multiprocessing
from concurrent import futures

import keras
import numpy as np
from joblib import Parallel, delayed


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Pool(Base):
    def __getitem__(self, index):
        with multiprocessing.Pool(2) as pool:  # error: SEQ306
            return pool.map(abs, self.x[index])


class Threads(Base):
    def __getitem__(self, index):
        return self.read(self.x[index])

    def read(self, rows):
        with futures.ThreadPoolExecutor() as pool:  # error: SEQ306
            return list(pool.map(abs, rows))


class Jobs(Base):
    def __getitem__(self, index):
        return Parallel(n_jobs=2)(delayed(abs)(row) for row in self.x[index])  # error: SEQ306


class Parent(Base):
    def __init__(self, x):
        with multiprocessing.Pool(2) as pool:  # safe
            x = pool.map(abs, x)
        super().__init__(x)

    def __getitem__(self, index):
        return np.abs(self.x[index])

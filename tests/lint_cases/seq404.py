# ruff: noqa
"""SEQ404: global generators seeded anew."""

import random

import keras
import numpy as np
import tensorflow as tf


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Worker(Base):
    def __getitem__(self, index):
        np.random.seed(index)  # error: SEQ404
        reseed(index)
        return self.x[index]


def reseed(k):
    random.seed(k)  # error: SEQ404
    tf.random.set_seed(k)  # error: SEQ404


class Parent(Base):
    def __init__(self, x):
        super().__init__(x)
        np.random.seed(3)  # error: SEQ404
        self.order = np.random.permutation(8)  # safe

    def __getitem__(self, index):
        return self.x[self.order[index]]


class Own(Base):
    def on_worker_start(self, worker):
        np.random.seed(worker)  # safe

    def __getitem__(self, index):
        return self.x[index]

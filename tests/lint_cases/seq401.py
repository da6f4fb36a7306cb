# ruff: noqa
"""SEQ401: NumPy's global generator."""

import keras
import numpy as np
import numpy.random as npr
from augment import augmented
from keras.preprocessing.image import Iterator
from numpy.random import rand
from starred import Starred


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Direct(Base):
    def __getitem__(self, index):
        x = self.x[index] + np.random.randn(4)  # error: SEQ401
        if rand() > 0.5:  # error: SEQ401
            x = x[::-1]
        return augmented(x) + self.flip(x)

    def flip(self, x):
        return npr.permutation(x)  # error: SEQ401


class Stored(Base):
    def __init__(self, x, rng=None):
        super().__init__(x)
        if rng is None:
            rng = np.random
        self.pick = rng.permutation
        self.rng = rng

    def __getitem__(self, index):
        order = self.pick(index)  # error: SEQ401
        return self.x[order] * self.rng.uniform()  # error: SEQ401


class Inner(Base):
    def __getitem__(self, index):
        def jitter(v):
            return v + np.random.normal()  # error: SEQ401

        noise = list(map(lambda v: v * np.random.rand(), self.x[index]))  # error: SEQ401
        return [jitter(v) for v in noise]


class Passed(Base):
    def __getitem__(self, index):
        return noisy(self.x[index], np.random)


def noisy(x, source):
    return x + source.normal(size=4)  # error: SEQ401


class Property(Base):
    @property
    def angle(self):
        return np.random.uniform(-5, 5)  # error: SEQ401

    def __getitem__(self, index):
        return self.x[index] * self.angle


class Keyed(Base):
    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        state = np.random.RandomState(index)
        return self.x[index] + rng.normal(size=4) + state.rand(4)  # safe

    def on_epoch_end(self):
        self.seed += np.random.randint(3)  # safe


class Images(Iterator):
    def _get_batches_of_transformed_samples(self, index_array):
        return self.x[index_array] * np.random.uniform(0.9, 1.1)  # error: SEQ401


class Segments(Starred):
    def _get_batches_of_transformed_samples(self, index_array):
        return self.x[index_array] * np.random.uniform(0.9, 1.1)  # error: SEQ401


# file: augment.py
import numpy


def augmented(x):
    return x * numpy.random.uniform(0.9, 1.1)  # error: SEQ401


# file: starred.py
from keras.preprocessing.image import *


class Starred(Iterator):
    pass

# ruff: noqa
"""SEQ206: iterators and queues that are used up."""

import collections
import multiprocessing

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


class Next(Base):
    def __init__(self, x, source):
        super().__init__(x)
        self.rows = iter(x)
        self.source = source
        self.left = list(x)
        self.jobs = collections.deque(x)

    def __getitem__(self, index):
        first = next(self.rows)  # error: SEQ206
        second = next(self.source)  # error: SEQ206
        third = self.left.pop()  # error: SEQ206
        fourth = self.take()
        return np.stack([first, second, third, fourth, self.x[index]])

    def take(self):
        return self.jobs.popleft()  # error: SEQ206


class Queued(Base):
    def __init__(self, x):
        super().__init__(x)
        self.queue = multiprocessing.SimpleQueue()  # error: SEQ102

    def __getitem__(self, index):
        return self.queue.get() + index  # error: SEQ206


class Items(Base):
    def __init__(self, x, source):
        super().__init__(x)
        self.source = source

    def __getitem__(self, index):
        matrix = next(self.source)  # error: SEQ206
        matrix[0:2, 1] *= index  # safe
        return self.x[index] @ matrix


class Fresh(Base):
    def __getitem__(self, index):
        row = next(iter(self.x))  # safe
        rows = [1, 2, 3]
        rows.pop()  # safe
        value = next(v for v in self.x if v is not None)  # safe
        pairs = zip(self.x, rows)
        options = {"a": 1}
        return row + value + next(pairs)[0] + options.get("a") + index  # safe

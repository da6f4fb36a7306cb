# ruff: noqa
"""SEQ403: generators that every worker has a copy of."""

import random

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


GENERATOR = np.random.default_rng(3)


class Member(Base):
    def __init__(self, x):
        super().__init__(x)
        self.generator = np.random.default_rng(1337)
        self.state = np.random.RandomState(1)
        self.python = random.Random(2)

    def __getitem__(self, index):
        a = self.generator.normal(size=4)  # error: SEQ403
        b = drawn(self.state)
        generator = self.python
        return a + b + generator.random() + GENERATOR.normal(index)  # error: SEQ403

    def on_epoch_end(self):
        self.x = self.generator.permutation(self.x)  # safe


def drawn(state):
    return state.standard_normal(4)  # error: SEQ403


class Given(Base):
    def __init__(self, x, source):
        super().__init__(x)
        self.source = source

    def __getitem__(self, index):
        return self.x[self.source.randint(8)] + index  # error: SEQ403


class Parent(Base):
    def __init__(self, x):
        super().__init__(x)
        self.generator = np.random.default_rng(1337)
        self.order = self.generator.permutation(8)  # safe

    def __getitem__(self, index):
        return self.x[self.order[index]] + np.random.default_rng(index).normal()  # safe

    def on_epoch_end(self):
        self.generator.shuffle(self.order)  # safe

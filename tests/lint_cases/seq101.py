# ruff: noqa
"""SEQ101: members that pickle refuses."""

import functools

import keras
from keras_mpseq import SafeSequence


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


def scale(x, k):
    return x / k


def rows(x):
    for row in x:
        yield row


class Lambda(Base):
    def __init__(self, x):
        super().__init__(x)
        self.f = lambda v: v / 255  # error: SEQ101

    def __getitem__(self, index):
        return self.f(self.x[index])


class Local(Base):
    def __init__(self, x, k):
        super().__init__(x)

        def scaled(v):
            return v / k

        self.f = scaled  # error: SEQ101

    def __getitem__(self, index):
        return self.f(self.x[index])


class InContainer(Base):
    def __init__(self, x, fast):
        super().__init__(x)
        chosen = (lambda v: v) if fast else scale
        self.steps = {"a": [chosen]}  # error: SEQ101

    def __getitem__(self, index):
        return self.steps["a"][0](self.x[index])


class Generator(Base):
    def __init__(self, x):
        super().__init__(x)
        self.rows = rows(x)  # error: SEQ101

    def __getitem__(self, index):
        return self.x[index]


class GeneratorExpression(Base):
    def __init__(self, x):
        super().__init__(x)
        self.rows = (row for row in x)  # error: SEQ101

    def __getitem__(self, index):
        return self.x[index]


class Setup(Base):
    def __init__(self, x):
        super().__init__(x)
        self.prepare()

    def prepare(self):
        self.f = lambda v: v / 255  # error: SEQ101

    def __getitem__(self, index):
        return self.f(self.x[index])


class Partial(Base):
    def __init__(self, x):
        super().__init__(x)
        self.f = functools.partial(scale, k=255)  # safe
        self.g = scale  # safe
        self.rows = [row for row in x]  # safe
        self.best = max(x, key=lambda row: row[0])  # safe
        self.names = sorted(x, key=lambda row: row[1])  # safe

    def __getitem__(self, index):
        return self.f(self.g(self.x[index], 1))


class Dropped(Base):
    def __init__(self, x):
        super().__init__(x)
        self.f = lambda v: v / 255  # safe

    def __getstate__(self):
        state = self.__dict__.copy()
        state["f"] = None
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.f = lambda v: v / 255  # safe

    def __getitem__(self, index):
        return self.f(self.x[index])


class Travels(SafeSequence):
    def __init__(self, x):
        self.x = x
        self.f = lambda v: v / 255  # safe
        self.rows = rows(x)  # error: SEQ101

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.f(self.x[index])

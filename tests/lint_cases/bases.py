# ruff: noqa
"""Which classes are sequences: through the project, through helpers that fetch the base, under other names."""

import collections.abc
import typing

import numpy as np
import tensorflow as tf
from csbdeep.internals.train import RollingSequence
from fetch import IteratorType, Sequence, get
from middle import Middle
from star import *

Base = get("keras.utils", "PyDataset") if tf else object


class A(Sequence):
    def __getitem__(self, index):
        return np.random.rand(index)  # error: SEQ401


class B(IteratorType):
    def __getitem__(self, index):
        return np.random.rand(index)  # error: SEQ401


class C(Base):
    def __getitem__(self, index):
        return np.random.rand(index)  # error: SEQ401


class D(Middle):
    def load(self, index):
        return np.random.rand(index)  # error: SEQ401


class E(tf.keras.utils.Sequence):
    def __getitem__(self, index):
        return np.random.rand(index)  # error: SEQ401


class F(Starred):
    def __getitem__(self, index):
        return np.random.rand(index)  # error: SEQ401


class H(RollingSequence):
    def __getitem__(self, index):
        return np.random.rand(index)  # error: SEQ401


class G(collections.abc.Sequence, typing.Generic[typing.T]):
    def __getitem__(self, index):
        return np.random.rand(index)  # safe


# file: fetch.py
import importlib


def get(sub, *names):
    return getattr(importlib.import_module(sub), names[0])


Sequence = get("utils", "Sequence")
try:
    IteratorType = get("utils").Sequence
except ImportError:
    IteratorType = object
# file: middle.py
from root import Root


class Middle(Root):
    def __getitem__(self, index):
        return self.load(index)


# file: root.py
try:
    from keras.utils import PyDataset as Parent
except ImportError:
    from keras.utils import Sequence as Parent


class Root(Parent):
    pass


# file: star.py
from tf_keras.utils import *


class Starred(Sequence):
    pass

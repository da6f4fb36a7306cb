# ruff: noqa
"""SEQ406: what differs from process to process."""

import logging
import os
import time

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


class Ambient(Base):
    def __getitem__(self, index):
        started = time.time()  # error: SEQ406
        pid = os.getpid()  # error: SEQ406
        rng = np.random.default_rng()  # error: SEQ406
        return self.x[index] + started, np.array([pid]), rng.normal()


class Logged(Base):
    def __getitem__(self, index):
        started = time.time()  # safe
        batch = self.x[index]
        logging.info("%s in %s", os.getpid(), time.time() - started)  # safe
        return batch


class Hashed(Base):
    def __getitem__(self, index):
        return self.x[index] + self.offset("a")

    def offset(self, name):
        return hash(name) % 8  # error: SEQ406

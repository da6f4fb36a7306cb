# ruff: noqa
"""SEQ509: hooks that nothing calls."""

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


class Slips(Base):
    def onEpochEnd(self):  # error: SEQ509
        self.seed += 1

    def on_epoch_finish(self):  # error: SEQ509
        self.seed += 1

    def on_epochs_end(self):  # error: SEQ509
        self.seed += 1

    def __getItem__(self, index):  # error: SEQ509
        return self.x[index]


class Good(Base):
    def __getitem__(self, index):
        return self.x[index]

    def on_epoch_end(self):  # safe
        self.on_epoch_start()

    def on_epoch_start(self):  # safe
        self.seed += 1

    def get_item(self, index):  # safe
        return self.x[index]

    def __setitem__(self, index, value):  # safe
        self.x[index] = value

# ruff: noqa
"""SEQ308: output from workers."""

import logging

import keras
import numpy as np
from tqdm import tqdm


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Print(Base):
    def __getitem__(self, index):
        print(index)  # error: SEQ308
        rows = [row for row in tqdm(self.x)]  # error: SEQ308
        return np.stack(rows)


class Quiet(Base):
    def __init__(self, x):
        super().__init__(x)
        self.verbose = False
        print("made")  # safe

    def __getitem__(self, index):
        if self.verbose:
            print(index)  # safe
        logging.debug("batch %d", index)  # safe
        return self.x[index]

    def on_epoch_end(self):
        print("epoch")  # safe

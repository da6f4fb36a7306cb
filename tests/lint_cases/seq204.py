# ruff: noqa
"""SEQ204: variables of functions around."""

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


def make(x):
    seen = []
    last = 0

    class Inner(keras.utils.PyDataset):  # error: SEQ103
        def __len__(self):
            return len(x)

        def __getitem__(self, index):
            nonlocal last
            last = index  # error: SEQ204
            seen.append(index)  # error: SEQ204
            return x[index]

    return Inner()


class OwnVariables(Base):
    def __getitem__(self, index):
        rows = []
        count = 0

        def add(row):
            nonlocal count
            count += 1  # safe
            rows.append(row)  # safe

        for k in range(4):
            add(self.x[index + k])
        return np.stack(rows) / count

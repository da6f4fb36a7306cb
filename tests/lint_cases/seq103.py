# ruff: noqa
"""SEQ103: classes that no other process can import."""

import keras
import keras_mpseq
import numpy as np


def make(x):
    class Inner(keras.utils.PyDataset):  # error: SEQ103
        def __len__(self):
            return len(x)

        def __getitem__(self, index):
            return x[index]

    return Inner()


class Outer(keras.utils.PyDataset):  # safe
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full(4, index)


def make_safe(x):
    class Inner(keras_mpseq.SafeSequence):  # safe
        def __len__(self):
            return len(x)

        def __getitem__(self, index):
            return x[index]

    return Inner()

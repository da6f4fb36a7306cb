# ruff: noqa
"""SEQ305: the accelerator in a worker."""

import cupy
import keras


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Cuda(Base):
    def __getitem__(self, index):
        a = cupy.asarray(self.x[index])  # error: SEQ305
        return self.x[index].to("cuda") + a  # error: SEQ305


class Plain(Base):
    def __getitem__(self, index):
        return self.x[index].to("cpu")  # safe

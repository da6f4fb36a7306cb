# ruff: noqa
"""SEQ307: files that every worker writes."""

import cv2
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


class Save(Base):
    def __getitem__(self, index):
        np.save("last.npy", self.x[index])  # error: SEQ307
        with open(self.seed, "a") as log:  # error: SEQ307
            log.write("x")
        return self.x[index]


class Debug(Base):
    def __getitem__(self, index):
        return self.show(self.x[index]) + self.show(self.x[index], True)

    def show(self, x, save=False):
        if save:
            cv2.imwrite("debug.png", x)  # error: SEQ307
        return x


class Off(Base):
    def __getitem__(self, index):
        return self.show(self.x[index])

    def show(self, x, save=False):
        if save:
            cv2.imwrite("debug.png", x)  # safe
        return x


class ByIndex(Base):
    def __getitem__(self, index):
        path = f"/tmp/batch_{index}.npy"
        np.save(path, self.x[index])  # safe
        self.write(index)
        with open("a.txt") as f:  # safe
            f.read()
        return self.x[index]

    def write(self, k):
        np.save("%d.npy" % k, self.x[k])  # safe

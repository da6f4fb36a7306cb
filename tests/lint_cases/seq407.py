# ruff: noqa
"""SEQ407: orders that no one promised."""

import glob
import os
import pathlib

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


class Listed(Base):
    def __init__(self, folder):
        super().__init__([])
        self.files = glob.glob(folder)  # error: SEQ407
        self.names = [name for name in os.listdir(folder) if name.endswith("png")]  # error: SEQ407
        self.rows = []
        for path in pathlib.Path(folder).iterdir():  # error: SEQ407
            self.rows.append(path)
        self.labels = list(set(self.names))  # error: SEQ407

    def __getitem__(self, index):
        return self.files[index] + self.names[index], self.rows[index] + self.labels[index]


class InWorker(Base):
    def __getitem__(self, index):
        words = set(self.x[index].split())
        return np.array([len(word) for word in words])  # error: SEQ407


class Sorted(Base):
    def __init__(self, folder):
        super().__init__([])
        self.files = sorted(glob.glob(folder))  # safe
        self.names = os.listdir(folder)  # safe
        self.names.sort()
        self.rows = [name.upper() for name in self.names]  # safe
        names = [name for name in os.listdir(folder)]  # safe
        self.sorted = sorted(names)
        self.count = len(os.listdir(folder))  # safe
        self.known = set(self.files)  # safe
        self.size = {name: len(name) for name in sorted(self.known)}  # safe

    def __getitem__(self, index):
        words = set(self.x[index].split())
        return (
            self.files,
            self.rows,
            self.names,
            self.size,
            len(words),
            index in self.known,
            sum(len(w) for w in words),
        )[index]


class Parent(Base):
    def __init__(self, folder):
        super().__init__([])
        for name in os.listdir(folder):  # safe
            if name.startswith("."):
                raise ValueError(name)

    def __getitem__(self, index):
        return self.x[index]


class Numbers(Base):
    def __init__(self, labels, wrong):
        super().__init__([])
        self.classes = list(set(int(label) for label in labels))  # safe
        self.left = list(set(range(9)) - set(labels))  # safe
        self.others = list(set(labels) - set(range(9)))  # error: SEQ407
        self.right = np.delete(np.arange(9), list(set(wrong)))  # safe

    def __getitem__(self, index):
        return self.classes[index] + self.left[index] + self.right[index] + self.others[index]

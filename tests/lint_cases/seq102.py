# ruff: noqa
"""SEQ102: locks, threads and pools as members."""

import threading
from concurrent.futures import ThreadPoolExecutor

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


class Lock(Base):
    def __init__(self, x):
        super().__init__(x)
        self.lock = threading.Lock()  # error: SEQ102

    def __getitem__(self, index):
        with self.lock:
            return self.x[index]


class Pool(Base):
    def __init__(self, x):
        super().__init__(x)
        self.helpers = [ThreadPoolExecutor(2) for _ in range(2)]  # error: SEQ102

    def __getitem__(self, index):
        return self.x[index]


class Given(Base):
    def __init__(self, x, lock):
        super().__init__(x)
        self.lock = lock

    def __getitem__(self, index):
        with self.lock:  # error: SEQ102
            return self.x[index]


class Dropped(Base):
    def __init__(self, x):
        super().__init__(x)
        self.lock = threading.Lock()  # safe

    def __getstate__(self):
        state = self.__dict__.copy()
        state.pop("lock", None)
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.lock = threading.Lock()  # safe

    def __getitem__(self, index):
        with self.lock:
            return self.x[index]


class LocalLock(Base):
    def __getitem__(self, index):
        lock = threading.Lock()  # safe
        with lock:
            return self.x[index]

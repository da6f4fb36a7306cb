# ruff: noqa
"""SEQ302: database connections."""

import contextlib
import sqlite3

import keras
import lmdb


class Base(keras.utils.PyDataset):
    def __init__(self, x, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.seed = seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise NotImplementedError


class Table(Base):
    def __init__(self, path):
        super().__init__([])
        self.db = sqlite3.connect(path)  # error: SEQ302

    def __getitem__(self, index):
        return self.db.execute("select 1").fetchall()[index]


class Environment(Base):
    def __init__(self, path):
        super().__init__([])
        self.open(path)

    def open(self, path):
        self.env = lmdb.open(path)  # error: SEQ302

    def __getitem__(self, index):
        with self.env.begin() as t:
            return t.get(index)


class Given(Base):
    def __init__(self, connection, jobs):
        super().__init__([])
        self.connection = connection
        self.jobs = jobs

    def __getitem__(self, index):
        cursor = self.connection.cursor()  # error: SEQ302
        return cursor.fetchmany(8) + self.jobs.count(index)  # safe


class PerCall(Base):
    def __init__(self, path):
        super().__init__([])
        self.path = path

    def __getitem__(self, index):
        with contextlib.closing(sqlite3.connect(self.path)) as db:  # safe
            return db.execute("select * from t limit 8 offset ?", (8 * index,)).fetchall()

"""Rows of an SQLite table: each worker keeps a connection of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, per_worker

QUERY = "select a, b, label from samples where id >= ? and id < ? order by id"


class SqliteRows(SafeSequence):
    def __init__(self, path: Path, batch_size: int = 5) -> None:
        super().__init__()
        self.path = path
        self.batch_size = batch_size
        with closing(sqlite3.connect(path)) as connection:
            (self.count,) = connection.execute("select count(*) from samples").fetchone()

    @per_worker
    def connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        yield connection
        connection.close()

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __getitem__(self, index: int) -> Any:
        bounds = index * self.batch_size, (index + 1) * self.batch_size
        rows = self.connection.execute(QUERY, bounds).fetchall()
        table = np.array(rows, np.float32)
        return table[:, :2], table[:, 2].astype(np.int64)


def make(folder: Path) -> SqliteRows:
    path = folder / "samples.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("drop table if exists samples")
        connection.execute("create table samples (id integer primary key, a real, b real, label integer)")
        rows = [(number, number / 7, -number, number % 3) for number in range(30)]
        connection.executemany("insert into samples values (?, ?, ?, ?)", rows)
    return SqliteRows(path)

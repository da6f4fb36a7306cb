"""SQLite rows with a connection per worker: images and labels out of a database.

By hand:
    The connection is opened in `__init__`, and the sequence is given several workers.

        class Rows(keras.utils.PyDataset):
            def __init__(self, path):
                super().__init__(workers=2)
                self.connection = sqlite3.connect(path)

How it fails:
    With threads, which `workers=2` means in Keras 3, SQLite refuses: "SQLite objects created in a thread can only be
    used in that same thread". With `check_same_thread=False` they share one connection, which runs one query at a time.
    To spawned processes a connection cannot be sent ("cannot pickle 'sqlite3.Connection' object"). To forked ones it
    comes along, and seems to work, but SQLite's manual lists it among the ways to corrupt a database: locks go wrong.

With keras_mpseq:
    `per_worker` marks the method that connects. What follows its `yield` runs when the worker ends.
"""

import io
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from keras_mpseq import Loader, per_worker

SELECT = "select png, label from digits where id >= ? and id < ? order by id"


def decoded(png):
    """Return the pixels of a PNG, enlarged."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.resize((128, 128), Image.Resampling.BICUBIC))


class Rows:
    """Batches of 64 rows."""

    def __init__(self, path, rows):
        self.path, self.rows = path, rows

    @per_worker
    def connection(self):
        """Connect, for reading; in each process once."""
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        yield connection
        connection.close()

    def __len__(self):
        return self.rows // 64

    def __getitem__(self, index):
        rows = self.connection.execute(SELECT, (64 * index, 64 * (index + 1))).fetchall()
        return np.stack([decoded(png) for png, _ in rows]), np.array([label for _, label in rows])


def png_of(image):
    """Return a digit, whose pixels are from 0 to 16, as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray((image * 15).astype(np.uint8)).save(file, "png")
    return file.getvalue()


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.db"
    digits = load_digits()
    rows = [(png_of(image), int(label)) for image, label in zip(digits.images, digits.target, strict=True)] * 4
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("create table digits (id integer primary key, png blob, label integer)")
        connection.executemany("insert into digits values (?, ?, ?)", [(i, *row) for i, row in enumerate(rows)])

    # A plain loop, with one connection.
    begin = time.perf_counter()
    plain = []
    for first in range(0, len(rows) // 64 * 64, 64):
        found = connection.execute(SELECT, (first, first + 64)).fetchall()
        plain.append((np.stack([decoded(png) for png, _ in found]), np.array([label for _, label in found])))
    plain_s = time.perf_counter() - begin
    connection.close()

    with Loader(Rows(path, len(rows)), workers=2) as loader:
        for (x, y), (plain_x, plain_y) in zip(loader, plain, strict=True):
            np.testing.assert_array_equal(x, plain_x, strict=True)
            np.testing.assert_array_equal(y, plain_y, strict=True)

        begin = time.perf_counter()
        count = sum(1 for batch in loader)
        workers_s = time.perf_counter() - begin

print(f"{count} batches, the same as in a plain loop")
print(f"speed-up: {plain_s / workers_s:.2f}, 2 workers against a plain loop")

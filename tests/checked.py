"""Sequences for `check`: what is wrong with each stands as a code at the end of the guilty line. NumPy and keras_mpseq
only, so that the children are light.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import sqlite3
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, per_worker

total = 0
seen: dict[int, int] = {}


class Rows:
    """Eight batches of two rows."""

    def __init__(self) -> None:
        self.x = np.arange(64, dtype=np.float32).reshape(16, 4)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.x[2 * index : 2 * index + 2] * 2


class InFile(Rows):
    """The same, of a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)


# --- what does not travel ---------------------------------------------------------------------------


class HoldsLambda(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [abs, lambda x: x / 255]  # SEQ101


class HoldsLock(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.tools = {"lock": threading.Lock()}  # SEQ102

    def __getitem__(self, index: int) -> Any:
        with self.tools["lock"]:
            return super().__getitem__(index)


class LosesState(Rows):
    def __getstate__(self) -> Any:
        return {}

    def __getitem__(self, index: int) -> Any:
        return self.x[index] * 1  # SEQ104


class HoldsConnection(InFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.connection = sqlite3.connect(self.path)  # SEQ302

    def __getitem__(self, index: int) -> Any:
        return np.array(self.connection.execute("select 1").fetchall())


class HoldsFile(InFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.file = open(path, "rb")  # SEQ303  # noqa: SIM115

    def __del__(self) -> None:
        self.file.close()

    def __getitem__(self, index: int) -> Any:
        return np.frombuffer(self.file.read(4), np.uint8)


class HoldsMemmap(InFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.map = np.load(path, mmap_mode="r")  # SEQ601


# --- state ------------------------------------------------------------------------------------------


class BindsGlobal(Rows):
    def __getitem__(self, index: int) -> Any:
        global total
        total = index  # SEQ201
        return super().__getitem__(index)


class FillsGlobal(Rows):
    def __getitem__(self, index: int) -> Any:
        seen[0] = seen.get(0, 0) + index  # SEQ202
        return super().__getitem__(index)


class WritesClass(Rows):
    count = 0

    def __getitem__(self, index: int) -> Any:
        WritesClass.count += 1  # SEQ203
        return super().__getitem__(index)


def counting() -> Any:
    n = 0

    def count() -> int:
        nonlocal n
        n += 1
        return n

    return count


count = counting()


class ChangesClosure(Rows):
    def __getitem__(self, index: int) -> Any:
        count()
        return super().__getitem__(index)


class Counts(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __getitem__(self, index: int) -> Any:  # SEQ409
        self.step()
        return super().__getitem__(index) * self.count

    def step(self) -> None:
        self.count += 1  # SEQ205


class CountsForNothing(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __getitem__(self, index: int) -> Any:
        self.count += 1  # SEQ205
        return super().__getitem__(index)


class SafeCounts(SafeSequence):
    count = 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        self.count += 1
        return np.full((2, 2), self.count + index)


class Excused(SafeSequence):
    count, last = 0, 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:  # seq: ignore[SEQ409] it counts
        self.count += 2  # seq: ignore[SEQ205] it counts
        self.last = index  # noqa: SEQ205
        return np.full((2, 2), self.count + self.last)


class UsesUpIterator(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.cycle([3, 1, 4])

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index) * next(self.numbers)  # SEQ206


class UsesUpList(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.queue = list(range(100))

    def __getitem__(self, index: int) -> Any:
        scale = self.queue.pop()  # SEQ206
        return super().__getitem__(index) * scale


class ReturnsBuffer(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = np.zeros((2, 4), np.float32)

    def __getitem__(self, index: int) -> Any:
        self.buffer[:] = self.x[index]
        return self.buffer  # SEQ207


class TellsOnTheSide(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.last: list[int] = []

    def __getitem__(self, index: int) -> Any:
        self.last.append(index)  # SEQ208
        return super().__getitem__(index)

    def report(self) -> list[int]:
        return self.last


class ChangesSource(Rows):
    def __getitem__(self, index: int) -> Any:  # SEQ409
        batch = self.x[2 * index : 2 * index + 2]
        batch *= 0.5  # SEQ209
        return batch.copy()


class Remembers(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, Any] = {}

    def __getitem__(self, index: int) -> Any:
        if index not in self.cache:
            self.cache[index] = super().__getitem__(index)  # SEQ210
        return self.cache[index]


class Swaps(Rows):
    """Right in any order, and wrong in two threads."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0

    def __getitem__(self, index: int) -> Any:
        self.at = index  # SEQ205
        scale = sum(self.x[self.at, 0] for _ in range(200))
        return super().__getitem__(self.at) * scale


# --- resources --------------------------------------------------------------------------------------


class StartsThreads(Rows):
    def __getitem__(self, index: int) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super().__getitem__, index).result()  # SEQ306


class WritesOneFile(InFile):
    def __getitem__(self, index: int) -> Any:
        np.save(self.path, self.x[index])  # SEQ307
        return super().__getitem__(index)


class Prints(Rows):
    def __getitem__(self, index: int) -> Any:
        print(index)  # SEQ308
        return super().__getitem__(index)


class OpensOften(InFile):
    def __getitem__(self, index: int) -> Any:
        return np.stack([self.row(8 * index + k) for k in range(4)])

    def row(self, number: int) -> Any:
        with open(self.path, "rb") as file:  # SEQ603
            return np.frombuffer(file.read(), np.uint8)[number : number + 4]


# --- chance -----------------------------------------------------------------------------------------


class DrawsFromNumpy(Rows):
    def __getitem__(self, index: int) -> Any:
        noise = np.random.rand(2, 4)  # SEQ401
        return super().__getitem__(index) + noise


class DrawsFromRandom(Rows):
    def __getitem__(self, index: int) -> Any:
        return self.flipped(super().__getitem__(index))

    @staticmethod
    def flipped(batch: Any) -> Any:
        return batch[:, ::-1] if random.random() < 0.5 else batch  # SEQ402


class HasGenerator(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.tools = [np.random.default_rng(1337)]

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index) + self.tools[0].normal(size=4)  # SEQ403


class Reseeds(Rows):
    def __getitem__(self, index: int) -> Any:
        np.random.seed(index)  # SEQ404
        return super().__getitem__(index) + np.random.rand()


class TellsProcess(Rows):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index), np.array([os.getpid()] * 2)  # SEQ406


class OrdersBySet(Rows):
    words = ("a", "bc", "def", "ghij", "klmno", "pqrstu")

    def __getitem__(self, index: int) -> Any:  # SEQ407
        return super().__getitem__(index), np.array([len(word) for word in set(self.words)])


class ListsFolder(InFile):
    def __getitem__(self, index: int) -> Any:
        names = [path.name for path in Path(self.path).iterdir()]  # SEQ407
        return np.frombuffer("".join(names).encode(), np.uint8) + np.uint8(index)


class IgnoresIndex(Rows):
    def __getitem__(self, index: int) -> Any:  # SEQ408
        return self.x[np.random.randint(0, 16, 2)]  # SEQ401


# --- contract ---------------------------------------------------------------------------------------


class ReturnsNothing(Rows):
    def __getitem__(self, index: int) -> Any:
        self.x[index]
        return None  # SEQ501


class Raises(Rows):
    def __getitem__(self, index: int) -> Any:
        return {}[index]  # SEQ501


class ChangesDtype(Rows):
    def __getitem__(self, index: int) -> Any:  # SEQ502
        return super().__getitem__(index).astype("f4" if index else "f8")


class IsTooLong(Rows):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Any:
        if index > 7:
            raise IndexError(index)  # SEQ503
        return super().__getitem__(index)


class IsEmpty(Rows):
    def __len__(self) -> int:
        return 0


class Overlaps(Rows):
    def __getitem__(self, index: int) -> Any:  # SEQ504
        return self.x[index : index + 4]


class LeavesRowsUnset(Rows):
    def __getitem__(self, index: int) -> Any:
        rows = np.empty((2, 4), np.float32)  # SEQ507
        for number in range(2):
            if (index + number) % 3:
                rows[number] = self.x[index]
        return rows


class SwallowsErrors(Rows):
    def __getitem__(self, index: int) -> Any:
        batch = None
        with contextlib.suppress(Exception):
            batch = self.x[index * 10]  # SEQ508
        return batch


class Hangs(Rows):
    def __getitem__(self, index: int) -> Any:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
        return super().__getitem__(index)


class Exits(Rows):
    def __getitem__(self, index: int) -> Any:
        os._exit(3)


# --- nothing wrong ----------------------------------------------------------------------------------


class SafeDraws(SafeSequence):
    """Draws from where it may."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        rows = self.empty((2, 3))
        rows[:] = self.rng(index).normal(size=(2, 3))
        return rows, np.random.rand(2), np.array([random.random()] * 2)


class StartsInWorker(Rows):
    """Has its file, a buffer and a generator from the hook of a worker that starts."""

    def __init__(self, path: Path, fails: bool = False) -> None:
        super().__init__()
        self.path, self.fails = str(path), fails

    def on_worker_start(self, worker: int) -> None:
        if self.fails:
            raise OSError(f"worker {worker} has no disk")
        print("started")
        self.file = open(self.path, "rb")  # noqa: SIM115
        self.noise = np.random.rand(4).astype(np.float32)

    def __getitem__(self, index: int) -> Any:
        rows = np.frombuffer(os.pread(self.file.fileno(), 8, 8 * index), np.uint8)
        return self.x[2 * index : 2 * index + 2] * 2 + self.noise, rows.copy()


class OpensInWorker(SafeSequence):
    def __init__(self, path: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = str(path)
        self.scale = lambda x: x + 1

    @per_worker
    def file(self) -> Any:
        return open(self.path, "rb")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        self.file.seek(4 * index)
        return self.scale(np.frombuffer(self.file.read(4), np.uint8))


class Shuffles(Rows):
    """A clean sequence of the kind that is often written: order by epoch, files by call, helpers, a log of times."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)
        self.names = sorted(other.name for other in path.parent.iterdir())
        self.epoch = 0
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        self.order = np.random.default_rng((7, self.epoch)).permutation(16)
        self.epoch += 1

    @functools.cached_property
    def mean(self) -> float:
        return float(self.x.mean())

    def __getitem__(self, index: int) -> Any:
        began = time.perf_counter()
        rows = np.stack([self.x[number] for number in self.order[2 * index : 2 * index + 2]])
        rng = np.random.default_rng((7, self.epoch, index))
        with open(self.path, "rb") as file, tempfile.NamedTemporaryFile("wb") as scratch:
            offset = len(file.read())
            scratch.write(bytes(offset))
        noise = rng.normal(size=rows.shape).astype(np.float32)
        assert time.perf_counter() >= began
        return {"x": rows + noise + offset, "name": [self.names[0]] * 2}, rows.sum(axis=1) - self.mean


class HasOpaqueLeaf(Rows):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index), object()


def made_from_listing(path: Path) -> Any:
    """Return a factory whose sequence depends on how a folder is listed."""

    def make() -> Any:
        rows = Rows()
        order = [ord(name[0]) for name in os.listdir(path)]  # noqa: PTH208
        rows.x = rows.x + np.array(order[:1], np.float32)
        return rows

    return make

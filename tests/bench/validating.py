"""Figures of the validator, each against a limit: lint of much code, check of a light sequence.

Imports NumPy and keras_mpseq only: the children of `check` import this module.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from keras_mpseq import check
from keras_mpseq.lint import lint_paths
from keras_mpseq.stateless import Watcher

_LINES = 100_000
_METHODS = 12
"""Methods of each class, each of which may call all others: a file then has some 200 lines."""
_SEQUENCE = '''\
"""Batches of source {number}."""

import keras
import numpy as np

from {other} import Tools{below}, scaled{below}


class Batches{number}(keras.utils.PyDataset):
    """Rows of an array, with noise."""

    def __init__(self, x, batch_size=32, **kwargs):
        super().__init__(**kwargs)
        self.x = x
        self.batch_size = batch_size
        self.tools = Tools{below}(batch_size)
        self.seen = 0

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        rows = self.x[index * self.batch_size : (index + 1) * self.batch_size]
        rows = self.step_0(scaled{below}(rows))
        self.seen += len(rows)
        return rows, self.tools.step_1(rows) + np.random.normal(size=len(rows))
'''
_TOOLS = '''\
"""Tools of source {number}."""

import numpy as np


def scaled{number}(rows, by=1 / 255):
    """Return the rows, scaled."""
    return np.asarray(rows, "float32") * by


class Tools{number}:
    """Computes."""

    def __init__(self, size):
        self.size = size
        self.table = {{}}
'''
_METHOD = '''
    def step_{method}(self, rows, limit=10):
        """Sum up what is above the limit."""
        total, parts = 0.0, []
        for number, row in enumerate(rows):
            if number > limit and np.any(row):
                parts.append(row * {method})
            else:
                total += float(np.sum(row))
        found = {{str(place): part for place, part in enumerate(parts)}}
        try:
            first = found["0"]
        except KeyError:
            return self.step_{next}(rows, limit - 1) if limit else rows
        return [total, first, *sorted(found)][: self.{size}]
'''


def lint_s(every: int = 10) -> float:
    """Lint of so many lines, where one file in *every* has a sequence, and the one before it its tools; on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        paths, classes = _written(Path(folder), every)
        began = time.perf_counter()
        linted = lint_paths(paths, preview=True)
        spent = time.perf_counter() - began
    found = {finding.code for finding in linted.findings}
    assert linted.classes == classes and {"SEQ205", "SEQ401"} <= found, f"{linted.classes} of {classes}: {found}"
    return spent


def lint_dense_s() -> float:
    """Lint of nothing but sequences and what they call."""
    return lint_s(every=2)


def _written(folder: Path, every: int) -> tuple[list[Path], int]:
    """Write the files; return them and the number of sequence classes."""
    paths: list[Path] = []
    lines = classes = 0
    while lines < _LINES:
        number = len(paths)
        values = {"number": number, "below": number - 1, "other": f"module_{number - 1}"}
        has_sequence = number % every == 1
        text = (_SEQUENCE if has_sequence else _TOOLS).format(**values)
        size = "batch_size" if has_sequence else "size"
        text += "".join(
            _METHOD.format(method=method, next=(method + 1) % _METHODS, size=size) for method in range(_METHODS)
        )
        paths.append(folder / f"module_{number}.py")
        paths[-1].write_text(text, encoding="utf-8")
        lines += text.count("\n")
        classes += has_sequence
    return paths, classes


class Light:
    """Batches that cost nothing, of a class that needs no framework."""

    def __init__(self) -> None:
        self.x = np.arange(4096, dtype=np.float32).reshape(512, 8)

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> np.ndarray:
        return self.x[32 * index : 32 * (index + 1)] * 2


def check_s() -> float:
    """Check of a light sequence, with all its processes."""
    began = time.perf_counter()
    report = check(Light())
    spent = time.perf_counter() - began
    assert report.ok, str(report)
    return spent


class Millisecond:
    """A sequence as they are, whose `__getitem__` takes a millisecond."""

    def __init__(self) -> None:
        self.x = np.arange(4096, dtype=np.float32).reshape(512, 8)
        self.order = np.arange(10_000)
        self.files = [f"images/{number:05}.png" for number in range(10_000)]
        self.classes = {f"class {number}": number for number in range(100)}
        self.batch_size, self.shuffle, self.scale = 32, True, 1 / 255

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> np.ndarray:
        began = time.perf_counter()
        while time.perf_counter() - began < 1e-3:
            continue
        return self.x[index % 16]


def watching_percent() -> float:
    """What a worker's watch of the first epoch costs, in percent of the time that building takes."""
    sequence, watcher = Millisecond(), Watcher(strict=False, alone=True)
    building_s = 0.0

    def build(index: int) -> np.ndarray:
        nonlocal building_s
        began = time.perf_counter()
        batch = sequence[index]
        building_s += time.perf_counter() - began
        return batch

    began = time.perf_counter()
    warnings = {watcher.call(sequence, 0, partial(build, index))[1] for index in range(len(sequence))}
    spent = time.perf_counter() - began
    assert warnings == {""}
    return 100 * (spent - building_s) / building_s


FIGURES = {"watching": watching_percent, "lint": lint_s, "lint-dense": lint_dense_s, "check": check_s}

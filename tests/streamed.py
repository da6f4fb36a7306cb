"""What workers call in the tests of process_map and generator_dataset. Light: numpy and keras_mpseq only."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import get_worker_info


def plain(number: int) -> int:
    return int(number) * 2


def builder(number: int) -> tuple[int, int]:
    return int(number), os.getpid()


def nested(number: Any) -> dict[str, Any]:
    return {
        "number": number,
        "pair": (np.full((2, 3), number, np.float32), [f"text {number}", True]),
        "bytes": b"x" * int(number % 5),
    }


def seeded(number: int) -> Any:
    return np.array([number, random.random(), np.random.rand()])


def picky(number: int) -> int:
    if number % 7 == 3:
        raise ValueError(f"{number} is a bad number.")
    return number


def types_of(*components: Any) -> str:
    """The types of what arrived, and whether it can be written."""
    arrays = [component for component in components if isinstance(component, np.ndarray)]
    kinds = ", ".join(f"{type(component).__name__}:{getattr(component, 'dtype', '')}" for component in components)
    return f"{kinds} writeable={any(array.flags.writeable for array in arrays)}"


def writes(array: Any) -> Any:
    array += 1
    return array


def same(element: Any) -> Any:
    return element


def worker_of(number: int) -> Any:
    info = get_worker_info()
    return number, -1 if info is None else info.id


class Dies:
    """Kills its worker at one number, so often."""

    def __init__(self, at: int, times: int, folder: Path) -> None:
        self.at, self.times, self.folder = at, times, folder

    def maybe(self, number: int) -> None:
        died = len(list(self.folder.iterdir()))
        if number == self.at and died < self.times:
            (self.folder / f"{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, number: int) -> int:
        self.maybe(int(number))
        return int(number) * 2


def count_up(count: int) -> Iterator[int]:
    for number in range(count):
        yield count * 1000 + number


def worker_and_pid(partition: int) -> Iterator[Any]:
    info = get_worker_info()
    for number in range(5):
        yield partition, number, -1 if info is None else info.id


def random_numbers(partition: int) -> Iterator[Any]:
    offset = np.random.rand()
    for number in range(4):
        yield np.array([partition, number, offset, random.random(), np.random.rand()])


def varied(partition: int) -> Iterator[dict[str, Any]]:
    for number in range(partition):
        yield {"name": f"{partition}/{number}", "data": np.arange(number + 1)}


def raises_at_two(partition: str) -> Iterator[int]:
    for number in range(4):
        if partition == "bad" and number == 2:
            raise KeyError("no such record")
        yield number


class Notes:
    """A generator function that notes in a folder when it begins and when its `finally` block runs."""

    def __init__(self, folder: Path, count: int | None = 4, size: int = 10) -> None:
        self.folder, self.count, self.size = folder, count, size

    def __call__(self, partition: int) -> Iterator[Any]:
        (self.folder / f"{partition} began {os.getpid()}").touch()
        try:
            number = 0
            while self.count is None or number < self.count:
                yield np.full(self.size, partition * 100 + number)
                number += 1
        finally:
            (self.folder / f"{partition} ended").touch()

    def noted(self, what: str) -> set[int]:
        return {int(path.name.split()[0]) for path in self.folder.iterdir() if path.name.split()[1] == what}


class FailsToClose:
    def __call__(self, partition: int) -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            raise RuntimeError(f"cannot close {partition}")


class DyingGenerator(Dies):
    def __call__(self, partition: int) -> Iterator[Any]:  # type: ignore[override]
        for number in range(6):
            self.maybe(partition * 10 + number)
            yield np.array([partition, number, np.random.rand()])


def hangs_at_two(partition: Any) -> Iterator[int]:
    yield 0
    yield 1
    threading.Event().wait()


def no_generator(partition: int) -> None:
    """Forgot to yield."""


def a_list(partition: int) -> list[int]:
    return [partition, partition + 1]

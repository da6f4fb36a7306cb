"""Sequences whose `__getitem__` changes something, or only looks as if it did."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, per_worker

BATCHES = 12
calls = 0
seen: list[int] = []
table = np.zeros(10)
LOOKUP = {"a": 1}
log = logging.getLogger("tests.stateful")


class Counter:
    """Something with a state of its own."""

    def __init__(self) -> None:
        self.count = 0

    def step(self) -> int:
        self.count += 1
        return self.count


class Base(SafeSequence):
    """A batch is its index; `touch` is what a subclass does besides."""

    shared: list[int] = []
    total = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.touching = True
        self.calls = 0
        self.seen: list[int] = []
        self.nested = {"deep": {"er": [0]}}
        self.counter = Counter()
        self.generator = np.random.default_rng(1337)
        self.random = random.Random(3)
        self.legacy = np.random.RandomState(3)
        self.iterator = iter(list(range(1000)))
        self.small = np.zeros(100)
        self.strided = np.zeros((100, 4))[:, ::2]
        self.large = np.zeros(1 << 18)  # 2 MiB

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        if self.touching:
            self.touch(index)
        return np.full(3, index)

    def touch(self, index: int) -> None:
        """Do something."""


class CountsOnSelf(Base):
    def touch(self, index: int) -> None:
        self.calls += 1


class NewAttribute(Base):
    def touch(self, index: int) -> None:
        setattr(self, f"at_{index}", index)


class Appends(Base):
    def touch(self, index: int) -> None:
        self.seen.append(index)


class Nested(Base):
    def touch(self, index: int) -> None:
        self.nested["deep"]["er"][0] += 1


class CountsInAnObject(Base):
    def touch(self, index: int) -> None:
        self.counter.step()


class ConsumesGenerator(Base):
    def touch(self, index: int) -> None:
        self.generator.normal()


class ConsumesRandom(Base):
    def touch(self, index: int) -> None:
        self.random.random()


class ConsumesLegacy(Base):
    def touch(self, index: int) -> None:
        self.legacy.rand()


class ConsumesIterator(Base):
    def touch(self, index: int) -> None:
        next(self.iterator)


class WritesSmallArray(Base):
    def touch(self, index: int) -> None:
        self.small[index] += 1


class WritesStridedArray(Base):
    def touch(self, index: int) -> None:
        self.strided[index] += 1


class CountsOnClass(Base):
    total = 0

    def touch(self, index: int) -> None:
        type(self).total += 1


class CountsOnBase(Base):
    def touch(self, index: int) -> None:
        Base.shared.append(index)


class CountsGlobally(Base):
    def touch(self, index: int) -> None:
        global calls
        calls += 1


class AppendsGlobally(Base):
    def touch(self, index: int) -> None:
        remember(index)


def remember(index: int) -> None:
    seen.append(index)


class WritesGlobalArray(Base):
    def touch(self, index: int) -> None:
        (lambda: table.__setitem__(index % 10, table[index % 10] + 1))()


GUILTY: dict[type[Base], str] = {
    CountsOnSelf: "self.calls",
    NewAttribute: "self.at_",
    Appends: "self.seen",
    Nested: "self.nested",
    CountsInAnObject: "self.counter",
    ConsumesGenerator: "self.generator",
    ConsumesRandom: "self.random",
    ConsumesLegacy: "self.legacy",
    ConsumesIterator: "self.iterator",
    WritesSmallArray: "self.small",
    WritesStridedArray: "self.strided",
    CountsOnClass: "CountsOnClass.total",
    CountsOnBase: "Base.shared",
    CountsGlobally: "tests.stateful.calls",
    AppendsGlobally: "tests.stateful.seen",
    WritesGlobalArray: "tests.stateful.table",
}
"""What each of them changes."""


class UsesRandomness(Base):
    def touch(self, index: int) -> None:
        self.rng(index).normal()
        np.random.rand()
        random.random()


class ReadsEverything(Base):
    def touch(self, index: int) -> None:
        log.debug(
            "%s", [self.small.sum(), self.large.sum(), self.nested, LOOKUP["a"], calls, len(seen), table, self.epoch]
        )


class BuildsInPlace(Base):
    def __getitem__(self, index: int) -> Any:
        array = self.empty(3, np.int64)
        array[:] = index
        return array


class OpensOnFirstCall(Base):
    """As much old code does."""

    file: Any = None

    def touch(self, index: int) -> None:
        if self.file is None:
            self.file = Counter()


class HasResource(Base):
    @per_worker
    def resource(self) -> Iterator[Counter]:
        yield Counter()

    def touch(self, index: int) -> None:
        self.resource.step()


class HasCachedFunction(Base):
    def touch(self, index: int) -> None:
        square(index)


@functools.lru_cache
def square(number: int) -> int:
    return number**2


class HoldsFunctions(Base):
    """Functions and classes are taken by identity: naming them would import their modules."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.functions = [square, remember, lambda: 1, Counter, self.touch]
        self.elsewhere = remember_elsewhere()


def remember_elsewhere() -> Any:
    """Return a function that says that it is of a module whose import fails."""

    def function() -> None: ...

    function.__module__ = "tests.no_such_module"
    return function


INNOCENT: list[type[Base]] = [
    Base,
    UsesRandomness,
    ReadsEverything,
    BuildsInPlace,
    HasResource,
    HasCachedFunction,
    HoldsFunctions,
]


class Slotted:
    """Has no `__dict__`."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        return np.full(3, index)


class WritesLarge(Base):
    """Writes to an array that workers share, in a way of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def touch(self, index: int) -> None:
        x = self.large
        match self.how:
            case "item":
                x[index] = 1
            case "slice of a view":
                x[100:200][:] = 1
            case "operator":
                x += 1
            case "multiply a row":
                x.reshape(-1, 4)[index] *= 2
            case "out":
                np.add(x, 1, out=x)
            case "sort":
                x.sort()
            case "fill":
                x.fill(1)
            case "shuffle":
                np.random.shuffle(x)
            case "shuffle with rng":
                self.rng(index).shuffle(x)
            case "copyto":
                np.copyto(x, 1)
            case "flat":
                x.flat[3] = 1


WAYS = [
    *("item", "slice of a view", "operator", "multiply a row", "out", "sort"),
    *("fill", "shuffle", "shuffle with rng", "copyto", "flat"),
]

"""Sequences that go wrong in every way and at every point where the user's code runs.

A fault is on as long as a marker file exists, so that the same pool can be seen to work afterwards.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, per_worker
from tests.sequences import append_line, once

BATCHES = 8
AT = 3
"""The index that goes wrong."""


class TwoArguments(Exception):
    """Unpickles to an error of its own: pickle calls the class with what `Exception.__init__` was given."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")
        self.number = number


class NoReduce(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not this one")


class NoText(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text either")


class Holding(Exception):
    """Holds something that does not pickle."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Fields(Exception):
    """Pickles, with fields of its own."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text, code)
        self.code = code


def hang() -> None:
    threading.Event().wait()


def crash() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def abort() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


def raise_one(error: BaseException) -> None:
    raise error


FAULTS: dict[str, Callable[[], object]] = {
    "exception": lambda: raise_one(ValueError("broken")),
    "unpicklable exception": lambda: raise_one(TwoArguments("broken", 2)),
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": crash,
    "hang": hang,
}


class Leaf:
    """A leaf that goes wrong when it is made an array."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        FAULTS[self.fault]()
        raise AssertionError


class Reply(Exception):
    """An exception that goes wrong when it is pickled."""

    def __init__(self, fault: str) -> None:
        super().__init__("the reply breaks")
        self.fault = fault

    def __reduce__(self) -> Any:
        FAULTS[self.fault]()
        raise AssertionError


class Faulty(SafeSequence):
    """Goes wrong in one phase, in one way.

    Args:
        phase: unpickle, start, getitem, encode or reply.
        fault: A key of FAULTS.
        marker: A path; the fault is on while it exists.
    """

    def __init__(self, phase: str, fault: str, marker: Path) -> None:
        super().__init__()
        self.phase = phase
        self.fault = fault
        self.marker = str(marker)
        self.version = 0

    def _is(self, phase: str) -> bool:
        return self.phase == phase and os.path.exists(self.marker)

    def __len__(self) -> int:
        return BATCHES

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._is("unpickle"):
            FAULTS[self.fault]()

    def on_worker_start(self, worker: int) -> None:
        if self._is("start"):
            FAULTS[self.fault]()

    def __getitem__(self, index: int) -> Any:
        if index == AT:
            if self._is("getitem"):
                FAULTS[self.fault]()
            if self._is("encode"):
                return Leaf(self.fault)
            if self._is("reply"):
                raise Reply(self.fault)
        return np.full(3, index)


class Raises(SafeSequence):
    """Raises what a function makes, at one index."""

    def __init__(self, make: Callable[[], BaseException], batches: int = BATCHES, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.make = make
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        if index == AT:
            raise self.make()
        return np.full(3, index)


class Does(SafeSequence):
    """Does something at some indices; with a marker only once each."""

    def __init__(self, what: Callable[[], object], at: tuple[int, ...] = (AT,), once_in: Path | None = None) -> None:
        super().__init__()
        self.what = what
        self.at = at
        self.once_in = once_in and str(once_in)

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        if index in self.at and (self.once_in is None or once(f"{self.once_in}/{index}")):
            self.what()
        return np.full(3, index)


class RaisesInHook(SafeSequence):
    """Raises in the hook of this name, or builds a resource that raises when it is built or closed."""

    def __init__(self, hook: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hook = hook

    def __len__(self) -> int:
        return BATCHES

    def _call(self, hook: str) -> None:
        if self.hook == hook:
            raise Fields(f"broken {hook}", 7)

    def on_worker_start(self, worker: int) -> None:
        self._call("on_worker_start")

    def on_worker_stop(self) -> None:
        self._call("on_worker_stop")

    def on_epoch_begin(self) -> None:
        self._call("on_epoch_begin")

    def on_epoch_end(self) -> None:
        self._call("on_epoch_end")

    @per_worker
    def resource(self) -> Iterator[int]:
        self._call("build")
        yield 5
        self._call("close")

    def __getitem__(self, index: int) -> Any:
        return np.full(3, index + self.resource)


class Fickle(SafeSequence):
    """Batches that do not fit the first one, at some indices."""

    def __init__(self, changes: dict[int, Any], batches: int = BATCHES) -> None:
        super().__init__()
        self.changes = changes
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        return self.changes.get(index, {"x": np.full((4, 2), index, np.float32), "y": np.arange(4)})


class EndlessFailure(SafeSequence):
    """An endless sequence that fails from some index on."""

    num_batches = None

    def __init__(self, first: int, log: Path) -> None:
        super().__init__()
        self.first = first
        self.log = str(log)

    def __getitem__(self, index: int) -> Any:
        if index >= self.first:
            append_line(self.log, str(index))
            raise ValueError(f"no batch {index}")
        return np.full(3, index)


class Sized:
    """Has the length that it is told; no SafeSequence."""

    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> Any:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return np.full(3, index)


def recurse(index: int) -> Any:
    return recurse(index)


def long_story() -> BaseException:
    """Return an exception at the end of a chain of two hundred, each with its own frames."""
    error: BaseException = ValueError("the first")
    for number in range(200):
        try:
            raise RuntimeError(f"number {number}") from error
        except RuntimeError as later:
            error = later
    return error


class SlowAfterFast:
    """Two hundred batches that take no time, so that many are in a task; then some that take a while each."""

    def __len__(self) -> int:
        return 230

    def __getitem__(self, index: int) -> Any:
        if index >= 200:
            threading.Event().wait(0.05)
        return np.full(3, index)


def none(index: int) -> Any:
    raise ValueError("none")

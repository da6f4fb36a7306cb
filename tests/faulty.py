"""Sequences that go wrong in every way and at every point where the user's code runs.

A fault is on as long as a marker file exists, so that the same pool can be seen to work afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from keras_mpseq import SafeSequence, per_worker
from keras_mpseq.channel import Channel
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


def overflow() -> None:
    """Let C code call itself until the stack is used up: Python's own limit sees nothing of it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 23, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    ctypes.CDLL(None).regcomp(ctypes.create_string_buffer(256), b"(" * 500_000, 1)


def raise_one(error: BaseException) -> None:
    raise error


def recurse(index: int = 0) -> Any:
    return recurse(index)


# What a worker, or the template, does to the pipe on which the pool hears it. Neither has another socket.


def pipe_of_this_process() -> int:
    """Return the descriptor of our end."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # The descriptor of the listing itself.
            if str(link.readlink()).startswith("socket:"):
                return int(link.name)
    raise AssertionError


def write_garbage() -> None:
    os.write(pipe_of_this_process(), b"print() of some library, gone astray" * 3)


def close_pipe() -> None:
    os.close(pipe_of_this_process())


def write_half() -> None:
    """Write a message up to its half, and die."""
    pipe = pipe_of_this_process()
    ours, theirs = Channel.pair()
    ours.send(b"." * 100)
    os.write(pipe, theirs.recv(1000)[:50])
    os._exit(0)


FAULTS: dict[str, Callable[[], object]] = {
    "exception": lambda: raise_one(ValueError("broken")),
    "exception that does not unpickle": lambda: raise_one(TwoArguments("broken", 2)),
    "exception that does not pickle": lambda: raise_one(NoReduce("broken")),
    "sys.exit": lambda: sys.exit(3),
    "recursion error": recurse,
    "MemoryError": lambda: bytearray(1 << 60),
    "os._exit(0)": lambda: os._exit(0),
    "quick_exit": lambda: ctypes.CDLL(None).quick_exit(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": crash,
    "C stack overflow": overflow,
    "hang": hang,
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "garbage in its pipe": write_garbage,
    "its pipe closed": close_pipe,
    "half a message": write_half,
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
    """Goes wrong where and how a file says, for as long as the file is there.

    Args:
        marker: Path of the file: a phase and a key of FAULTS; see `go_wrong`.
    """

    def __init__(self, marker: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.marker = str(marker)
        self.version = 0

    def _told(self, phase: str) -> str | None:
        """Return the fault that is on in *phase*."""
        try:
            on, fault = Path(self.marker).read_text().split("|")
        except FileNotFoundError:
            return None
        return fault if on == phase else None

    def _maybe(self, phase: str) -> None:
        if fault := self._told(phase):
            FAULTS[fault]()

    def __len__(self) -> int:
        return BATCHES

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._maybe("update" if self.version else "unpickle")

    def on_worker_start(self, worker: int) -> None:
        self._maybe("start")

    def on_worker_stop(self) -> None:
        self._maybe("stop")

    def on_epoch_begin(self) -> None:
        self._maybe("epoch begin")

    def on_epoch_end(self) -> None:
        self._maybe("epoch end")

    @per_worker
    def resource(self) -> Iterator[int]:
        self._maybe("build")
        yield 0
        self._maybe("close")

    def __getitem__(self, index: int) -> Any:
        if index == AT:
            self._maybe("getitem")
            if fault := self._told("encode"):
                return Leaf(fault)
            if fault := self._told("reply"):
                raise Reply(fault)
        return np.full(3, index + self.resource)


def go_wrong(marker: str | Path, phase: str, fault: str) -> None:
    """Put a fault on: unpickle, update, start, build, epoch begin, epoch end, getitem, encode, reply, close or stop."""
    Path(f"{marker}.new").write_text(f"{phase}|{fault}")
    Path(f"{marker}.new").replace(marker)  # In one step: a worker may be looking.


def go_right(marker: str | Path) -> None:
    """Put the fault off."""
    Path(marker).unlink(missing_ok=True)


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


# --- what happens to processes around a pool --------------------------------------------------------


def _children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "keras_mpseq.process" in " ".join(child.cmdline())]


def template() -> psutil.Process:
    """Return the template of the only pool of this process."""
    [child] = _children()
    return child


def kill_template() -> None:
    """Kill it, and wait for its end without taking its status away from the pool."""
    found = template()
    workers = found.children()
    found.kill()
    os.waitid(os.P_PID, found.pid, os.WEXITED | os.WNOWAIT)
    psutil.wait_procs(workers, 5.0)


def kill_tracker() -> None:
    """Kill the resource tracker of multiprocessing, which is the user's: we have none."""
    resource_tracker.ensure_running()
    pid = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for process in psutil.Process().children(recursive=True):
        assert "resource_tracker" not in " ".join(process.cmdline()), process


def fork() -> None:
    """Let the user's code fork, and wait for the end of what it forked."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Around(Faulty):
    """Something happens to the processes before the second epoch begins, or once while a worker starts.

    Args:
        act: Its name in ACTS.
        marker: As for Faulty.
    """

    def __init__(self, act: str, marker: Path) -> None:
        super().__init__(marker)
        self.act = act

    def on_epoch_begin(self) -> None:
        if self.epoch == 1:
            ACTS[self.act](self)

    def on_epoch_end(self) -> None:
        if self.epoch == 1 and self.act == "template stopped, and continued after the epoch":
            template().resume()

    def on_worker_start(self, worker: int) -> None:
        what = {"template killed while": signal.SIGKILL, "template stopped while": signal.SIGSTOP}
        number = what.get(self.act.removesuffix(" it starts a worker"))
        if number and once(f"{self.marker}.once"):
            os.kill(os.getppid(), number)
            hang()

    def load_again(self) -> None:
        go_wrong(self.marker, "unpickle", "SIGKILL")
        kill_template()

    def stop_and_kill(self) -> None:
        found = template()
        found.suspend()
        for worker in found.children():
            worker.kill()


ACTS: dict[str, Callable[[Around], object]] = {
    "template killed": lambda _: kill_template(),
    "template killed while it starts a worker": lambda _: None,
    "template killed, and the next one while it loads": Around.load_again,
    "template stopped": lambda _: template().suspend(),
    "template stopped, and continued after the epoch": lambda _: template().suspend(),
    "template stopped while it starts a worker": lambda _: None,
    "template stopped, and its workers killed": Around.stop_and_kill,
    "resource tracker killed": lambda _: kill_tracker(),
    "os.fork() by the user": lambda _: fork(),
}

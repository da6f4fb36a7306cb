"""Measure the batches that one process builds, and look every so often where `__getitem__` is.

A thread looks at the stack of the thread that builds, fifty times a second; between batches it finds nothing to
look at. What is measured is told in groups, because a message for each of many small batches would cost as much as
the batch. Both together take less than 3 % of the throughput: `python -m tests.bench --only profile`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from keras_mpseq.build import build
from keras_mpseq.messages import Frame, Recorded, Stack, Timing
from keras_mpseq.state.reach import UserCode

T = TypeVar("T")

_LOOK_S = 0.02
"""Between two looks. To look means to take the interpreter from the thread that builds, which costs some 0.1 ms."""
_SWITCH_S = 0.0005
"""After which the interpreter is handed to the thread that looks. With Python's own 5 ms a shorter `__getitem__` would
be over by then, each time, and never be seen."""
_TELL_S = 0.1
"""Between two messages."""
_DEEPEST = 40
"""Calls of a stack that are kept, the outermost: recursion would make every stack another one."""
_SCHEDSTAT = "/proc/thread-self/schedstat"
"""Nanoseconds on a core, and nanoseconds that the thread was ready and had none."""


class Recorder:
    """Owns the thread that looks, and on Linux a descriptor; may be used by one thread at a time."""

    def __init__(self, sequence: object) -> None:
        self._user = UserCode()
        self._user.learn(sequence)
        self._timings: list[Timing] = []
        self._stacks: Counter[Stack] = Counter()
        self._lock = threading.Lock()
        """Of the stacks."""
        self._builder: int | None = None
        """The thread that is in `__getitem__`."""
        self._began = self._build_s = self._cpu_s = self._queued_s = 0.0
        self._told = time.perf_counter()
        self._over = threading.Event()
        self._queue: tuple[int, int] | None = None
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._looker = threading.Thread(target=self._look, name="keras_mpseq-recorder", daemon=True)
        self._looker.start()

    def timed(self, call: Callable[[], T]) -> Callable[[], T]:
        """Return *call*, measured."""

        def measured() -> T:
            queued, cpu = self._queued(), time.process_time()
            self._began = time.perf_counter()
            self._builder = threading.get_ident()
            try:
                return call()
            finally:
                self._builder = None
                self._build_s = time.perf_counter() - self._began
                self._cpu_s = time.process_time() - cpu
                self._queued_s = self._queued() - queued

        return measured

    def encoded(self, index: int, encode_s: float, nbytes: int) -> None:
        """Note that the batch that was built last lies where it is to lie."""
        times = (self._began, self._build_s, encode_s, self._cpu_s, self._queued_s)
        self._timings.append(Timing(index, *times, nbytes))

    def told(self, *, at_once: bool = False) -> Recorded | None:
        """Return what was measured since the last time; None when it is too early, unless it is to be *at_once*."""
        now = time.perf_counter()
        if now - self._told < _TELL_S and not at_once:
            return None
        with self._lock:
            stacks, self._stacks = self._stacks, Counter()
        timings, self._timings, self._told = self._timings, [], now
        return Recorded(tuple(timings), tuple(stacks.items()))

    def close(self) -> None:
        """End the thread, and leave the process as it was."""
        self._over.set()
        self._looker.join()
        sys.setswitchinterval(self._switch_s)
        self._let_go()

    def _let_go(self) -> None:
        if self._queue:
            queue, self._queue = self._queue, None
            os.close(queue[1])

    def _queued(self) -> float:
        """Return for how many seconds this thread has waited for a core so far."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            thread = threading.get_ident()
            if self._queue is None or self._queue[0] != thread:
                self._let_go()
                self._queue = thread, os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
            return int(os.pread(self._queue[1], 100, 0).split()[1]) / 1e9
        return 0.0

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            builder = self._builder
            if builder is not None and (stack := self._stack(sys._current_frames().get(builder))):
                with self._lock:
                    self._stacks[stack] += 1

    def _stack(self, frame: types.FrameType | None) -> Stack:
        """Return the calls below ours: the user's, or where there are none, those of libraries."""
        calls, users = [], []
        while frame is not None and frame.f_code is not build.__code__:
            call = Frame(frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno or 0)
            calls.append(call)
            if self._user.owns_frame(frame):
                users.append(call)
            frame = frame.f_back
        return tuple(reversed(users or calls))[:_DEEPEST] if frame is not None else ()

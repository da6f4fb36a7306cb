"""Two threads that take turns at every line of the user's code: what can go wrong between two lines goes wrong.

Left to the interpreter, two threads would change turns so seldom that most races never show.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

from keras_mpseq.state.reach import UserCode

_PATIENCE_S = 0.05
"""Seconds to wait for the turn: the other thread may be waiting for a lock that this one holds."""
_MOST_WAITS = 20
"""Waits in vain after which the threads run as they like."""


def interleave(jobs: Sequence[Callable[[], None]], code: UserCode) -> None:
    """Run two jobs, each in a thread of its own, line by line in turns.

    Args:
        jobs: What the threads do; both catch what they raise.
        code: Which files are the user's.
    """
    turns = _Turns(code)
    threads = [threading.Thread(target=turns.run, args=(number, job)) for number, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Turns:
    def __init__(self, code: UserCode) -> None:
        self._code = code
        self._turns = threading.Semaphore(1), threading.Semaphore(0)
        self._mine = threading.local()
        self._left = _MOST_WAITS
        self._ended = False

    def run(self, number: int, job: Callable[[], None]) -> None:
        self._mine.number = number
        self._wait()
        sys.settrace(self._enter)
        try:
            job()
        finally:
            sys.settrace(None)
            self._ended = True
            self._turns[1 - number].release()

    def _enter(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        del event, argument
        return self._step if self._code.owns(frame.f_code.co_filename) else None

    def _step(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        del frame, argument
        if event == "line" and not self._ended and self._left:
            self._turns[1 - self._mine.number].release()
            self._wait()
        return self._step

    def _wait(self) -> None:
        if not self._turns[self._mine.number].acquire(timeout=_PATIENCE_S):
            self._left -= 1

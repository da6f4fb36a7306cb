"""A KeyboardInterrupt may come at any line. Afterwards the pool works, or says that it is closed; it never hangs.

An interrupt that is caught, as in a notebook, leaves the pool in use. `sys.settrace` raises it here at the n-th line
that the package runs in the consumer's thread, for n in large steps.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import keras_mpseq
from keras_mpseq import Loader, PoolClosedError
from keras_mpseq.local_backend import LocalBackend
from tests.conftest import Scripts, alarm
from tests.sequences import Counting
from tests.test_parent_ends import LIGHT

PACKAGE = str(Path(keras_mpseq.__file__).parent)
SHAPE = (64, 64, 4)


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line of the package; a context manager.

    Args:
        at: Which line, from 1.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""

    def __enter__(self) -> Interrupt:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def told(self) -> str:
        return f"It hangs after an interrupt at {self.where}."

    def _call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self._line


def consumed(loader: Loader) -> list[int]:
    return [int(batch.flat[0]) % 1000 for batch in loader]


# An interrupt inside a finalizer is swallowed, by Python: it goes on as if there had been none.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("step", [23, 31, 41, 59])
def test_an_interrupt_at_any_line(step: int) -> None:
    loader = Loader(Counting(8, SHAPE), workers=2, prefetch=1)
    at = step
    for round in itertools.count():
        interrupt = Interrupt(at)
        with alarm(interrupt.told, 20.0):
            try:
                with interrupt:
                    assert consumed(loader) == list(range(8))
            except KeyboardInterrupt:
                pass
            try:
                for _ in range(2):
                    assert consumed(loader) == list(range(8)), interrupt.where
            except PoolClosedError:
                loader.close()
                loader = Loader(Counting(8, SHAPE), workers=2, prefetch=1)
        at += step
        if interrupt.left > 0:  # The whole epoch took fewer lines.
            assert round > 10
            break
    loader.close()

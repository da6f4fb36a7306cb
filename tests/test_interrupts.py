"""An interrupt may come at any line. Afterwards the pool works, or says that it is closed; it never hangs.

An interrupt that is caught, as in a notebook, leaves the pool in use. `sys.settrace` raises it here at the n-th line
that the package runs in the consumer's thread, for n in large steps.
"""

from __future__ import annotations

import itertools
import resource
import signal
import sys
import tracemalloc  # noqa: F401  pytest imports it when it reports, and then it is too late: an import can be interrupted
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import psutil
import pytest

import keras_mpseq
from keras_mpseq import Loader, MpseqError, PoolClosedError
from tests.conftest import PATIENCE_S, Scripts, alarm, described
from tests.sequences import Counting
from tests.test_parent_ends import FOREVER, LIGHT, assert_ended

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


# An interrupt inside a finalizer is swallowed, by Python: it goes on as if there had been none. One between the birth
# of a descriptor and the line that notes it loses the descriptor.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.may_lose_descriptors
@pytest.mark.slow
@pytest.mark.parametrize("step", [67, 103])
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.may_lose_descriptors
@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_an_interrupt_while_a_loader_closes_ends_its_workers(launcher: str) -> None:
    for at in itertools.count(1, 17):
        loader = Loader(Counting(8, SHAPE), workers=2, launcher=launcher)
        assert consumed(loader) == list(range(8))
        processes = psutil.Process().children(recursive=True)
        interrupt = Interrupt(at)
        try:
            with interrupt:
                loader.close()
        except KeyboardInterrupt:
            loader.close()  # It may have come before the first step.
        _, alive = psutil.wait_procs(processes, PATIENCE_S)
        assert not alive, f"After an interrupt at {interrupt.where} there live {[described(p) for p in alive]}."
        with pytest.raises(PoolClosedError):
            consumed(loader)
        if interrupt.left > 0:
            assert at > 50
            break


def test_a_signal_handler_may_close_the_loader(scripts: Scripts) -> None:
    body = """
import signal
from keras_mpseq import PoolClosedError
batches = Loader(Sequence(1 << 16), workers=2)
signal.signal(signal.SIGTERM, lambda *_: batches.close())
try:
""" + FOREVER.replace("\n", "\n    ")
    script = scripts.start(LIGHT + body + "\nexcept PoolClosedError:\n    say('closed')")
    script.wait_for("ready")
    children = script.descendants()
    script.process.send_signal(signal.SIGTERM)
    assert script.ended() == (0, "closed\n", "")
    assert_ended(children)


class Changing(Counting):
    """Breaks the rule that `__getitem__` does not change the sequence, which is worth a warning."""

    def __getitem__(self, index: int) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_warning_that_a_filter_makes_an_error_loses_no_batch(workers: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with alarm("It hangs after a warning."), Loader(Changing(8), workers=workers) as loader:
            iterator, got, raised = iter(loader), [], []
            while True:
                try:
                    got.append(int(next(iterator)[0, 0]))
                except UserWarning as warning:
                    raised.append(str(warning))
                except StopIteration:
                    break
            assert got == list(range(8))
            assert len(raised) == 1
            assert raised[0].startswith("Changing.__getitem__ changed self.calls (SEQ205, ")
            assert consumed(loader) == list(range(8))


class NoMemory(Counting):
    """Its workers may not let files grow, as when shared memory is used up."""

    def on_worker_start(self, worker: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_memory_that_cannot_be_had_is_an_error_and_no_endless_loop() -> None:
    with (
        alarm("It starts one worker after the other."),
        Loader(NoMemory(shape=(1 << 18,)), workers=2) as loader,
        pytest.raises(MpseqError, match=r"^Shared memory cannot be had: .*File too large"),
    ):
        list(loader)


def test_descriptors_that_cannot_be_had_are_an_error(scripts: Scripts) -> None:
    """Wherever they run out: in making a pool, in starting workers, or in mapping slots, here or in a worker."""
    body = """
import gc, resource
from keras_mpseq import MpseqError
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
raised = []
for spare in range(2, 60):
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + spare, most))
    made = []
    try:
        with Loader(Sequence(), workers=2, launcher=launcher) as loader:
            assert len(list(loader)) == 50
    except MpseqError as error:
        raised.append(str(error))
        assert "cannot be" in str(error) and "Too many open files" in str(error) and "ulimit" in str(error), error
        error.__traceback__ = None
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == open_now, spare
assert 5 < len(raised) < 50, len(raised)
"""
    for launcher in ("template", "spawn"):
        assert scripts.run(LIGHT + body, launcher) == ""


def test_arrays_of_a_closed_pool_in_a_ring_do_no_harm() -> None:
    loader = Loader(Counting(20, SHAPE), workers=2)
    ring: list[Any] = list(loader)
    ring.append(ring)
    loader.close()
    assert int(np.asarray(ring[3]).flat[0]) == 3

"""What a child of `check` does first: load the sequence once, then fork a process for each trial, or be the one trial.

The process that loads runs none of the user's code after that, so that every trial begins with the same state.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import mmap
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_mpseq import lifeline, payload, role
from keras_mpseq.channel import Channel
from keras_mpseq.checks import leftovers
from keras_mpseq.checks.records import Began, Ended, Failed, Loaded, Setup, Trial
from keras_mpseq.checks.trial import load_and_run

FORK_S = 10.0
"""Seconds that a call may take in a fork of a process with several threads: what hangs there is tried anew."""
_CLEANING_S = 5.0
"""Seconds that what a trial leaves behind may take to be removed."""


def main(channel_fd: int, lifeline_fd: int, stack_fd: int) -> None:
    """Serve trials on the other end of *channel_fd*, until it is closed."""
    lifeline.hold(lifeline_fd)
    leftovers.adopt()
    role.in_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what Ctrl-C means.
    channel = Channel(socket.socket(fileno=channel_fd))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # The parent has gone, or given up.
        setup, fds = channel.receive()
        loaded = _Loading(setup, fds, stack_fd)
        channel.send(loaded.report)
        while not loaded.report.error:
            trial, (fd,) = channel.receive()
            if setup.forks:
                channel.send(Ended(_forked(loaded, trial, fd, channel)))
            else:
                loaded.run(trial, fd)
                break
    os._exit(0)


class _Loading:
    """The sequence and the factory of a child."""

    def __init__(self, setup: Setup, fds: list[int], stack_fd: int) -> None:
        self._stack = stack_fd
        self._timeout_s = setup.timeout_s
        self._sequence: Any = None
        self._factory: Callable[[], Any] | None = None
        faulthandler.enable(stack_fd)
        with self._deadline():
            try:
                self._load(setup, fds)
                error = ""
            except BaseException:  # Modules of the user's, and __setstate__, do what they like.
                error = traceback.format_exc()
        if "cv2" in sys.modules:  # OpenCV's pool does not survive a fork.
            sys.modules["cv2"].setNumThreads(1)
        gc.collect()
        self.report = Loaded(_threads(), error)

    def _load(self, setup: Setup, fds: list[int]) -> None:
        buffers = [
            _copied_on_write(fd, nbytes) for fd, nbytes in zip(fds, (*setup.nbytes, setup.factory), strict=False)
        ]
        if setup.factory:
            self._factory = pickle.loads(buffers.pop())
        if setup.nbytes:
            self._sequence = payload.unpack(buffers[0], buffers[1:])

    @contextlib.contextmanager
    def _deadline(self, most_s: float = float("inf")) -> Any:
        self._set_deadline(most_s)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _set_deadline(self, most_s: float) -> None:
        # A thread of C, which needs neither the GIL nor a signal: it ends whatever hangs, and says where.
        faulthandler.dump_traceback_later(min(self._timeout_s, most_s), exit=True, file=self._stack)

    def run(self, trial: Trial, fd: int, most_s: float = float("inf")) -> None:
        """Run *trial* in this process and send what it saw, each call within the time-out and *most_s* seconds."""
        results = Channel(socket.socket(fileno=fd))

        def tell(began: Began) -> None:
            self._set_deadline(most_s)  # Each call has the whole time.
            results.send(began)

        with self._deadline(most_s):
            try:
                results.send(load_and_run(trial, self._sequence, self._factory, tell))
            except BaseException:  # Ours: what the user's code raises is part of the outcome.
                results.send(Failed(traceback.format_exc()))
        with self._deadline(_CLEANING_S):
            _unlink_what_is_forgotten()


def _forked(loaded: _Loading, trial: Trial, fd: int, channel: Channel) -> int:
    """Run *trial* in a process of its own, and return how that ended."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            lifeline.die_with(parent)
            channel.close()
            loaded.run(trial, fd, FORK_S if loaded.report.threads > 1 else float("inf"))
            status = 0
        except BaseException:  # Nothing may get past the fork, back into the loop.
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _unlink_what_is_forgotten() -> None:
    """Let the process end that unlinks shared memory which nobody did, as it does when a program ends."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    if module is not None:
        with contextlib.suppress(Exception):  # It has no public name, and may be another's child.
            module._resource_tracker._stop()


def _copied_on_write(fd: int, nbytes: int) -> memoryview:
    """Map a file for reading, and for writing that nobody else sees: arrays are writeable, as the user's are."""
    try:
        return memoryview(mmap.mmap(fd, nbytes, access=mmap.ACCESS_COPY) if nbytes else b"")
    finally:
        os.close(fd)


def _threads() -> int:
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:  # No /proc: Python's own threads are what can be seen.
        return threading.active_count()

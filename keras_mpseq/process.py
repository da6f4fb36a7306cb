"""What a child process does first: the template, which loads the sequence once and forks, or a spawned worker.

The template has one thread, waits for Fork and Kill and for the ends of its children, and runs none of the user's
code after loading it. It reports every end with its status: the training process is not the workers' parent and
could not learn it otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import os
import selectors
import signal
import socket
import sys
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from keras_mpseq import lifeline, role
from keras_mpseq.channel import Channel
from keras_mpseq.errors import MpseqError, scarce
from keras_mpseq.messages import Exited, Fork, Forked, Kill, Loaded, Setup, Unfit


def main(kind: str, channel_fd: int, lifeline_fd: int, stack_fd: int, number: int) -> None:
    """Be the template (*kind* "template") or worker *number* ("spawn") on the other end of *channel_fd*."""
    lifeline.hold(lifeline_fd)
    role.in_worker = True
    for fd in (channel_fd, lifeline_fd, stack_fd):  # Not for programs that the user's code starts.
        os.set_inheritable(fd, False)
    # Ctrl-C goes to the whole group; the training process decides what it means and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    channel = Channel(socket.socket(fileno=channel_fd))
    # The other end may close at any time, as when Ctrl-C interrupts the start of the pool: that is no error here.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            setup, fds = channel.receive()
        except MpseqError as error:
            _tell(kind, channel, error)
            return
        if kind == "template":
            _be_template(channel, setup, fds, stack_fd)
        else:
            _be_spawned(number, channel, setup, fds, stack_fd)


def _tell(kind: str, channel: Channel, error: MpseqError) -> None:
    """Say why this process cannot do what it was started for."""
    from keras_mpseq.worker import dump_error

    data = dump_error(error)
    channel.send(Loaded(1, data) if kind == "template" else Unfit(data))


def _load(setup: Setup, fds: list[int]) -> tuple[Any, list[Any]]:
    """Return the sequence and the slots."""
    from keras_mpseq.slots import Slot
    from keras_mpseq.worker import load

    sequence = load(setup.state, fds[setup.slots :])
    if "cv2" in sys.modules:  # OpenCV's pool does not survive a fork, and workers are parallel already.
        sys.modules["cv2"].setNumThreads(setup.threads)
    return sequence, [Slot(fd) for fd in fds[: setup.slots]]


def _be_spawned(number: int, channel: Channel, setup: Setup, fds: list[int], stack: int) -> None:
    from keras_mpseq.worker import keep_stack, run_worker

    keep_stack(stack)
    try:
        sequence, slots = _load(setup, fds)
    except MpseqError as error:
        _tell("spawn", channel, error)
        return
    run_worker(number, channel, setup, slots, sequence, stack)
    os._exit(0)  # As a forked worker ends: exit handlers belong to the training process.


def _be_template(channel: Channel, setup: Setup, fds: list[int], stack: int) -> None:
    faulthandler.enable(stack)
    try:
        sequence, slots = _load(setup, fds)
    except MpseqError as error:
        _tell("template", channel, error)
        return
    faulthandler.disable()
    os.close(stack)
    gc.collect()
    gc.freeze()  # Collections in the workers would write to, and so copy, every page of what is shared.
    threads = _thread_count()
    try:
        channel.send(Loaded(threads))
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        from keras_mpseq.worker import die_cut_off

        die_cut_off()  # The user's code closed the channel.
    if threads == 1:
        Template(channel, setup, slots, sequence).serve()


def _thread_count() -> int:
    """Return how many threads there are, those of native code too; 0 where the system does not tell."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return 0


class Template:
    """Forks workers; owns its channel and one pidfd for each living worker."""

    def __init__(self, channel: Channel, setup: Setup, slots: list[Any], sequence: Any) -> None:
        self._channel = channel
        self._setup = setup
        self._slots = slots
        self._sequence = sequence
        self._pids: dict[int, int] = {}
        self._unheard: deque[tuple[Fork | Kill, list[int]]] = deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, None)

    def serve(self) -> None:
        """Serve until the pool closes its end, then end what is left."""
        while not self._channel.ended:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._unheard.extend(self._channel.receive_ready())
                    while self._unheard:
                        self._obey(*self._unheard.popleft())
                else:
                    self._reap(key.data, key.fd)
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _obey(self, message: Fork | Kill, fds: list[int]) -> None:
        match message:
            case Fork(worker):
                self._fork(worker, *fds)
            case Kill(worker, number):
                # Not reaped yet, so the pid cannot belong to another process.
                if worker in self._pids:
                    os.kill(self._pids[worker], number)

    def _fork(self, worker: int, channel_fd: int, stack_fd: int) -> None:
        from keras_mpseq.worker import flush

        flush()
        template = os.getpid()
        try:
            with scarce("A worker process cannot be started"):
                pid = os.fork()
                if pid == 0:
                    self._be_worker(worker, channel_fd, stack_fd, template)
                self._pids[worker] = pid
                pidfd = os.pidfd_open(pid)
        except MpseqError as error:
            self._refuse(worker, channel_fd, error)
        else:
            self._channel.send(Forked(worker, pid))
            self._selector.register(pidfd, selectors.EVENT_READ, worker)
            os.close(channel_fd)
        os.close(stack_fd)

    def _refuse(self, worker: int, channel_fd: int, error: MpseqError) -> None:
        """Say in the worker's place that it cannot start, and why."""
        from keras_mpseq.worker import dump_error

        if (pid := self._pids.pop(worker, None)) is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        channel = Channel(socket.socket(fileno=channel_fd))
        channel.send(Unfit(dump_error(error)))
        channel.close()
        self._channel.send(Exited(worker, 1))

    def _be_worker(self, worker: int, channel_fd: int, stack_fd: int, template: int) -> None:
        from keras_mpseq.worker import run_worker

        status = 1
        try:
            lifeline.die_with(template)
            for fd in [key.fd for key in self._selector.get_map().values() if key.data is not None]:
                os.close(fd)
            for _, fds in self._unheard:  # The channels of workers that come after this one are none of its business.
                for fd in fds:
                    os.close(fd)
            self._selector.close()
            self._channel.close()
            channel = Channel(socket.socket(fileno=channel_fd))
            run_worker(worker, channel, self._setup, self._slots, self._sequence, stack_fd)
            status = 0
        except BaseException:  # Nothing may get past the fork, back into the template's loop.
            traceback.print_exc()
        finally:
            os._exit(status)

    def _reap(self, worker: int, pidfd: int) -> None:
        _, status = os.waitpid(self._pids.pop(worker), 0)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        self._channel.send(Exited(worker, os.waitstatus_to_exitcode(status)))

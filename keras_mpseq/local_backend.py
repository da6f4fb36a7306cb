"""Processes on this machine: channels, a launcher, and one selector that waits for all of them at once."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from keras_mpseq.backend import Ended, PoolSlot, Said
from keras_mpseq.channel import Channel
from keras_mpseq.deadlines import start_limit
from keras_mpseq.launcher import Launcher, SpawnLauncher, TemplateLauncher
from keras_mpseq.messages import Exited, Setup, Stop
from keras_mpseq.native import described
from keras_mpseq.options import Options
from keras_mpseq.slots import FILES_OF_A_MAPPING, Slot, anonymous_file, room_for_files
from keras_mpseq.versions import SharedSegment
from keras_mpseq.worker import ASK_SIGNAL, DUMP_SIGNAL

_FILES_OF_A_WORKER = {"template": 2, "spawn": 4}
"""Descriptors: its channel and stack file; of a process of its own, also lifeline and sentinel."""
_FILES_OF_A_START = 9
"""Descriptors that are open only while a process is being started, or that belong to the template."""
_STACK_BYTES = 1 << 16
_PATIENCE_S = 1.0
"""For the end of a dead worker's channel; see `Channel.receive_rest`."""
log: logging.Logger = logging.getLogger("keras_mpseq")


class LocalWorkplace:
    """This machine. See Workplace."""

    depth = 2
    slot: Callable[[], Slot] = staticmethod(Slot.new)
    segment: Callable[[memoryview | bytes], SharedSegment] = staticmethod(SharedSegment.of)

    def __init__(self, options: Options) -> None:
        self.max_bytes: int = options.max_bytes
        self._options = options

    def backend(self, setup: Setup, slots: Sequence[PoolSlot], handles: Sequence[int]) -> LocalBackend:
        """See Workplace."""
        launcher, limits = self._options.launcher, self._options.limits
        # Where workers are replaced, the old one and its successor are there at the same time.
        processes = setup.workers * (1 if limits.max_tasks_per_worker is None else 2)
        room_for_files(FILES_OF_A_MAPPING * len(slots) + _FILES_OF_A_WORKER[launcher] * processes + _FILES_OF_A_START)
        fds = [*(slot.fd for slot in slots if isinstance(slot, Slot)), *handles]
        return LocalBackend(setup, fds, launcher, start_limit(limits.timeout))


class LocalBackend:
    """Owns the launcher, a channel and a stack file for each worker, and the wake-up pipe.

    Args:
        setup: What each worker is told first.
        fds: Descriptors of the slots, then of the segments of `setup.state`; they stay the pool's.
        launcher: "template" or "spawn".
        start_s: Seconds that loading the sequence may take; None means for ever.
    """

    def __init__(self, setup: Setup, fds: Sequence[int], launcher: str, start_s: float | None) -> None:
        self._setup = setup
        self._fds = list(fds)
        self._selector = selectors.DefaultSelector()
        self._channels: dict[int, Channel] = {}
        self._stacks: dict[int, int] = {}
        self._wakeup, self._waker = os.pipe()  # Not pipe2, which macOS does not have.
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._waker, False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)
        self._launcher: Launcher = (
            TemplateLauncher(setup, self._fds, self._selector, start_s)
            if launcher == "template"
            else SpawnLauncher(setup, self._fds, self._selector)
        )

    def start(self) -> None:
        """See Backend. Falls back to spawn when loading the sequence started threads, which forbid a fork."""
        if isinstance(self._launcher, TemplateLauncher):
            threads = self._launcher.start()
            if threads != 1:
                why = (
                    f"loading the sequence starts threads ({threads - 1})" if threads else "there is no /proc/self/task"
                )
                log.info("Workers are spawned, which takes longer than forking: %s.", why)
                self._launcher = SpawnLauncher(self._setup, self._fds, self._selector)

    def spawn(self, worker: int) -> None:
        """See Backend."""
        stack = self._stacks.get(worker)
        if stack is None:
            stack = self._stacks[worker] = anonymous_file()
            fcntl.fcntl(stack, fcntl.F_SETFL, os.O_APPEND)  # Each process writes from the start of an emptied file.
        os.ftruncate(stack, 0)
        channel, end = Channel.pair()
        try:
            with end:
                if isinstance(self._launcher, SpawnLauncher):
                    channel.send(self._setup, self._fds)
                self._launcher.launch(worker, end.fileno(), stack)
        except BaseException:
            channel.close()
            raise
        self._channels[worker] = channel
        self._selector.register(channel, selectors.EVENT_READ, worker)

    def send(self, worker: int, message: Any, handles: Sequence[int] = ()) -> None:
        """See Backend."""
        channel = self._channels.get(worker)
        if channel is not None:
            with contextlib.suppress(OSError):  # It died; its end will be told.
                channel.send(message, handles)

    def interrupt(self, worker: int) -> None:
        """See Backend."""
        self._launcher.kill(worker, DUMP_SIGNAL)

    def ask(self, worker: int) -> None:
        """See Backend."""
        os.ftruncate(self._stacks[worker], 0)  # What it wrote when it was asked about another batch.
        self._launcher.kill(worker, ASK_SIGNAL)

    def answer(self, worker: int) -> str:
        """See Backend."""
        stack = self._stack(worker)
        os.ftruncate(self._stacks[worker], 0)
        return stack

    def state(self, worker: int) -> str:
        """See Backend."""
        pid = self._launcher.pid(worker)
        return "" if pid is None else described(pid)

    def node(self, worker: int) -> str:  # noqa: ARG002
        """See Backend."""
        return ""

    def kill(self, worker: int) -> None:
        """See Backend."""
        self._launcher.kill(worker, signal.SIGKILL)

    def wait(self, timeout_s: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """See Backend."""
        return self._selector.select(timeout_s)

    def receive(self, ready: list[tuple[selectors.SelectorKey, int]]) -> list[Said | Ended]:
        """See Backend."""
        happened: list[Said | Ended] = []
        ends: list[Exited] = []
        for key, _ in ready:
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 4096)
            elif isinstance(key.data, int):
                happened += self._read(key.data)
            else:
                ends += key.data.receive(key.fd)
        for end in ends:
            happened += self._bury(end)
        return happened

    def _read(self, worker: int) -> list[Said | Ended]:
        channel = self._channels[worker]
        said: list[Said | Ended] = [Said(worker, message) for message, _ in channel.receive_ready()]
        if channel.ended:
            # It is dying, or it lives and has closed its end or garbled it; its launcher will tell of its end in either
            # case. Of the first signal it dies only if it lives: that is how the two are told apart.
            self._selector.unregister(channel)
            self._launcher.kill(worker, signal.SIGHUP)
            self.kill(worker)
        return said

    def _bury(self, end: Exited) -> list[Said | Ended]:
        channel = self._channels.pop(end.worker, None)
        if channel is None:  # Its start was interrupted.
            return []
        if channel.fileno() in self._selector.get_map():
            self._selector.unregister(channel)
        rest = [Said(end.worker, message) for message, _ in channel.receive_rest(_PATIENCE_S)]
        channel.close()
        return [*rest, Ended(end.worker, end.status, self._stack(end.worker))]

    def _stack(self, worker: int) -> str:
        return os.pread(self._stacks[worker], _STACK_BYTES, 0).decode(errors="replace")

    def wake(self) -> None:
        """See Backend."""
        with contextlib.suppress(BlockingIOError):  # A full pipe wakes as well.
            os.write(self._waker, b"\0")

    def close(self, patience_s: float) -> list[Said | Ended]:
        """See Backend."""
        happened: list[Said | Ended] = []
        deadline = time.monotonic() + patience_s
        with contextlib.ExitStack() as end:  # Carried out, last first, also when Ctrl-C interrupts the wait.
            end.callback(self._close_files)
            end.callback(lambda: self._launcher.close(0.0 if self._channels else max(0.0, deadline - time.monotonic())))
            for worker in self._channels:
                self.send(worker, Stop())
            while self._channels and (left := deadline - time.monotonic()) > 0:
                happened += self.receive(self.wait(left))
        return happened

    def let_go(self) -> None:
        """See Backend."""
        self._launcher.let_go()

    def _close_files(self) -> None:
        for channel in self._channels.values():
            channel.hang_up()
        self._channels.clear()
        self._selector.close()
        for fd in (self._wakeup, self._waker, *self._stacks.values()):
            os.close(fd)

"""How a worker process comes to be: forked from a template process, or spawned.

Both start children with exec, never with fork, of the training process (decision S1): the child's environment is set
before it imports anything, it inherits no thread, lock or file but those that are named. Workers ask for nothing of
`multiprocessing` and do not import `__main__`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from typing import ClassVar, Protocol

from keras_mpseq import native
from keras_mpseq.channel import Channel
from keras_mpseq.errors import WorkerLostError, WorkerTimeoutError, describe_exit, load_error
from keras_mpseq.messages import Exited, Fork, Forked, Kill, Loaded, Setup
from keras_mpseq.slots import anonymous_file

_THREADS_OF = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
_NO_BACKGROUND = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keras imports pandas, and so pyarrow, where they are installed; its allocator's thread would forbid a fork."""
_STACK_BYTES = 1 << 16
_BOOT = "import sys; sys.path[:] = {path!r}; from keras_mpseq.process import main; main({args})"


class Launcher(Protocol):
    """Starts workers and tells of their ends. Owned by a backend."""

    def launch(self, worker: int, channel_fd: int, stack_fd: int) -> None:
        """Start *worker* on its end of a channel; both descriptors stay the caller's."""

    def kill(self, worker: int, number: int) -> None:
        """Send the signal *number* to *worker*, if it lives."""

    def pid(self, worker: int) -> int | None:
        """Return the number of the process of *worker*, if it is known."""

    def receive(self, fd: int) -> list[Exited]:
        """Return the ends that the descriptor *fd*, which became readable, tells of."""

    def let_go(self) -> None:
        """Make every process that was started and lives die at once."""

    def close(self, patience_s: float) -> None:
        """End every process that was started and wait for it."""


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of children: GPUs hidden, *threads* threads for numeric libraries."""
    return {**_NO_BACKGROUND, **os.environ, **_NO_GPU, **dict.fromkeys(_THREADS_OF, str(threads))}


class _Child:
    """A process started with exec. Owns the writing end of its lifeline."""

    _all: ClassVar[weakref.WeakSet[_Child]] = weakref.WeakSet()

    def __init__(self, kind: str, channel_fd: int, stack_fd: int, number: int, threads: int) -> None:
        # As multiprocessing does: -O, -W, -X and the like change what the user's code means.
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with contextlib.ExitStack() as given, contextlib.ExitStack() as undo:
            end, self._lifeline = os.pipe()
            given.callback(os.close, end)
            undo.callback(self.let_go)
            marks = []
            if not hasattr(os, "pidfd_open"):  # Instead, a pipe whose only writer is the child, and so ends with it.
                self.sentinel, mark = os.pipe()
                given.callback(os.close, mark)
                undo.callback(os.close, self.sentinel)
                marks = [mark]
            # Inherited: until the child ignores SIGINT itself, Ctrl-C would end it with a traceback of its own.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            given.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
            args = f"{kind!r}, {channel_fd}, {end}, {stack_fd}, {number}"
            self.process = subprocess.Popen(
                [sys.executable, *flags, "-c", _BOOT.format(path=sys.path, args=args)],
                pass_fds=[channel_fd, end, stack_fd, *marks],
                stdin=subprocess.DEVNULL,
                env=child_environment(threads),
            )
            undo.callback(self.process.wait)
            undo.callback(self.process.kill)
            if not marks:
                self.sentinel = os.pidfd_open(self.process.pid)
            self._all.add(self)
            undo.pop_all()

    def wait(self, patience_s: float) -> int:
        """Wait, kill when patience ends, and return the exit status."""
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
        finally:  # Also when Ctrl-C interrupts the wait.
            self.process.kill()
            status = self.process.wait()
            os.close(self.sentinel)
            self.let_go()
        return status

    def let_go(self) -> None:
        """Close the lifeline: the child dies, unless another process holds it too."""
        lifeline, self._lifeline = self._lifeline, -1  # First, or an interrupt in between would have it closed twice.
        if lifeline >= 0:
            os.close(lifeline)


def _let_go() -> None:
    """In a process that the user's code forked: hold nobody's lifeline."""
    for child in _Child._all:
        child.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class TemplateLauncher:
    """Forks workers from a template (decision S2). Starts it anew when it has died."""

    def __init__(
        self, setup: Setup, fds: Sequence[int], selector: selectors.BaseSelector, start_s: float | None
    ) -> None:
        self._setup = setup
        self._fds = fds
        self._selector = selector
        self._start_s = start_s
        self._template: _Child | None = None
        self._channel: Channel | None = None
        self._alive: dict[int, int | None] = {}
        """Its process number for each worker, as soon as it is known."""

    def start(self) -> int:
        """Start the template, wait until it has loaded the sequence, and return its number of threads.

        Raises:
            PayloadError: The sequence does not unpickle there.
            WorkerLostError: The process died before.
            WorkerTimeoutError: It took longer than allowed.
        """
        with contextlib.ExitStack() as done, contextlib.ExitStack() as undo:
            stack = anonymous_file()
            done.callback(os.close, stack)
            channel, end = Channel.pair()
            undo.callback(channel.close)
            with end:
                self._template = _Child("template", end.fileno(), stack, -1, self._setup.threads)
            threads = self._await(channel, stack)
            undo.pop_all()
        return threads

    def _await(self, channel: Channel, stack: int) -> int:
        """Send the template what to load, and wait until it has; see start()."""
        try:
            channel.send(self._setup, self._fds)
            loaded, _ = channel.receive(self._start_s)
        except TimeoutError:
            raise self._late(channel, stack) from None
        except (EOFError, OSError):
            raise self._died(channel, stack) from None
        return self._loaded(channel, loaded)

    def _loaded(self, channel: Channel, loaded: Loaded) -> int:
        if loaded.error or loaded.threads != 1:
            channel.close()
            self.close(1.0)
            if loaded.error:
                raise load_error(loaded.error)
            return loaded.threads
        self._channel = channel
        self._selector.register(channel, selectors.EVENT_READ, self)
        return loaded.threads

    def launch(self, worker: int, channel_fd: int, stack_fd: int) -> None:
        """See Launcher."""
        if self._channel is None and (threads := self.start()) != 1:
            raise WorkerLostError(
                "The template process of the workers died, and a new one cannot fork: "
                + (f"it has {threads} threads" if threads else "the system does not tell its number of threads"),
                remedy='Use launcher="spawn".',
            )
        assert self._channel is not None
        self._alive[worker] = None
        self._tell(Fork(worker), (channel_fd, stack_fd))

    def kill(self, worker: int, number: int) -> None:
        """See Launcher."""
        if self._channel is not None and worker in self._alive:
            self._tell(Kill(worker, number))

    def _tell(self, message: Fork | Kill, fds: tuple[int, ...] = ()) -> None:
        assert self._channel is not None
        self._rouse()
        with contextlib.suppress(OSError):  # It has just died: receive() will tell of its workers' ends as well.
            self._channel.send(message, fds)

    def pid(self, worker: int) -> int | None:
        """See Launcher."""
        return self._alive.get(worker)

    def receive(self, fd: int) -> list[Exited]:
        """See Launcher; a dead template is the end of every worker it had."""
        del fd
        assert self._channel is not None
        ends = []
        for message, _ in self._channel.receive_ready():
            if isinstance(message, Forked):
                self._alive[message.worker] = message.pid
            else:
                ends.append(message)
                self._alive.pop(message.worker, None)
        if self._channel.ended:
            self._selector.unregister(self._channel)
            self._channel.close()
            self._channel = None
            status = self._template.wait(1.0) if self._template else -signal.SIGKILL
            self._template = None
            ends += [Exited(worker, status) for worker in sorted(self._alive)]
            self._alive.clear()
        return ends

    def _rouse(self) -> None:
        """Continue the template if somebody stopped it (SIGSTOP): it would not hear, and the epoch would stand still.

        One that a debugger holds cannot be continued. It is ended, and with it its workers.
        """
        assert self._template is not None
        match native.state(self._template.process.pid):
            case "T":
                self._signal(signal.SIGCONT)
            case "t":
                self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._template is not None:
            self._template.process.send_signal(number)

    def _died(self, channel: Channel, stack: int) -> WorkerLostError:
        self._signal(signal.SIGHUP)  # It may live, and have closed its end or garbled it.
        name, remedy = describe_exit(self._end_of_start(channel))
        return WorkerLostError(
            f"The template process of the workers died ({name}) while it loaded the sequence",
            remedy=remedy,
            traceback=_written(stack),
        )

    def _late(self, channel: Channel, stack: int) -> WorkerTimeoutError:
        self._signal(signal.SIGABRT)  # Makes it write its stack.
        self._end_of_start(channel)
        error = WorkerTimeoutError(
            f"The template process of the workers was killed because loading the sequence took longer than "
            f"{self._start_s:g} s",
            remedy="Raise timeout, or see in the stack below what it waits for.",
        )
        error.stack = _written(stack)
        return error

    def _end_of_start(self, channel: Channel) -> int:
        channel.close()
        status = self._template.wait(1.0) if self._template else 1
        self._template = None
        return status

    def let_go(self) -> None:
        """See Launcher."""
        if self._template is not None:
            self._template.let_go()

    def close(self, patience_s: float) -> None:
        """See Launcher."""
        if self._channel is not None:
            self._selector.unregister(self._channel)
            self._channel.hang_up()
            self._channel = None
        if self._template is not None:
            self._template.wait(patience_s)
            self._template = None


def _written(stack: int) -> str:
    return os.pread(stack, _STACK_BYTES, 0).decode(errors="replace")


class SpawnLauncher:
    """Starts each worker as a process of its own, which loads the sequence itself."""

    def __init__(self, setup: Setup, fds: Sequence[int], selector: selectors.BaseSelector) -> None:
        self._setup = setup
        self._fds = fds
        self._selector = selector
        self._children: dict[int, _Child] = {}
        self._sentinels: dict[int, int] = {}

    def launch(self, worker: int, channel_fd: int, stack_fd: int) -> None:
        """See Launcher."""
        child = _Child("spawn", channel_fd, stack_fd, worker, self._setup.threads)
        self._children[worker] = child
        self._sentinels[child.sentinel] = worker
        self._selector.register(child.sentinel, selectors.EVENT_READ, self)

    def kill(self, worker: int, number: int) -> None:
        """See Launcher."""
        if worker in self._children:
            self._children[worker].process.send_signal(number)

    def pid(self, worker: int) -> int | None:
        """See Launcher."""
        return self._children[worker].process.pid if worker in self._children else None

    def receive(self, fd: int) -> list[Exited]:
        """See Launcher."""
        return [self._reap(fd, 0.0)]

    def _reap(self, sentinel: int, patience_s: float) -> Exited:
        worker = self._sentinels.pop(sentinel)
        self._selector.unregister(sentinel)
        status = self._children[worker].wait(patience_s)
        del self._children[worker]  # Not before, or an interrupt would lose its lifeline.
        return Exited(worker, status)

    def let_go(self) -> None:
        """See Launcher."""
        for child in self._children.values():
            child.let_go()

    def close(self, patience_s: float) -> None:
        """See Launcher."""
        for sentinel in list(self._sentinels):
            self._reap(sentinel, patience_s)

"""Starts the children that run trials, gives them the sequence, and ends them; nothing of the user's runs here.

A child ends itself when a trial takes too long, and writes its stack; the deadlines here are for a child that cannot
even do that.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

from keras_mpseq.channel import Channel
from keras_mpseq.checks import leftovers
from keras_mpseq.checks.records import Began, Blocked, Ended, Failed, Loaded, Outcome, Setup, Trial
from keras_mpseq.errors import MpseqError
from keras_mpseq.launcher import child_environment
from keras_mpseq.payload import Packed
from keras_mpseq.slots import anonymous_file
from keras_mpseq.versions import SharedSegment

_BOOT = "import sys; sys.path[:] = {path!r}; from keras_mpseq.checks.process import main; main({args})"
_GRACE_S = 10.0
"""Seconds beyond its time-out for a child to write its stack and end."""
_STACK_BYTES = 1 << 16


class LoadingError(Exception):
    """The sequence did not come to be in a fresh process.

    Args:
        text: The child's traceback, or its stack if it was too late.
        status: Exit status of a child that died; None if it lives.
        late: It took too long.
    """

    def __init__(self, text: str, status: int | None = None, late: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.late = late


class Parcel:
    """The sequence, and the factory, in shared memory. Owns the segments.

    Args:
        packed: The sequence; None if only a factory can make it.
        factory: Pickle of the factory; empty if there is none.
    """

    def __init__(self, packed: Packed | None, factory: bytes) -> None:
        self._segments: list[SharedSegment] = []
        pieces: list[bytes | memoryview] = [] if packed is None else [packed.data, *packed.buffers]
        self.nbytes: tuple[int, ...] = tuple(memoryview(piece).nbytes for piece in pieces)
        self.factory: int = len(factory)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for piece in [*pieces, *([factory] if factory else [])]:
                self._segments.append(SharedSegment.of(piece))
            undo.pop_all()

    @property
    def fds(self) -> list[int]:
        """Descriptors of the segments."""
        return [segment.handle for segment in self._segments]

    def close(self) -> None:
        """Free the memory."""
        while self._segments:
            self._segments.pop().close()


class Lab:
    """One kind of child: forks trials from a process that has loaded the sequence, or starts one for each.

    Args:
        parcel: What is loaded.
        environment: What is different in its environment.
        timeout_s: Seconds that loading, or one call, may take.
    """

    def __init__(self, parcel: Parcel, environment: dict[str, str], timeout_s: float) -> None:
        self._parcel = parcel
        self._environment = environment
        self._timeout_s = timeout_s
        self._forks = sys.platform == "linux"
        self.hung: Blocked | None = None
        """A trial that hung in a fork of a process with several threads, and did not in a fresh one."""
        self._child: _Child | None = self._start()

    def _start(self) -> _Child:
        setup = Setup(self._parcel.nbytes, self._parcel.factory, self._timeout_s, self._forks)
        return _Child(self._environment, setup, self._parcel.fds)

    def run(self, trial: Trial) -> Outcome | Blocked:
        """Run *trial* and return what it saw.

        Raises:
            LoadingError: The sequence cannot be loaded.
        """
        result, threads = self._run(trial)
        if isinstance(result, Blocked) and self._forks and threads > 1:
            # A fork copies one thread of several, and the locks of all: it may be our fork that hangs.
            self._forks = False
            self.close()
            hung = result
            result, _ = self._run(trial)
            self.hung = None if isinstance(result, Blocked) else hung
        return result

    def _run(self, trial: Trial) -> tuple[Outcome | Blocked, int]:
        child = self._child = self._child or self._start()
        threads = child.loaded()
        try:
            return child.run(trial), threads
        finally:
            if not (self._forks and child.lives):
                self.close()

    def close(self) -> None:
        """End the child and all that it started."""
        if self._child is not None:
            self._child.close()
            self._child = None


class _Heard:
    """What a trial has said so far."""

    def __init__(self) -> None:
        self.began: Began | None = None
        self.outcome: Outcome | None = None

    def take(self, results: Channel) -> bool:
        """Read what has arrived; return whether a call has begun."""
        begun = False
        for message, _ in results.receive_ready():
            match message:
                case Began():
                    self.began, begun = message, True
                case Failed(text):
                    raise MpseqError("check() failed in a child, through a fault of its own", traceback=text)
                case _:
                    self.outcome = message
        return begun


class _Child:
    """A process that was started with exec, in a session of its own. Owns it, its lifeline, channel and stack file."""

    def __init__(self, environment: dict[str, str], setup: Setup, fds: list[int]) -> None:
        self._patience_s = setup.timeout_s + _GRACE_S
        self._loaded: Loaded | None = None
        self.lives = True
        with contextlib.ExitStack() as undo:
            self._stack = anonymous_file()
            undo.callback(os.close, self._stack)
            self._channel, end = Channel.pair()
            undo.callback(self._channel.close)
            reading, self._lifeline = os.pipe()
            undo.callback(os.close, self._lifeline)
            with end, contextlib.ExitStack() as given:
                given.callback(os.close, reading)
                self._process = self._spawn(environment, (end.fileno(), reading, self._stack))
            undo.callback(self._end)
            self._channel.send(setup, fds)
            self._owned = undo.pop_all()

    @staticmethod
    def _spawn(environment: dict[str, str], fds: tuple[int, int, int]) -> subprocess.Popen[bytes]:
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        boot = _BOOT.format(path=sys.path, args=", ".join(map(str, fds)))
        return subprocess.Popen(
            [sys.executable, *flags, "-c", boot],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**child_environment(1), **environment},
            start_new_session=True,
        )

    def loaded(self) -> int:
        """Wait until the sequence is loaded; return how many threads the child has."""
        if self._loaded is None:
            try:
                self._loaded, _ = self._channel.receive(self._patience_s)
            except TimeoutError:
                raise LoadingError(self._written(), late=True) from None
            except (EOFError, OSError):
                late = "Timeout (" in self._written()
                raise LoadingError(self._written(), self._end(), late) from None
        if self._loaded.error:
            raise LoadingError(self._loaded.error)
        return self._loaded.threads

    def run(self, trial: Trial) -> Outcome | Blocked:
        """Run one trial."""
        os.lseek(self._stack, 0, os.SEEK_SET)
        os.ftruncate(self._stack, 0)
        results, end = Channel.pair()
        with contextlib.closing(results):
            with end:
                self._channel.send(trial, [end.fileno()])
            return self._await(trial, results)

    def _await(self, trial: Trial, results: Channel) -> Outcome | Blocked:
        heard = _Heard()
        status: int | None = None
        until = time.monotonic() + self._patience_s
        while status is None and time.monotonic() < until:
            # Not the end of the results alone: processes that the user's code forked hold them open.
            waiting = [channel for channel in (results, self._channel) if not channel.ended]
            ready, _, _ = select.select(waiting, [], [], max(0.0, until - time.monotonic()))
            if results in ready and heard.take(results):
                until = time.monotonic() + self._patience_s  # Each call has the whole time.
            if self._channel in ready:
                status = self._end_of_trial()
        if not results.ended:
            heard.take(results)
        if heard.outcome is not None:
            return heard.outcome
        stack = self._written()
        return Blocked(trial.name, heard.began, status or 0, stack, status is None or "Timeout (" in stack)

    def _end_of_trial(self) -> int | None:
        for message, _ in self._channel.receive_ready():
            if isinstance(message, Ended):
                return message.status
        if self._channel.ended:
            self.lives = False
            return self._end()
        return None

    def _written(self) -> str:
        return os.pread(self._stack, _STACK_BYTES, 0).decode(errors="replace")

    def _end(self) -> int:
        """End the whole session; return the exit status, its own if it had ended already."""
        # It leads the session and is not waited for yet, so the number is that of its group and of nothing else.
        if self._process.returncode is None:
            leftovers.end_descendants(self._process.pid)  # Also those that have left the session.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def close(self) -> None:
        """End it, and everything that it or the user's code started in its session."""
        self._owned.close()

"""The child's main loop: take tasks in order, build their batches into slots, answer.

A worker waits only on its channel. It looks at what has arrived before each batch, so that a run that was given up
costs no further build. It ends when told to, or when its channel ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import itertools
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import cloudpickle
import numpy as np

from keras_mpseq import payload
from keras_mpseq.build import Job, build, call_hook, placed
from keras_mpseq.channel import Channel
from keras_mpseq.codec import Structure, put_together, take_apart
from keras_mpseq.errors import Bare, MpseqError, PayloadError, SlotTooSmallError, UserCodeError, scarce, user_error
from keras_mpseq.local import WorkerInfo, close_resources, context, move_resources, set_worker_info
from keras_mpseq.messages import (
    Batch,
    Build,
    Done,
    Failure,
    Forget,
    Input,
    Layout,
    Over,
    Past,
    Setup,
    Skip,
    Start,
    Started,
    State,
    Stop,
    Stopped,
    Unfit,
)
from keras_mpseq.order import seed_globals
from keras_mpseq.recording import Recorder
from keras_mpseq.slots import Slot, read_only
from keras_mpseq.stateless import Watcher
from keras_mpseq.streams import PAST, in_its_words

DUMP_SIGNAL: int = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR1  # macOS has no SIGRTMIN.
"""Makes a worker write its Python stack to its stack file and die of the signal."""
ASK_SIGNAL: int = signal.SIGURG
"""Makes a worker write its Python stack and go on. Ignored by a process that has not come so far as to listen."""
_HEAP_KEPT = 1 << 22
"""Bytes."""
_TRACEBACK_LIMIT = 20_000
"""Characters kept of a traceback, of its start and its end: a message is to fit into the socket's buffer."""


def load(state: State, fds: Sequence[int]) -> Any:
    """Return the sequence of a state; closes *fds*.

    Raises:
        PayloadError: The user's code raised while the sequence was unpickled.
        MpseqError: There is no memory, or no descriptor, left.
    """
    with scarce("Shared memory of the sequence cannot be had"):
        buffers = [read_only(fd, nbytes) for fd, nbytes in zip(fds, state.nbytes, strict=True)]
    for fd in fds:
        os.close(fd)
    return unpacked(buffers)


def unpacked(buffers: Sequence[memoryview]) -> Any:
    """Return the sequence whose pickle and large arrays *buffers* are.

    Raises:
        PayloadError: The user's code raised while the sequence was unpickled.
    """
    try:
        return payload.unpack(buffers[0], buffers[1:])
    except BaseException as error:  # The user's __setstate__, or a module that cannot be imported.
        found = user_error("Unpickling the sequence in a worker", error)
        raise PayloadError(found.message, remedy=found.remedy, traceback=found.traceback) from error


def dump_error(error: MpseqError) -> bytes:
    """Pickle *error* and its cause for `load_error`, or without the cause where that does not survive the way."""
    half = _TRACEBACK_LIMIT // 2
    if len(error.traceback) > 2 * half:
        error.traceback = f"{error.traceback[:half]}\n[...]\n{error.traceback[-half:]}"
    cause, error.__cause__ = _dump_cause(error.__cause__), None
    if not _tried(error):  # A class of the user's.
        told = UserCodeError(f"__getitem__ raised {type(error).__name__}: {error.message}", traceback=error.traceback)
        told.index, told.epoch = error.index, error.epoch
        error = told
    data: bytes = cloudpickle.dumps((error, cause), 5)
    return data


def _dump_cause(cause: BaseException | None) -> bytes:
    if cause is None:
        return b""
    return _tried(cause) or _tried(
        Bare(type(cause), cause.args, {name: value for name, value in vars(cause).items() if _tried(value)})
    )


def _tried(value: object) -> bytes:
    """Pickle *value*; return nothing where that fails, or its return, as for many an exception of the user's."""
    try:
        data: bytes = cloudpickle.dumps(value, 5)
        pickle.loads(data)
    except BaseException:  # The user's code may do anything here, even call sys.exit().
        return b""
    return data


class Mouth(Protocol):
    """What a worker says its messages to, and asks for those that have arrived: a channel, or what stands for one."""

    @property
    def ended(self) -> bool:
        """Nobody is there any more."""

    def send(self, message: Any) -> None:
        """Say *message*."""

    def receive_ready(self) -> Sequence[tuple[Any, Sequence[Any]]]:
        """Return the messages that have arrived, without waiting, each with what came along."""


class Worker:
    """One worker process: owns its channel, its view of the slots, and the versions of the sequence.

    Args:
        number: Of the worker.
        channel: To the pool.
        setup: What the pool said of itself.
        slots: This process's views of them.
        sequence: The version of `setup.state`.
        load: Makes the sequence of a later version.
    """

    def __init__(
        self,
        number: int,
        channel: Mouth,
        setup: Setup,
        slots: Sequence[Slot],
        sequence: Any,
        load: Callable[[State, Sequence[Any]], Any] = load,
    ) -> None:
        self._load = load
        self._number = number % setup.workers  # Of its seat: a second process may be about to take it over.
        self._channel = channel
        self._setup = setup
        self._slots = slots
        self._versions = {setup.state.version: sequence}
        self._newest = sequence
        self._own: dict[str, Any] = {}
        self._tasks: deque[Build] = deque()
        self._building: int | None = None
        self._layouts: dict[Structure, int] = {}
        self._structures: dict[bytes, Structure] = {}
        self._watcher = Watcher(strict=setup.strict, alone=True)
        self._recorder = Recorder(sequence) if setup.record else None
        self._stopping = False
        self.cut_off: bool = False
        """The channel ended although nobody said Stop."""

    def run(self, channel: Channel) -> None:
        """Serve until told on *channel* to stop, or the pool is gone."""
        try:
            while not self._stopping:
                if not self._tasks:
                    self._take(*channel.receive())
                self._look()
                if self._tasks and not self._stopping:
                    self._answer(self._tasks.popleft())
        except MpseqError as error:
            self._channel.send(Unfit(dump_error(error)))
        except (EOFError, OSError):  # The pool is gone, or the user's code closed the channel: clean up as if told to.
            self._stopping = self.cut_off = True
        self._finish()

    def obey(self, message: Any, given: Sequence[Any] = ()) -> None:
        """Take *message*, with what was given along, and do all that follows from it."""
        try:
            self._take(message, given)
            self._look()
            while self._tasks and not self._stopping:
                self._answer(self._tasks.popleft())
        except MpseqError as error:
            self._channel.send(Unfit(dump_error(error)))
            self._stopping = True
        if self._stopping:
            self._finish()

    def _start(self) -> None:
        set_worker_info(WorkerInfo(self._number, self._setup.workers, self._setup.seed))
        seed_globals(self._setup.seed, 0, self._number)
        before = dict(_attributes(self._newest))
        call_hook(self._newest, "on_worker_start", self._number)
        after = _attributes(self._newest)
        self._own = {k: v for k, v in after.items() if k not in before or before[k] is not v}
        self._own.pop("_mpseq", None)

    def _look(self) -> None:
        for message, given in self._channel.receive_ready():
            self._take(message, given)
        if self._channel.ended:
            raise EOFError

    def _take(self, message: Any, given: Sequence[Any]) -> None:
        match message:
            case Build():
                self._tasks.append(message)
            case Skip(run):
                # Tasks of no batches, which are answered at once.
                self._tasks = deque(task._replace(indices=()) if task.run == run else task for task in self._tasks)
                if self._building == run:
                    self._building = None
            case State():
                self._adopt(message.version, self._load(message, given))
            case Forget(version):
                del self._versions[version]
            case Over(epoch):
                self._end_epoch(epoch)
            case Start():
                self._start()
                self._channel.send(Started())
            case Stop():
                self._stopping = True

    def _adopt(self, version: int, sequence: Any) -> None:
        move_resources(self._newest, sequence)
        _attributes(sequence).update(self._own)
        self._versions[version] = self._newest = sequence

    def _end_epoch(self, epoch: int) -> None:
        try:
            self._newest.over(epoch)
        except Exception as error:  # The user's `finally` blocks; the pool warns.
            self._channel.send(Stopped(dump_error(user_error("Closing a generator", error))))

    def _answer(self, task: Build) -> None:
        slot = self._slots[task.slot]
        self._building = task.run
        began = time.perf_counter()
        outcomes: list[Batch | Failure | Past] = []
        warning = ""
        slot.begin(task.room, task.used)
        for done, (index, given) in enumerate(itertools.zip_longest(task.indices, task.inputs)):
            if done:
                self._look()
            if self._building is None or self._stopping:
                break
            if isinstance(given, bytes):
                outcomes.append(Failure(given))
                continue
            outcome, told = self._outcome(slot, task, index, given)
            if done and isinstance(outcome, SlotTooSmallError):  # Behind the others. Alone it may fit.
                break
            outcomes.append(Failure(dump_error(outcome)) if isinstance(outcome, MpseqError) else outcome)
            warning = warning or told
            slot.progress = done + 1
        if self._recorder and (recorded := self._recorder.told()):
            self._channel.send(recorded)
        self._channel.send(Done(tuple(outcomes), time.perf_counter() - began, warning))

    def _outcome(
        self, slot: Slot, task: Build, index: int, given: Input | None
    ) -> tuple[Batch | MpseqError | Past, str]:
        job = Job(self._setup.seed, task.epoch, index)
        start = slot.used
        context.skipped.clear()
        sequence = self._versions[task.version]
        try:
            if given is not None:
                start -= sum(leaf.nbytes for leaf in given.leaves)  # A slot has to hold both.
                context.element = self._element(slot, given)
            call = functools.partial(build, sequence, job, slot)
            recorder = self._recorder
            batch, warning = self._watcher.call(sequence, job.epoch, recorder.timed(call) if recorder else call)
            if batch is PAST:
                return Past(), ""
            began = time.perf_counter()
            structure, parts = take_apart(batch, self._setup.doubles)
            leaves = tuple([slot.place(part, dtype) for part, dtype in zip(parts, structure.dtypes, strict=True)])
            nbytes = slot.used - start
            if recorder:
                recorder.encoded(index, time.perf_counter() - began, sum(leaf.nbytes for leaf in leaves))
            return Batch(self._layout(structure), leaves, nbytes, tuple(context.skipped)), warning
        except MpseqError as error:
            return in_its_words(placed(error, job), sequence), ""
        except BaseException as error:  # What the user's classes do while they are taken apart is the user's code too.
            return in_its_words(placed(user_error("Taking the batch apart", error), job), sequence), ""
        finally:
            context.element = None

    def _element(self, slot: Slot, given: Input) -> Any:
        """Return what the pool has put into the slot."""
        if given.structure not in self._structures:
            self._structures[given.structure] = pickle.loads(given.structure)
        structure = self._structures[given.structure]
        return put_together(structure, slot.arrays(given.leaves, structure.dtypes, copy=False))

    def _layout(self, structure: Structure) -> int:
        if structure not in self._layouts:
            number = self._layouts[structure] = len(self._layouts)
            # By value where it has to be: a named tuple of the user's __main__ is none of this process's.
            self._channel.send(Layout(number, cloudpickle.dumps(structure, 5)))
        return self._layouts[structure]

    def _finish(self) -> None:
        errors: list[MpseqError] = []
        closers: tuple[Callable[[], object], ...] = (
            lambda: call_hook(self._newest, "on_worker_stop"),
            lambda: close_resources(self._newest),
        )
        for close in closers:
            try:
                close()
            except BaseException as error:  # Told to the pool, which warns: the other resources must be closed as well.
                errors.append(
                    error if isinstance(error, MpseqError) else user_error("Closing a per_worker resource", error)
                )
        with contextlib.suppress(OSError):  # Nobody listens any more.
            self._channel.send(Stopped(dump_error(errors[0]) if errors else b""))


def _attributes(sequence: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = getattr(sequence, "__dict__", {})
    return attributes


def keep_stack(stack: int) -> None:
    """Let the Python stack go to the file *stack* in a crash, on DUMP_SIGNAL, and on ASK_SIGNAL."""
    faulthandler.enable(stack)
    # chain: after the dump the signal does what it did before, that is, it ends the process.
    faulthandler.register(DUMP_SIGNAL, stack, all_threads=True, chain=True)
    # Not all threads: those that run meanwhile cannot be read safely. Not chained: that would forgo SA_RESTART, without
    # which system calls of the user's code would fail with EINTR.
    faulthandler.register(ASK_SIGNAL, stack, all_threads=False, chain=False)


def run_worker(number: int, channel: Channel, setup: Setup, slots: list[Slot], sequence: Any, stack: int) -> None:
    """Be worker *number* until the end of this process.

    Args:
        number: Of the worker, from 0.
        channel: To the pool.
        setup: What the pool said of itself.
        slots: This process's views of them.
        sequence: The version of `setup.state`.
        stack: Descriptor of the file that the Python stack goes to in a crash or on DUMP_SIGNAL.
    """
    keep_stack(stack)
    # glibc keeps freed memory for later once a block so large was freed. Where batches lie in slots none ever is, and
    # the heap is given back after every sample (decision S18).
    np.empty(_HEAP_KEPT, np.uint8)
    worker = Worker(number, channel, setup, slots, sequence)
    worker.run(channel)
    flush()
    if worker.cut_off:
        die_cut_off()


def die_cut_off() -> None:
    """End as a process does that has not noticed yet that its channel is closed; see LocalBackend."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGHUP)


def flush() -> None:
    """Write what was printed, if that can be written; there may be no file, or no room on its disk."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()

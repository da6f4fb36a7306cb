"""What is told of workers that are slow, late or stopped, and of a pool that has locked itself up."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keras_mpseq import (
    InternalError,
    Loader,
    PoolClosedError,
    WorkerTimeoutError,
    deadlines,
    native,
    stacks,
    to_dataset,
    watch,
)
from keras_mpseq import engine as engine_module
from keras_mpseq.deadlines import ANSWER_S, LAST_WORDS_S, START_S, STOP_S, Deadlines, Due
from keras_mpseq.events import Action, Built, Deliver, Event, Finish, Send, Spawn
from keras_mpseq.messages import Task
from keras_mpseq.scheduler import Scheduler
from tests.conftest import alarm
from tests.sequences import Counting
from tests.slow import AT, BATCHES, Reads, SlowStart, Stops

LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])


# --- the clocks -------------------------------------------------------------------------------------


def test_a_slow_batch_is_asked_once_and_read_a_little_later() -> None:
    clocks = Deadlines(timeout=None, slow=10.0)
    assert clocks.left(0.0) is None
    clocks.build(0, 100.0)
    assert clocks.left(104.0) == 6.0
    assert clocks.due(109.9) == []
    assert clocks.reached(110.0) == [0]
    assert clocks.due(110.0) == [(0, Due.ASK)]
    assert clocks.due(110.0) == []
    assert clocks.left(110.0) == ANSWER_S
    assert clocks.reached(110.0 + ANSWER_S) == []
    assert clocks.due(110.0 + ANSWER_S) == [(0, Due.READ)]
    assert clocks.left(200.0) is None
    clocks.build(0, 300.0)
    assert clocks.due(310.0) == [(0, Due.ASK)]


def test_a_late_batch_is_interrupted_and_then_killed_once() -> None:
    clocks = Deadlines(timeout=5.0, slow=None)
    clocks.build(0, 0.0)
    assert clocks.due(5.0) == [(0, Due.INTERRUPT)]
    assert clocks.left(5.0) == LAST_WORDS_S
    assert clocks.due(5.0 + LAST_WORDS_S) == [(0, Due.KILL)]
    assert clocks.left(99.0) is None  # A process that waits for a device dies when that answers.
    assert not clocks.idle
    assert clocks.end(0) == 5.0
    assert clocks.idle
    assert clocks.end(0) is None


def test_a_start_has_its_own_time_and_an_end_too() -> None:
    clocks = Deadlines(timeout=1.0, slow=0.5)
    clocks.start(0, 0.0)
    assert clocks.left(0.0) == START_S
    clocks.rest(0)
    clocks.stop(1, 0.0)
    clocks.due(0.0)
    assert clocks.left(0.0) == STOP_S
    assert clocks.due(STOP_S) == [(1, Due.INTERRUPT)]


def test_looking_costs_nothing_before_the_next_deadline() -> None:
    clocks = Deadlines(timeout=None, slow=60.0)
    clocks.build(0, 0.0)
    clocks.rest(0)
    assert clocks.next == 60.0  # A lower bound.
    assert clocks.due(60.0) == []
    assert clocks.next == float("inf")


# --- what the watch does with them ------------------------------------------------------------------


class Clock:
    """Stands in for `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Backend:
    """Notes what it is told, and answers with one stack."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.stack = 'Stack (most recent call first):\n  File "/data.py", line 7 in load\n'

    def __getattr__(self, name: str) -> Callable[[int], Any]:
        answers = {"answer": lambda: self.stack, "state": lambda: "process 17 is sleeping"}
        return lambda worker: (self.told.append((name, worker)), answers.get(name, lambda: None)())[1]


class SlotOfOne:
    """A slot of a task of which nothing is finished."""

    since = 0.0
    progress = 0
    noted = -1


class Watched:
    """A watch over a pool that does not exist."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
        self.clock, self.backend, self.slot = Clock(), Backend(), SlotOfOne()
        monkeypatch.setattr(watch, "time", self.clock)
        with Loader(Counting(3), workers=0, **limits) as loader:
            options = loader._feed.source.options
        delivery = type("Delivery", (), {"slots": [self.slot]})()
        options = type("Options", (), {"limits": options.limits, "workers": 2})()
        self.watch = watch.Watch(options, self.backend, delivery, Counting(3))

    def send(self, worker: int, *indices: int) -> None:
        begun = type("Begun", (), {"number": 4})()
        self.watch.sent(worker, type("Run", (), {"begun": begun})(), Task(0, indices, indices, 0))

    def at(self, now: float) -> list[str]:
        """Let it be *now*, and return what is to be logged."""
        self.clock.now = now
        self.watch.look()
        said = list(self.watch.notices)
        self.watch.notices.clear()
        return said


def test_a_slow_batch_is_told_of_once_for_each_index(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, slow_warning_s=10)
    watched.watch.starts(3)
    watched.watch.started(3)
    watched.send(3, 402)
    assert watched.at(9.0) == watched.at(10.0) == []
    assert watched.backend.told == [("ask", 3)]
    # The second process at the seat of worker 1.
    assert watched.at(10.0 + ANSWER_S) == [
        "Worker 1 has been building batch 402 of epoch 4 for more than 10 s: it is in load, /data.py:7; "
        "process 17 is sleeping."
    ]
    watched.watch.answered(3)
    watched.send(3, 402)
    watched.send(3, 5)
    assert watched.at(30.0) == watched.at(40.0) == []
    watched.watch.answered(3)
    assert watched.at(50.0) == []
    assert [line[:33] for line in watched.at(60.0)] == ["Worker 1 has been building batch 5"[:33]]


def test_each_batch_of_a_task_has_its_own_time_before_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, slow_warning_s=10)
    watched.watch.starts(0)
    watched.send(0, 7, 8, 9)
    watched.slot.since, watched.slot.progress = 6.0, 1
    assert watched.at(10.0) == []
    assert watched.backend.told == []
    assert watched.at(16.0) == []
    watched.slot.since, watched.slot.progress = 16.5, 2  # While it writes its stack.
    assert watched.at(16.0 + ANSWER_S) == []
    watched.at(26.5)
    (line,) = watched.at(26.5 + ANSWER_S)
    assert "batch 9 of epoch 4" in line


def test_a_worker_that_waits_though_it_has_a_task_is_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, slow_warning_s=10)
    package = Path(watch.__file__).parent
    watched.backend.stack = (
        f'Stack (most recent call first):\n  File "{package}/channel.py", line 100 in _read\n'
        f'  File "{package}/channel.py", line 110 in receive\n  File "{package}/worker.py", line 5 in run\n'
    )
    watched.watch.starts(0)
    watched.send(0, 7)
    watched.at(10.0)
    assert watched.at(10.0 + ANSWER_S) == []
    assert not watched.watch.forgotten  # Its answer may have been on its way.
    watched.at(11.0 + ANSWER_S)
    assert watched.at(12.0 + 2 * ANSWER_S) == []
    assert watched.watch.forgotten == "worker 0 waits for a task, but it was sent one"


# --- slow workers -----------------------------------------------------------------------------------


class Writer(logging.Handler):
    """Writes to a FIFO when the worker that reads from it is told of."""

    def __init__(self, fifo: Path) -> None:
        super().__init__()
        self.fifo = fifo
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if f"building batch {AT} " in line or "starting" in line:  # Not another that is slow, on a machine that is.
            self.lines.append(line)
            self.fifo.write_bytes(b"12345")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """Something to read from, into which is written when a worker is told of as slow."""
    os.mkfifo(tmp_path / "fifo")
    handler = Writer(tmp_path / "fifo")
    logging.getLogger("keras_mpseq").addHandler(handler)
    yield handler
    logging.getLogger("keras_mpseq").removeHandler(handler)


@LAUNCHERS
def test_a_slow_batch_is_told_of_and_its_system_calls_are_not_disturbed(launcher: str, writer: Writer) -> None:
    sequence = Reads(writer.fifo)
    with alarm("It is never told of."), Loader(sequence, workers=2, launcher=launcher, slow_warning_s=0.05) as loader:
        batches = [int(batch[0]) for batch in loader]
        assert loader.stats().restarts == 0
    assert batches == [5 if index == AT else index for index in range(BATCHES)]
    (line,) = writer.lines
    assert re.fullmatch(
        rf"Worker [01] has been building batch {AT} of epoch 0 for more than 0\.05 s: "
        rf"it is in read, .*tests/slow\.py:\d+; process \d+ is sleeping in read of {writer.fifo}.*\.",
        line,
    )


def test_a_slow_batch_is_told_of_in_a_dataset(writer: Writer) -> None:
    with alarm("It is never told of."):
        dataset = to_dataset(Reads(writer.fifo), workers=1, slow_warning_s=0.05)
        assert [int(batch[0]) for batch in dataset] == [5 if index == AT else index for index in range(BATCHES)]
    assert len(writer.lines) == 1


def test_a_slow_start_is_told_of(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "START_S", 0.5)
    with alarm("It is never told of."), Loader(SlowStart(writer.fifo), workers=1, slow_warning_s=0.05) as loader:
        assert len(list(loader)) == BATCHES
    (line,) = writer.lines
    # Without the line where the machine is so slow that the worker does not listen yet.
    assert re.match(
        r"Worker 0 has been starting for more than 0\.5 s: (it is in on_worker_start, .*; )?process \d+ is", line
    )


def test_a_stopped_worker_is_told_of_and_goes_on(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    lines: list[str] = []

    class Continue(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if f"building batch {AT} " in record.getMessage():
                lines.append(record.getMessage())
                os.kill(int(told.read_text()), signal.SIGCONT)

    logger, handler = logging.getLogger("keras_mpseq"), Continue()
    logger.addHandler(handler)
    with alarm("It is never told of."), Loader(Stops(told), workers=2, slow_warning_s=0.05) as loader:
        assert [int(batch[0]) for batch in loader] == list(range(BATCHES))
        assert loader.stats().restarts == 0
    logger.removeHandler(handler)
    assert re.search(
        rf"batch {AT} of epoch 0 for more than 0\.05 s: process \d+ is stopped by a signal \(T\)", lines[0]
    )


# --- late workers -----------------------------------------------------------------------------------


def test_a_late_worker_that_is_stopped_is_killed_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LAST_WORDS_S", 0.1)
    with Loader(Stops(tmp_path / "pid"), workers=1, timeout=0.5, attempts=1) as loader:
        with pytest.raises(WorkerTimeoutError) as caught:
            list(loader)
        assert re.match(r"process \d+ is stopped by a signal \(T\)", caught.value.state)
        assert f"\n\nState of the worker: {caught.value.state}.\n" in f"{caught.value}\n"
        assert len(list(loader)) == BATCHES


# --- what the system says ---------------------------------------------------------------------------

_WAITS = """
import os, sys, threading
r, w = os.pipe()
threads = [threading.Thread(target=os.read, args=(r, 1), daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
print("up", flush=True)
sys.stdin.read(1)
os._exit(0)
"""


def test_the_state_of_a_process() -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        text = native.described(process.pid)
        process.kill()
    start = rf"process {process.pid} is stopped by a signal \(T\).*, has 3 threads \(besides the main one (.*)\) and "
    told = re.match(start, text)
    assert told and sum(map(int, re.findall(r"(\d) stopped by a signal", told[1]))) == 2  # Each where it had come to.
    assert re.search(r"\) and \d+ MB of memory$", text)
    assert native.described(process.pid) == ""


def test_nothing_is_said_of_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "17"
    monkeypatch.setattr(native, "Path", lambda *parts: tmp_path.joinpath(*parts[1:]))
    assert native.described(17) == ""
    root.mkdir()
    (root / "status").write_text("Name:\tpython\nState:\tD (disk sleep)\n")
    assert native.described(17) == "process 17 is waiting for a device or a file system (D)"
    (root / "status").write_text("State:\tD (disk sleep)\nVmRSS:\t  4096 kB\n")
    (root / "task" / "17").mkdir(parents=True)
    (root / "wchan").write_text("nfs_wait_bit")
    assert native.described(17) == (
        "process 17 is waiting for a device or a file system (D) (nfs_wait_bit), has 1 thread and 4 MB of memory"
    )


# --- stacks -----------------------------------------------------------------------------------------

PACKAGE = str(Path(stacks.__file__).parent)
LIBRARY = f"{os.__file__}"
STACKS = f"""Thread 0x00007f (most recent call first):
  File "{LIBRARY}", line 3 in wait

Current thread 0x00007e (most recent call first):
  File "{LIBRARY}", line 10 in open
  File "/home/me/data.py", line 41 in load
  File "{PACKAGE}/batched.py", line 99 in __getitem__
  File "{PACKAGE}/build.py", line 54 in build
  File "{PACKAGE}/worker.py", line 210 in _call
  File "<string>", line 1 in <module>
"""


def test_the_line_of_the_users_code() -> None:
    assert stacks.place_in(STACKS) == f"load, /home/me/data.py:41 (inside open, {LIBRARY}:10)"
    assert stacks.place_in(STACKS.replace("/home/me/data.py", LIBRARY)) == (
        f"__getitem__, {PACKAGE}/batched.py:99 (inside open, {LIBRARY}:10)"
    )
    assert stacks.place_in("") == stacks.place_in("Fatal Python error: Segmentation fault\n") == ""


def test_an_error_shows_the_stack_that_builds_first_and_without_our_calls() -> None:
    assert stacks.shown(STACKS) == (
        "Current thread 0x00007e (most recent call first):\n"
        f'  File "{LIBRARY}", line 10 in open\n'
        '  File "/home/me/data.py", line 41 in load\n'
        f'  File "{PACKAGE}/batched.py", line 99 in __getitem__\n\n'
        "Thread 0x00007f (most recent call first):\n"
        f'  File "{LIBRARY}", line 3 in wait'
    )
    assert stacks.shown("\n".join(f'Thread {n}:\n  File "a", line 1 in f' for n in range(20))).endswith(
        "and 12 more threads"
    )
    crash = f"Fatal Python error: Segmentation fault\n\n{STACKS}"
    assert stacks.shown(crash) == crash


# --- a pool that has locked itself up ---------------------------------------------------------------


def forgetting(kind: type[Action], number: int) -> type[Scheduler]:
    """Return a scheduler that does not tell the *number*-th of its actions of this kind."""

    class Forgetful(Scheduler):
        seen = 0

        def handle(self, event: Event) -> list[Action]:
            told = []
            for action in super().handle(event):
                self.seen += type(action) is kind
                if type(action) is not kind or self.seen != number:
                    told.append(action)
            return told

    return Forgetful


@pytest.mark.parametrize(
    ("kind", "number", "batches"),
    [(Spawn, 1, 9), (Send, 1, 9), (Send, 2, 2), (Deliver, 1, 9), (Deliver, 5, 9), (Finish, 1, 9)],
)
def test_a_scheduler_that_forgets_an_action_ends_in_an_error_with_its_trace(
    kind: type[Action], number: int, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "Scheduler", forgetting(kind, number))
    with alarm("It waits for ever."), Loader(Counting(batches), workers=1) as loader:
        with pytest.raises(InternalError) as caught:
            list(loader)
        text = str(caught.value)
        assert text.startswith(
            "The pool has locked itself up: the consumer of run 0 waits, but nobody works. This is a bug in "
            "keras_mpseq: please report it, with all of this text.\n\nWhat happened last:\n"
        )
        assert "Wanted(run=0) -> " in text
        assert f"{kind.__name__}(" in text  # Also the one that was not carried out.
        assert re.search(r"^worker 0: \w+, holds ", text, re.M)
        assert text.splitlines()[-1].startswith("to be sent again: []; slots: SlotCounts(free=")
        with pytest.raises(PoolClosedError):
            list(loader)


def test_an_event_that_cannot_be_is_told_with_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    class Confused(Scheduler):
        def handle(self, event: Event) -> list[Action]:
            return super().handle(event._replace(worker=7) if isinstance(event, Built) else event)

    monkeypatch.setattr(engine_module, "Scheduler", Confused)
    with Loader(Counting(3), workers=1) as loader, pytest.raises(InternalError) as caught:
        list(loader)
    assert caught.value.message == "What has happened cannot be (Worker 7 built a task, but there are 1, from 0)"
    assert "WorkerReady(worker=0) -> Send(" in str(caught.value)


def test_the_trace_holds_nothing_of_the_user() -> None:
    with Loader(Counting(200), workers=1) as loader:
        list(loader)
        scheduler = loader._feed.source._engine._scheduler
        assert len(scheduler.trace) == 64
        assert len(scheduler.report()) < 20_000

"""The package's scheduler and backend, with a record of all events and with a step of the timetable at each."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keras_mpseq import engine, local_backend, pool
from keras_mpseq.backend import Ended, Said
from keras_mpseq.events import Action, Deliver, Event, GiveUp, StartFailed, WorkerLost
from keras_mpseq.launcher import SpawnLauncher, TemplateLauncher
from keras_mpseq.local_backend import LocalBackend
from keras_mpseq.messages import Batch, Failure, Lost, Past
from keras_mpseq.order import Order
from keras_mpseq.scheduler import Scheduler
from keras_mpseq.worker import DUMP_SIGNAL
from tests.chaos.faults import Injector, children, state, ticks

_T = TypeVar("_T")
_EVENTS_KEPT = 300
_STACK_BYTES = 1 << 16
_DUMP_S = 2.0
"""For workers to write their stacks; the process is lost anyway."""


class Trace:
    """What a pool does while a script runs."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.events: deque[tuple[float, Event | str, list[Action | str]]] = deque(maxlen=_EVENTS_KEPT)
        self.injector: Injector | None = None
        self.engine: engine.Engine | None = None
        self.backend: LocalBackend | None = None
        self.closed = False
        self.moved = self.began
        """When something happened last."""
        self._ran: dict[int, int] = {}
        self.failed = 0
        """Outcomes that were errors and took a batch's place."""

    def step(self, name: str) -> None:
        """Make a step of the timetable."""
        self.moved = time.monotonic()
        if self.injector is not None:
            self.injector.step(name)

    def still(self) -> float:
        """Return for how many seconds nothing has moved: no event came, and no process of the pool ran."""
        template, workers = self.targets()
        ran = {pid: ticks(pid) for pid in filter(None, [template, *workers])}
        if ran != self._ran:
            self._ran = ran
            self.moved = time.monotonic()
        return time.monotonic() - self.moved

    def note(self, event: Event, actions: list[Action]) -> None:
        """Keep an event and what it led to."""
        self.events.append((time.monotonic() - self.began, _kept(event), [_kept(action) for action in actions]))
        for action in actions:
            if isinstance(action, Deliver):
                self.failed += isinstance(action.outcome, (Lost, Failure))
                if self.injector is not None:
                    self.injector.taken()

    def targets(self) -> tuple[int | None, list[int]]:
        """Return the pids of the template and of the workers."""
        launcher = getattr(self.backend, "_launcher", None)
        if isinstance(launcher, TemplateLauncher):
            template = launcher._template
            return (None, []) if template is None else (template.process.pid, children(template.process.pid))
        if isinstance(launcher, SpawnLauncher):
            pids = [child.process.pid for child in launcher._children.values()]
            return None, [pid for pid in pids if state(pid) not in ("Z", "X", "")]
        return None, []

    def lines(self) -> Iterator[str]:
        """Yield the last events, a line each."""
        for when, event, actions in self.events:
            yield f"{when:9.4f} {event if isinstance(event, str) else _short(event)}"
            for action in actions:
                yield f"            -> {action if isinstance(action, str) else _short(action)}"

    def stacks(self) -> Iterator[str]:
        """Yield what the other processes are at. Ends the workers."""
        template, workers = self.targets()
        for pid in filter(None, [template, *workers]):
            with contextlib.suppress(OSError):
                at = Path(f"/proc/{pid}/wchan").read_text()
                yield f"{'template' if pid == template else 'worker'} {pid}: state {state(pid)}, kernel function {at}"
            if pid != template:
                with contextlib.suppress(OSError):
                    os.kill(pid, DUMP_SIGNAL)
        time.sleep(_DUMP_S)
        for worker, fd in getattr(self.backend, "_stacks", {}).items():
            yield f"stack of worker {worker}:\n{os.pread(fd, _STACK_BYTES, 0).decode(errors='replace')}"


def _kept(value: _T) -> _T | str:
    """Return an event or action, or its text where it may hold an error: its traceback holds the dataset."""
    held = isinstance(value, (WorkerLost, StartFailed, GiveUp))
    held = held or not isinstance(getattr(value, "outcome", None), (Batch, Past, type(None)))
    held = held or any(isinstance(outcome, Failure) for outcome in getattr(value, "outcomes", ()))
    return _short(value) if held else value


def _short(value: Any) -> str:
    """Return an event or action without what takes much room."""
    if isinstance(value, Batch):
        return f"{value.nbytes} bytes"
    if hasattr(value, "_fields"):
        named = zip(value._fields, value, strict=True)
        return f"{type(value).__name__}({', '.join(f'{name}={_short(part)}' for name, part in named)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    return "..." if isinstance(value, Order) else repr(value)


@contextlib.contextmanager
def traced(trace: Trace, depth: int) -> Iterator[None]:
    """Let the pools that are made meanwhile tell *trace*; their workers hold *depth* tasks."""

    class Traced(Scheduler):
        def handle(self, event: Event) -> list[Action]:
            trace.step(type(event).__name__)
            actions = super().handle(event)
            trace.note(event, actions)
            return actions

    class Stepping(LocalBackend):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            trace.backend = self

        def spawn(self, worker: int) -> None:
            trace.step("spawn")
            super().spawn(worker)
            trace.step("spawned")

        def send(self, worker: int, message: Any, fds: Sequence[int] = ()) -> None:
            trace.step(f"send {type(message).__name__}")
            super().send(worker, message, fds)
            trace.step(f"sent {type(message).__name__}")

        def wait(self, timeout_s: float | None) -> Any:
            ready = super().wait(timeout_s)
            trace.step("waited")
            return ready

        def receive(self, ready: Any) -> list[Said | Ended]:
            happened = super().receive(ready)
            trace.step("received")
            return happened

        def close(self, patience_s: float) -> list[Said | Ended]:
            trace.step("close")
            trace.closed = True
            return super().close(patience_s)

    class Noted(engine.Engine):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            trace.engine = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Scheduler", Traced)
        patch.setattr(local_backend, "LocalBackend", Stepping)
        patch.setattr(local_backend.LocalWorkplace, "depth", depth)
        patch.setattr(pool, "Engine", Noted)
        yield

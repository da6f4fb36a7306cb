"""The user's code goes wrong: what it does, in which phase, and what is to come of it.

The faults of a row are put on one after another in the same pool, or in one `fit` after another, so that each cell
also shows that the pool, or the process, works after the cell before it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from keras_mpseq import crew, deadlines, local_backend
from tests.faults.entries import ENTRIES, LIMIT_S, Entry, OfFit, Setting, Told, logged
from tests.faulty import AT, BATCHES, Faulty, go_right, go_wrong

LAUNCHERS = ("template", "spawn")
# In this order the phase after each that is played when workers start begins with an epoch that works.
PHASES = {
    "unpickle": "unpickling the sequence, when workers start",
    "getitem": "`__getitem__`",
    "start": "`on_worker_start`",
    "encode": "making an array of what `__getitem__` returned",
    "build": "the builder of a `per_worker` resource",
    "reply": "pickling the exception that `__getitem__` raised",
    "update": "unpickling the sequence, changed between epochs",
    "epoch begin": "`on_epoch_begin`, in the training process",
    "epoch end": "`on_epoch_end`, in the training process",
    "close": "closing a `per_worker` resource",
    "stop": "`on_worker_stop`",
}
RAISED = {
    "exception": "ValueError: broken",
    "exception that does not unpickle": "TwoArguments: broken 2",
    "exception that does not pickle": "NoReduce: broken",
    "sys.exit": "SystemExit: 3",
    "recursion error": "RecursionError: maximum recursion depth exceeded",
    "MemoryError": "MemoryError",
}
ENDED = {
    "os._exit(0)": "exit code 0",
    "quick_exit": "exit code 0",
    "SIGKILL": "SIGKILL",
    "SIGSEGV": "SIGSEGV",
    "C stack overflow": "SIGSEGV",
}
STUCK = ("hang", "SIGSTOP")
PIPE = {"garbage in its pipe": "SIGHUP", "its pipe closed": "SIGHUP", "half a message": "exit code 0"}
FAULTS = (*RAISED, *ENDED, *STUCK, *PIPE)
AT_START = ("unpickle", "start", "build")
IN_EPOCH = ("update", "getitem", "encode", "reply", "epoch begin", "epoch end")
AT_END = ("close", "stop")
HOOKS = ("epoch begin", "epoch end")
START_S = 2.5
"""The time that starting a worker may take where it is the start that hangs."""
_PATIENCE_S = 10.0
"""For the workers of a template that was killed to end after it."""
_RAISED_BY = {
    "unpickle": "Unpickling the sequence in a worker",
    "update": "Unpickling the sequence in a worker",
    "start": "on_worker_start",
    "build": "__getitem__",
    "getitem": "__getitem__",
    "encode": "Making an array of batch (tests.faulty.Leaf)",
    "epoch begin": "on_epoch_begin",
    "epoch end": "on_epoch_end",
    "close": "Closing a per_worker resource",
    "stop": "on_worker_stop",
}


class Cell(NamedTuple):
    """One fault in one phase."""

    entry: str
    launcher: str
    phase: str
    fault: str


def phases_of(fault: str) -> tuple[str, ...]:
    """Return the phases in which a fault is played here; what ends the training process is in tests.faults.ends."""
    if fault in PIPE:
        return ("unpickle", "getitem", "start")
    return tuple(phase for phase in PHASES if fault in RAISED or phase not in HOOKS)


def expected(cell: Cell) -> tuple[str, str, int | None]:
    """Return the class of the error, how its message begins, and the index that is blamed."""
    _, launcher, phase, fault = cell
    index = {"build": 0, "getitem": AT, "encode": AT, "reply": AT}.get(phase)
    if fault in RAISED:
        if phase == "reply":  # The exception that cannot be sent is told by its text.
            return "UserCodeError", "__getitem__ raised Reply: the reply breaks", AT
        kind = "PayloadError" if phase in ("unpickle", "update") else "UserCodeError"
        return kind, f"{_RAISED_BY[phase]} raised {RAISED[fault]}", index
    died = {**ENDED, **PIPE}.get(fault)
    if phase in AT_END:
        how = f"died ({died}) while it stopped" if died else "was killed because it took longer than"
        return "", f"Worker N {how}", None
    if (phase, launcher) == ("unpickle", "template"):
        template = "The template process of the workers"
        if fault in STUCK:
            late = f"{template} was killed because loading the sequence took longer than {START_S} s"
            return "WorkerTimeoutError", late, None
        return "WorkerLostError", f"{template} died ({died}) while it loaded the sequence", None
    when = "while it started" if index is None else f"while building batch {index}"
    if fault in STUCK:
        limit = START_S if index is None else LIMIT_S
        late = f"Worker N was killed because it took longer than {limit:g} s {when}, attempt 1 of 1"
        return "WorkerTimeoutError", late, index
    return "WorkerLostError", f"Worker N died ({died}) {when}, attempt 1 of 1", index


# --- playing it -------------------------------------------------------------------------------------


class Player:
    """Plays one fault in all its phases, through one entry point with one launcher.

    Args:
        marker: A path for the file that puts faults on.
    """

    def __init__(self, entry: str, launcher: str, fault: str, marker: Path) -> None:
        self._key = entry, launcher
        self._fault = fault
        self._marker = marker
        self._sequence = Faulty(marker)
        stuck = fault in STUCK
        self._entry: Entry = ENTRIES[entry](self._sequence, Setting(launcher, LIMIT_S if stuck else None))
        self._owing: Cell | None = None
        """The next `fit` is to show that it works after this one."""
        self.wrong: list[str] = []
        """What is not as expected."""

    def play(self) -> Iterator[tuple[Cell, str]]:
        """Yield what came of each cell."""
        with _impatient(self._fault):
            yield from self._play()
            if self._owing:
                self._works(self._owing, self._entry.epoch())
            self._entry.close()

    def _play(self) -> Iterator[tuple[Cell, str]]:
        for phase in phases_of(self._fault):
            if phase in AT_START:
                yield self._at_start(phase)
            elif phase in IN_EPOCH:
                yield self._in_epoch(phase)
            else:
                yield self._at_end(phase)

    def _at_start(self, phase: str) -> tuple[Cell, str]:
        cell = Cell(*self._key, phase, self._fault)
        self._entry.close()

        def use() -> None:
            self._entry.open()
            self._entry.epoch()

        limited = self._fault in STUCK and phase != "build"
        with starts_limited(phase == "unpickle") if limited else contextlib.nullcontext(), self._off():
            go_wrong(self._marker, phase, self._fault)
            told = self._error(cell, use)
        then = self._entry.again
        if not self._entry.is_open and not isinstance(self._entry, OfFit):
            self._entry.open()
            then = "a new one works"
        return self._checked(cell, told, then)

    def _in_epoch(self, phase: str) -> tuple[Cell, str]:
        cell = Cell(*self._key, phase, self._fault)
        ending = contextlib.ExitStack()

        def before() -> None:
            if phase == "update" and self._fault in STUCK:  # The workers that are started after this one hang as well.
                ending.enter_context(starts_limited(template=False))
            go_wrong(self._marker, phase, self._fault)
            self._sequence.version += phase == "update"

        if not self._entry.is_open:
            self._entry.open()
        with ending, self._off():
            told = self._error(cell, lambda: self._entry.epoch(before))
        self._works(self._owing or cell, self._entry.first)
        return self._checked(cell, told, self._entry.again)

    def _at_end(self, phase: str) -> tuple[Cell, str]:
        cell = Cell(*self._key, phase, self._fault)
        if not self._entry.is_open:
            self._entry.open()
        with logged() as messages, self._off():
            go_wrong(self._marker, phase, self._fault)
            self._works(cell, self._entry.epoch())
            self._entry.close()
        _, text, _ = expected(cell)
        for message in messages or ["nothing"]:
            found = re.sub(r"^Worker \d", "Worker N", message)
            begins = text if self._fault not in RAISED else f"Worker N did not stop in good order: {text}"
            if not found.startswith(begins):
                self.wrong.append(f"{cell}: {found!r} was logged, expected {begins!r}")
        what = "a warning tells the exception" if self._fault in RAISED else "a warning tells how it ended"
        return cell, f"the epoch is whole; {what}"

    @contextlib.contextmanager
    def _off(self) -> Iterator[None]:
        """Put the fault off in the end."""
        try:
            yield
        finally:
            go_right(self._marker)

    def _error(self, cell: Cell, use: Callable[[], object]) -> Told | None:
        try:
            found = use()
        except Exception as error:
            return Told.of(error)
        self.wrong.append(f"{cell}: no error, but {found}")
        return None

    def _checked(self, cell: Cell, told: Told | None, then: str) -> tuple[Cell, str]:
        """Compare the error, and see that what comes next works and has no process too many."""
        if told is not None:
            kind, message, index = expected(cell)
            found = re.sub(r"^Worker \d", "Worker N", told.message)
            self._compare(cell, (told.kind, told.index), (kind, index))
            if not found.startswith(message):
                self.wrong.append(f"{cell}: {found!r}, expected {message!r}")
        if isinstance(self._entry, OfFit):
            self._owing = cell
        else:
            self._works(cell, self._entry.epoch())
        most = {"template": 3, "spawn": 1}[cell.launcher] if self._entry.is_open else 0
        if (count := _living(most)) > most:
            self.wrong.append(f"{cell}: {count} processes, expected {most}")
        return cell, f"{told}; {then}"

    def _works(self, cell: Cell, batches: list[int]) -> None:
        self._owing = None
        self._compare(cell, batches, [*range(BATCHES)])

    def _compare(self, cell: Cell, found: object, wanted: object) -> None:
        if found != wanted:
            self.wrong.append(f"{cell}: {found}, expected {wanted}")


def _living(most: int) -> int:
    """Return how many of our processes live, once there are no more than *most* or patience is over."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        ours = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # It has ended, and perhaps nobody has looked.
                if "keras_mpseq.process" in " ".join(process.cmdline()):
                    ours.append(process)
        if len(ours) <= most or time.monotonic() > deadline:
            return len(ours)
        psutil.wait_procs(ours, 0.05)


@contextlib.contextmanager
def _impatient(fault: str) -> Iterator[None]:
    """Wait less for workers that hang when they are to end, and longer for others: the machine may be busy."""
    before = crew._PATIENCE_S, deadlines.LAST_WORDS_S
    crew._PATIENCE_S = 1.0 if fault in STUCK else 60.0
    if fault == "SIGSTOP":  # There will be none.
        deadlines.LAST_WORDS_S = 0.1
    try:
        yield
    finally:
        crew._PATIENCE_S, deadlines.LAST_WORDS_S = before


@contextlib.contextmanager
def starts_limited(template: bool) -> Iterator[None]:
    """Let the start of a worker take no longer than START_S; that of the template only if it is the one that hangs."""
    before = deadlines.START_S, local_backend.start_limit
    deadlines.START_S = START_S
    if not template:
        local_backend.start_limit = lambda timeout: None
    try:
        yield
    finally:
        deadlines.START_S, local_backend.start_limit = before

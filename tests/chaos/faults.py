"""Carries faults out: which process is meant, the signal, and the later end of what has one.

Faults happen in the thread that makes the step at which they are due. One thread more, the keeper, ends stops and the
like in time, and is the watchdog: when a script takes too long it tells all there is to tell and ends the process.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.chaos.script import LETHAL, TEMPLATE, Fault, Own

_SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "crash": signal.SIGSEGV}
_PULSES = 4
_LOWEST = 19


def children(pid: int) -> list[int]:
    """Return the living children of a process, oldest first; those of all of its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return sorted(child for child in found if state(child) not in ("Z", "X", ""))


def state(pid: int) -> str:
    """Return the letter of a process's state; "" when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def ticks(pid: int) -> int:
    """Return how long a process has run, in clock ticks; 0 when it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0


class Keeper:
    """A thread that calls functions later. Ends with the `with` block, and calls then what is still to be called."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="chaos keeper", daemon=True)

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call *function* in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), function))
            self._changed.notify()

    def watch(self, patience_s: float, still: Callable[[], float], hang: Callable[[], object]) -> None:
        """Call *hang* when the block has not ended and nothing has moved for so long.

        Args:
            patience_s: Seconds.
            still: Returns for how many seconds nothing has moved.
            hang: Does not return.
        """

        def look() -> None:
            if not self._over:
                left = patience_s - still()
                hang() if left <= 0 else self.later(left, look)

        self.later(patience_s, look)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                if not self._over and not (self._due and self._due[0][0] <= now):
                    self._changed.wait(self._due[0][0] - now if self._due else None)
                    continue
                if not self._due:
                    return
                _, _, function = heapq.heappop(self._due)
            function()

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()


class Process(NamedTuple):
    """One that is certainly meant: the number cannot have gone to another meanwhile."""

    pid: int
    fd: int

    def signal(self, number: int) -> bool:
        """Send a signal; tell whether the process was there to get it."""
        try:
            signal.pidfd_send_signal(self.fd, number)  # type: ignore[attr-defined]
        except ProcessLookupError:
            return False
        return True


class Injector:
    """The timetable of a script, and what came of it.

    Args:
        faults: In the order of time.
        own: What processes do to themselves.
        folder: Where each of these leaves a file when it happens.
        targets: Returns the pids of the template, if there is one, and of the workers that live.
        workers: How many there are when all live.
        keeper: Ends what has an end.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        own: Sequence[Own],
        folder: str,
        targets: Callable[[], tuple[int | None, list[int]]],
        workers: int,
        keeper: Keeper,
    ) -> None:
        self._faults = list(faults)
        self._own = own
        self._folder = folder
        self._happened: set[int] = set()
        self._targets = targets
        self._workers = workers
        self._keeper = keeper
        self._steps = self._taken = 0
        self._lock = threading.RLock()
        self.log: list[str] = []
        self.done: Counter[str] = Counter()
        """Faults from outside that happened."""
        self.deaths = 0
        """Workers that these killed: all of them where it was their template, also those not yet forked."""

    # --- the timetable ---

    def taken(self) -> None:
        """Say that one more batch was delivered."""
        with self._lock:
            self._taken += 1
            self._steps = 0

    def step(self, name: str) -> None:
        """Make a step: what is due happens now."""
        if not self._faults:
            return
        with self._lock:
            self._steps += 1
            while self._faults and self._is_due(self._faults[0]) and self._happens(self._faults[0], name):
                self._faults.pop(0)

    def _is_due(self, fault: Fault) -> bool:
        return (fault.taken, fault.steps) < (self._taken, self._steps)

    def _happens(self, fault: Fault, step: str) -> bool:
        """Carry out a fault; False when nobody is there whom it could meet: it then waits for somebody."""
        template, workers = self._targets()
        whole = fault.whom == TEMPLATE and template is not None
        pid = template if whole else workers[fault.whom % len(workers)] if workers else None
        if pid is None:
            return False
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        process = Process(pid, fd)
        template, again = self._targets()
        if pid not in (template, *again) or not self._meets(process, fault):
            os.close(fd)
            return False
        name = f"{fault.what} template" if whole else fault.what
        self.done[name] += 1
        if fault.what in LETHAL:
            self.deaths += self._workers if whole else 1
        self.log.append(f"after {self._taken} batches, at {step}: {name} {pid}" + (f" {fault.ms} ms" * (fault.ms > 0)))
        return True

    def _meets(self, process: Process, fault: Fault) -> bool:
        """Do to the process what the fault says, and have it undone; the descriptor then is closed, or will be."""
        match fault.what:
            case "stop":
                return self._stops(process, fault.ms / 1000)
            case "pulse":
                return self._pulses(process, fault.ms / 1000)
            case "slow":
                return self._slows(process, fault.ms / 1000)
            case "starve":
                return self._starves(process, fault.ms / 1000)
            case _:
                met = process.signal(_SIGNALS[fault.what])
                if met:
                    process.signal(signal.SIGCONT)  # One that is stopped dies of SIGKILL alone.
                    os.close(process.fd)
                return met

    def _stops(self, process: Process, seconds: float) -> bool:
        if not process.signal(signal.SIGSTOP):
            return False
        self._keeper.later(seconds, lambda: (process.signal(signal.SIGCONT), os.close(process.fd)))
        return True

    def _pulses(self, process: Process, seconds: float) -> bool:
        if not process.signal(signal.SIGSTOP):
            return False
        for number in range(1, 2 * _PULSES):
            what = signal.SIGSTOP if number % 2 == 0 else signal.SIGCONT
            self._keeper.later(number * seconds, lambda what=what: process.signal(what))
        self._keeper.later(2 * _PULSES * seconds, lambda: (process.signal(signal.SIGCONT), os.close(process.fd)))
        return True

    def _slows(self, process: Process, seconds: float) -> bool:
        """One core, and the lowest priority, for a while."""
        cores = os.sched_getaffinity(0)
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST)
            os.sched_setaffinity(process.pid, {min(cores)})
        except ProcessLookupError:
            return False

        def let_go() -> None:
            if process.signal(0):  # Unreaped or alive, or the pid could be another's by now.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.sched_setaffinity(process.pid, cores)
                    os.setpriority(os.PRIO_PROCESS, process.pid, nice)  # Which not everybody may.
            os.close(process.fd)

        self._keeper.later(seconds, let_go)
        return True

    def _starves(self, process: Process, seconds: float) -> bool:
        """No more memory for a while."""
        before = resource.getrlimit(resource.RLIMIT_AS)  # Ours, which it had; its own may be such a fault already.
        try:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (1, before[1]))
        except ProcessLookupError:
            return False

        def feed() -> None:
            if process.signal(0):  # As above.
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(process.pid, resource.RLIMIT_AS, before)
            os.close(process.fd)

        self._keeper.later(seconds, feed)
        return True

    # --- what came of it ---

    def own(self, phases: Sequence[str] = ("unpickle", "start", "begin", "half", "end")) -> Counter[str]:
        """Return what processes have done to themselves."""
        with contextlib.suppress(FileNotFoundError):  # The script is over: what was found last is all there is.
            self._happened |= {int(path.name) for path in Path(self._folder).iterdir()}
        return Counter(f"own {own.what}" for own in self._own if own.number in self._happened and own.phase in phases)

    def injected(self) -> Counter[str]:
        """Return all faults that happened."""
        return self.done + self.own()

    def most_deaths(self) -> int:
        """Return how many workers may have died of all this, at the most."""
        own = self.own()
        return self.deaths + sum(own[f"own {what}"] for what in LETHAL) + own["own template"] * self._workers

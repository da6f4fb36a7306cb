"""How long each worker has been at what it does, and what is due because of that.

Pure: the time is an argument, in seconds. Four things may become due for a worker, in this order: it is asked where it
stands, the answer is read, it is interrupted, it is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf

LAST_WORDS_S = 2.0
"""For an interrupted worker to write its stack and die; then it is killed."""
START_S = 30.0
"""With a timeout, a start may take that or, if it is longer, this: importing a framework takes seconds."""
ANSWER_S = 1.0
"""For a worker that was asked to write its stack."""
STOP_S = 5.0
"""For a worker that was told to end to close what it has open."""


def start_limit(timeout: float | None) -> float | None:
    """Return the seconds that a start may take, given those that a batch may take."""
    return None if timeout is None else max(timeout, START_S)


class Due(Enum):
    """What is to be done about a worker."""

    ASK = "it is slow: it is to be asked where it stands"
    READ = "it had time to answer"
    INTERRUPT = "its time is over"
    KILL = "it was interrupted and lives"


@dataclass(slots=True)
class _Clock:
    since: float
    limit: float | None
    patience: float
    """Seconds until it is asked where it stands."""
    asked: float = inf
    """When it was asked; infinite where it was not, or where the answer has been read."""
    read: bool = False
    """The answer has been read."""

    def next(self) -> float:
        asking = inf if self.read else self.since + self.patience
        ask = asking if self.asked == inf else self.asked + ANSWER_S
        return ask if self.limit is None else min(ask, self.since + self.limit)


class Deadlines:
    """The clocks of all workers.

    Args:
        timeout: Seconds that one batch may take; None means for ever.
        slow: Seconds after which a batch is told of; None means never.
    """

    def __init__(self, timeout: float | None, slow: float | None) -> None:
        self._timeout = timeout
        self._slow = inf if slow is None else slow
        self._clocks: dict[int, _Clock] = {}
        self._interrupted: dict[int, tuple[float, float | None]] = {}
        """When, and for having taken longer than what; infinite when it was killed after that."""
        self.next: float = inf
        """When something may be due: a lower bound, so that looking costs one comparison."""

    def start(self, worker: int, now: float) -> None:
        """Note that *worker* is being started."""
        self._set(worker, _Clock(now, start_limit(self._timeout), max(self._slow, START_S)))

    def build(self, worker: int, now: float) -> None:
        """Note that *worker* begins, or began at *now*, with a task or with the next batch of one."""
        self._set(worker, _Clock(now, self._timeout, self._slow))

    def stop(self, worker: int, now: float) -> None:
        """Note that *worker* was told to end."""
        self._set(worker, _Clock(now, STOP_S, inf))

    def ask_again(self, worker: int) -> None:
        """Let *worker* be asked once more."""
        clock = self._clocks[worker]
        self._set(worker, _Clock(clock.since, clock.limit, self._slow))

    def _set(self, worker: int, clock: _Clock) -> None:
        self._clocks[worker] = clock
        self.next = min(self.next, clock.next())

    @property
    def idle(self) -> bool:
        """No clock runs: nobody builds, starts or ends."""
        return not self._clocks and not self._interrupted

    def since(self, worker: int) -> float | None:
        """Return since when a clock has been running for *worker*, if one is."""
        return self._clocks[worker].since if worker in self._clocks else None

    def patience(self, worker: int) -> float:
        """Return after how many seconds *worker* is asked where it stands."""
        return self._clocks[worker].patience

    def rest(self, worker: int) -> None:
        """Note that *worker* has nothing to do."""
        self._clocks.pop(worker, None)

    def end(self, worker: int) -> float | None:
        """Note the end of *worker*; return the limit it exceeded, if it was interrupted for that."""
        self.rest(worker)
        return self._interrupted.pop(worker, (0.0, None))[1]

    def left(self, now: float) -> float | None:
        """Return the seconds until something may be due, or None."""
        return None if self.next == inf else max(0.0, self.next - now)

    def reached(self, now: float) -> list[int]:
        """Return for whom something is due, unless it has made progress since its clock was set."""
        return [
            worker
            for worker, clock in self._clocks.items()
            if worker not in self._interrupted and clock.asked == inf and now >= clock.next()
        ]

    def due(self, now: float) -> list[tuple[int, Due]]:
        """Return what is due, once, and take it as done."""
        found = [(worker, what) for worker in self._clocks if (what := self._due(worker, now))]
        for worker, (when, limit) in self._interrupted.items():
            if now >= when + LAST_WORDS_S:
                found.append((worker, Due.KILL))
                self._interrupted[worker] = inf, limit
        self._interrupted.update({w: (now, self._clocks[w].limit) for w, what in found if what is Due.INTERRUPT})
        ends = [when + LAST_WORDS_S for when, _ in self._interrupted.values()]
        running = [clock.next() for worker, clock in self._clocks.items() if worker not in self._interrupted]
        self.next = min([*ends, *running], default=inf)
        return found

    def _due(self, worker: int, now: float) -> Due | None:
        clock = self._clocks[worker]
        if worker in self._interrupted:
            return None
        if clock.limit is not None and now >= clock.since + clock.limit:
            return Due.INTERRUPT
        if now >= clock.asked + ANSWER_S:
            clock.asked, clock.read = inf, True
            return Due.READ
        if not clock.read and clock.asked == inf and now >= clock.since + clock.patience:
            clock.asked = now
            return Due.ASK
        return None

"""How long each worker has been at what it does, and which is late. Pure: the time is an argument, in seconds."""

from __future__ import annotations

LAST_WORDS_S = 2.0
"""For an interrupted worker to write its stack and die; then it is killed."""
START_S = 30.0
"""With a timeout, a start may take that or, if it is longer, this: importing a framework takes seconds."""


def start_limit(timeout: float | None) -> float | None:
    """Return the seconds that a start may take, given those that a batch may take."""
    return None if timeout is None else max(timeout, START_S)


class Deadlines:
    """The clocks of all workers.

    Args:
        timeout: Seconds that one batch may take; None means for ever.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._since: dict[int, float] = {}
        self._limits: dict[int, float | None] = {}
        self._interrupted: dict[int, float] = {}

    def start(self, worker: int, now: float) -> None:
        """Note that *worker* is being started."""
        self._set(worker, now, start_limit(self._timeout))

    def build(self, worker: int, now: float) -> None:
        """Note that *worker* begins, or began at *now*, with a task or with the next batch of one."""
        self._set(worker, now, self._timeout)

    def _set(self, worker: int, now: float, limit: float | None) -> None:
        self._since[worker], self._limits[worker] = now, limit

    def busy(self, worker: int) -> bool:
        """Tell whether a clock runs for *worker*."""
        return worker in self._since

    def rest(self, worker: int) -> None:
        """Note that *worker* has nothing to do."""
        self._since.pop(worker, None)

    def end(self, worker: int) -> float | None:
        """Note the end of *worker*; return the limit it exceeded, if it was interrupted for that."""
        self.rest(worker)
        return self._limits[worker] if self._interrupted.pop(worker, None) is not None else None

    def left(self, now: float) -> float | None:
        """Return the seconds until somebody is late, or None."""
        deadlines = [began + LAST_WORDS_S for began in self._interrupted.values()]
        deadlines += [
            began + limit
            for worker, began in self._since.items()
            if (limit := self._limits[worker]) is not None and worker not in self._interrupted
        ]
        return max(0.0, min(deadlines) - now) if deadlines else None

    def due(self, now: float) -> list[int]:
        """Return which workers are past their time and were not interrupted."""
        return [
            worker
            for worker, began in self._since.items()
            if (limit := self._limits[worker]) is not None and worker not in self._interrupted and now >= began + limit
        ]

    def late(self, now: float) -> tuple[list[int], list[int]]:
        """Return which workers are to be interrupted now, and which were interrupted and still live."""
        stuck = [worker for worker, began in self._interrupted.items() if now >= began + LAST_WORDS_S]
        late = self.due(now)
        self._interrupted.update(dict.fromkeys(late, now))
        return late, stuck

"""What the pool waits on where workers are on Ray: a bell that answers ring, and the line to the head of the cluster.

The head says nothing that means anything to us, and that it hangs up is how its end is heard.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from typing import Any

from keras_mpseq.ray_cluster import Cluster

_DOUBT_S = 10.0
"""For the head of the cluster to come back where nothing else tells that it is gone."""


class Ear:
    """Owns the bell, the line to the head of *cluster*, and the selector that waits for both."""

    def __init__(self, cluster: Cluster) -> None:
        self.bell: Bell = Bell()
        self.gone: bool = False
        """The cluster is, or this process has left it."""
        self._cluster = cluster
        self._doubt: float | None = None
        """Until when the head may come back."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.bell, selectors.EVENT_READ)

    def wait(self, timeout_s: float | None, now: float) -> Any:
        """Wait until something is heard, or for so long."""
        times = [left for left in (timeout_s, None if self._doubt is None else self._doubt - now) if left is not None]
        return self._selector.select(None if not times else max(0.0, min(times)))

    def take(self, ready: Any) -> None:
        """Take in what `wait` returned."""
        for key, _ in ready:
            if key.fileobj is self.bell:
                self.bell.hush()
            elif self._hung_up(key.fileobj):
                self.call()
        if self._doubt is not None and time.monotonic() >= self._doubt:
            self.call(again=True)

    def call(self, *, again: bool = False) -> None:
        """Connect to the head; where nobody answers, once more after a while, and *again* means that this is that."""
        self._doubt = None
        line = self._cluster.line()
        if line is not None:
            self._selector.register(line, selectors.EVENT_READ)
        elif again:
            self.gone = True
        else:
            self._doubt = time.monotonic() + _DOUBT_S

    def doubt(self) -> None:
        """Take in that something else went wrong: a head that does not answer now will not do so later."""
        if self._doubt is not None:
            self.call(again=True)

    def _hung_up(self, line: Any) -> bool:
        """Read what the head says; tell whether that was the end."""
        with contextlib.suppress(OSError):
            if line.recv(1 << 16):
                return False
        self._selector.unregister(line)
        return True

    def close(self) -> None:
        """Free everything."""
        self._selector.close()
        self._cluster.hang_up()
        self.bell.close()


class Bell:
    """A pipe that ends a wait; may be rung from any thread, also after it was closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends = os.pipe()
        self._open = True
        for end in self._ends:
            os.set_blocking(end, False)

    def fileno(self) -> int:
        """Return the descriptor, to wait on."""
        return self._ends[0]

    def ring(self) -> None:
        """Let the wait end."""
        with self._lock, contextlib.suppress(BlockingIOError):  # A full pipe wakes as well.
            if self._open:
                os.write(self._ends[1], b"\0")

    def hush(self) -> None:
        """Take in that it rang."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._ends[0], 4096)

    def close(self) -> None:
        """Free the pipe."""
        with self._lock:
            self._open = False
            for end in self._ends:
                os.close(end)

"""Finds and ends what the user's code starts and leaves behind, also what has a session of its own; Linux only.

The child that runs trials adopts the processes below it whose parents have ended, so that all of them can be found
below it for as long as it lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_MOST_ROUNDS = 100


def adopt() -> None:
    """Become the parent of what the processes below leave behind, so that it can be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(pid: int) -> None:
    """Kill all processes below *pid*, which lives and has adopted."""
    # What is killed may have started another just before; a bound, should one start them faster than they end.
    for _ in range(_MOST_ROUNDS):
        found = _descendants(pid)
        for one in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
        if not found:
            return


def _descendants(pid: int) -> list[int]:
    """Return the living processes below *pid*."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError, ValueError, IndexError):  # It has ended meanwhile.
            # The name stands in parentheses and may hold anything; state and parent come after it.
            state, parent = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found

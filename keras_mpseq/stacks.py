"""Stacks as faulthandler writes them: which line of the user's code a worker is at, and what is worth showing."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

_PACKAGE = str(Path(__file__).parent)
_LIBRARIES = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_TITLE = re.compile(r"^(?:Current thread|Thread|Stack)\b.*:$")
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$')
_OUTER = {("build.py", "build"), ("build.py", "call_hook"), ("worker.py", "load"), ("worker.py", "_finish")}
"""Functions of ours that call the user's code."""
_THREADS_SHOWN = 8


class Frame(NamedTuple):
    """A line of code that is being executed."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function}, {self.file}:{self.line}"

    @property
    def is_ours(self) -> bool:
        """It is of this package."""
        return self.file.startswith(_PACKAGE)

    @property
    def is_users(self) -> bool:
        """It is neither of this package nor of Python nor of an installed one."""
        return not (self.is_ours or self.file.startswith((*_LIBRARIES, "<frozen ")))


class Thread(NamedTuple):
    """The stack of one thread, the most recent call first."""

    title: str
    lines: list[str]
    frames: list[Frame]


def threads_of(text: str) -> list[Thread]:
    """Return the stacks in what faulthandler wrote, without our calls below the user's code."""
    threads: list[Thread] = []
    for line in text.splitlines():
        if _TITLE.match(line):
            threads.append(Thread(line, [], []))
        elif threads and line.startswith("  "):
            threads[-1].lines.append(line)
            if found := _FRAME.match(line):
                threads[-1].frames.append(Frame(found[1], int(found[2]), found[3]))
    return [_without_ours(thread) for thread in threads]


def _without_ours(thread: Thread) -> Thread:
    for number, frame in enumerate(thread.frames):
        if number and frame.is_ours and (Path(frame.file).name, frame.function) in _OUTER:
            return Thread(thread.title, thread.lines[:number], thread.frames[:number])
    return thread


def shown(text: str) -> str:
    """Return what an error shows of the stacks in *text*: those of some threads, without our own calls."""
    threads = threads_of(text)
    if not threads or not text.lstrip().startswith(("Current thread", "Thread", "Stack")):
        return text  # Of a crash, which begins with what happened.
    # faulthandler writes the main thread, which builds, last.
    chosen = sorted(threads, key=lambda thread: not _builds(thread))[:_THREADS_SHOWN]
    parts = ["\n".join([thread.title, *thread.lines]) for thread in chosen]
    if len(threads) > len(chosen):
        parts.append(f"and {len(threads) - len(chosen)} more threads")
    return "\n\n".join(parts)


def _builds(thread: Thread) -> bool:
    return thread.title.startswith(("Current thread", "Stack"))


def place_in(text: str) -> str:
    """Return at which line the user's code is, as "load, data.py:41", and inside of what; "" where nothing tells."""
    frames = next((thread.frames for thread in threads_of(text) if _builds(thread)), [])
    if not frames or is_idle(text):
        return ""
    users = next((frame for frame in frames if frame.is_users), frames[-1])
    return str(users) if users is frames[0] else f"{users} (inside {frames[0]})"


def is_idle(text: str) -> bool:
    """Tell whether a worker with this stack waits for a message."""
    names = [
        {(Path(frame.file).name, frame.function) for frame in thread.frames if frame.is_ours}
        for thread in threads_of(text)
        if _builds(thread)
    ]
    return any({("channel.py", "receive"), ("worker.py", "run")} <= found for found in names)

"""A process that has imported TensorFlow and forks a child for each thing that is to go wrong in a training process.

Importing costs seconds, and a fork of a process with one thread, in which no op has run, costs nothing. Each child is
the leader of a session of its own, so that what it leaves behind is found.

    python -m tests.faults.nursery      reads requests from stdin, a line each
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import NamedTuple

import psutil

from keras_mpseq.launcher import child_environment

PATIENCE_S = 10.0
"""For what a child leaves behind to end by itself."""
_CHILD_S = 120.0
"""For the nursery to be ready, or a child to end; reached only by a hang."""


class End(NamedTuple):
    """How a child ended."""

    status: int
    """As subprocess gives it."""
    said: str
    errors: str
    left: list[str]
    """What lived on in its session."""


class Nursery:
    """The process, from outside. A context manager.

    Args:
        folder: Where children write what they say.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**child_environment(1), "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=Path(__file__).parents[2],
        )
        assert self._line(3 * _CHILD_S) == "ready"

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self, patience_s: float) -> str | None:
        """Return the next line, or None when there is none for so long."""
        assert self._process.stdout is not None
        if not select([self._process.stdout], [], [], patience_s)[0]:
            return None
        return self._process.stdout.readline().decode().rstrip("\n")

    def bear(self, play: str, *arguments: str) -> Child:
        """Fork a child that does *play*, a function of tests.faults.ends, with *arguments*."""
        assert self._process.stdin is not None
        request = {"play": play, "arguments": arguments, "folder": str(self._folder)}
        self._process.stdin.write(f"{json.dumps(request)}\n".encode())
        pid = self._line(_CHILD_S)
        assert pid is not None
        return Child(self, int(pid), self._folder)

    def run(self, play: str, *arguments: str) -> End:
        """Fork a child and wait for its end."""
        end = self.bear(play, *arguments).ended(_CHILD_S)
        assert end is not None, f"{play} {arguments} hangs"
        return end


class Child:
    """A child of the nursery."""

    def __init__(self, nursery: Nursery, pid: int, folder: Path) -> None:
        self.pid = pid
        self._nursery = nursery
        self._folder = folder

    def said(self, text: str) -> bool:
        """Wait until it says *text*, a line; return whether it does."""
        deadline = time.monotonic() + _CHILD_S
        while text not in (self._folder / "out").read_text().splitlines():
            if self._nursery._line(0.02) is not None or time.monotonic() > deadline:
                return False
        return True

    def ended(self, patience_s: float) -> End | None:
        """Wait for its end, for so long, and for the end of all that it started."""
        status = self._nursery._line(patience_s)
        if status is None:
            return None
        left = list(self._session())
        _, alive = psutil.wait_procs(left, PATIENCE_S)
        names = [" ".join(process.cmdline()) for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        for process in alive:
            process.kill()
        out, errors = ((self._folder / name).read_text() for name in ("out", "errors"))
        return End(int(status), out, errors, names)

    def _session(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(process.pid) == self.pid:
                    yield process


# --- inside -----------------------------------------------------------------------------------------


def main() -> None:
    """Serve until stdin ends. In a child: return, so that it ends as any interpreter does, if it is about that."""
    from tests.faults import ends

    assert len(list(Path("/proc/self/task").iterdir())) == 1
    gc.freeze()  # A collection in a child would write to every page, and so copy it.
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        for name in ("out", "errors"):
            Path(request["folder"], name).write_text("")
        pid = os.fork()
        if pid == 0:
            _become(request["folder"])
            getattr(ends, request["play"])(*request["arguments"])
            if request["play"] in (
                "act",
                "hook",
            ):  # They leave nothing open. The interpreter's end takes 1 s.
                os._exit(0)
            return
        print(pid, flush=True)
        while os.WIFSTOPPED(status := os.waitpid(pid, os.WUNTRACED)[1]):
            os.kill(pid, signal.SIGCONT)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(folder: str) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, name in ((1, "out"), (2, "errors")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_APPEND), number)
    sys.stdin.close()


if __name__ == "__main__":
    main()

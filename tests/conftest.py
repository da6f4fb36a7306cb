"""What all tests share: nothing may be left behind, and scripts that run in processes of their own.

The leak fixture looks at this process before and after every test: descendants (orphans of descendants and zombies
included), descriptors of the kinds that the package uses, names in /dev/shm, Python threads, and module-level switches.
It gives what is on its way out some seconds, then fails with the list. It ends only processes that it can prove to be
ours: descendants whose command line starts our children.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE_S = 5.0
"""For processes to end and for finalizers to run, and the issue's own limit for orphans."""
SCRIPT_S = 50.0
"""For a script to say the next line or to end; reached only by a hang, and before faulthandler's own time-out."""
_OUR_CHILD = "keras_mpseq.process"
_OUR_FDS = (
    *("pipe:", "socket:", "/memfd:", "anon_inode:[pidfd]", "anon_inode:[eventpoll]"),
    f"{tempfile.gettempdir()}/keras_mpseq-",
)
_NOISE = re.compile(
    r"^(?:WARNING: All log messages before absl.*|[IW]\d{4} \d\d:.*|[IW]0000 00:.*|.* tensorflow/.*)\n", re.M
)
"""What TensorFlow logs when it is imported."""
_PR_SET_CHILD_SUBREAPER = 36
_AS_MACOS = os.environ.get("KERAS_MPSEQ_AS_MACOS", "")
"""The folder tests/as_macos where this run does without what only Linux has; see there."""
_ON_RAY = bool(os.environ.get("KERAS_MPSEQ_ON_RAY"))
"""This run has a cluster of Ray, which starts processes, threads and connections when it likes; see tests/on_ray.py."""
_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Become the parent of orphans, so that a worker that lost its template is still found among our descendants."""
    # A shell's background jobs ignore Ctrl-C and hand that down; here scripts are to be interrupted.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "may_lose_descriptors: interrupts the package where it has just opened a file")
    if _AS_MACOS:
        assert not hasattr(os, "memfd_create"), "PYTHONPATH must begin with $KERAS_MPSEQ_AS_MACOS."
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the template, tests of it are left out."""
    if not _AS_MACOS:
        return
    gone = [item for item in items if "template" in item.name]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item not in gone]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Note whether the test failed: its traceback then keeps its pools alive, which is no leak."""
    report = yield
    if call.when == "call":
        item.stash[_failed] = report.failed
    return report


# --- leaks ------------------------------------------------------------------------------------------


class Census(NamedTuple):
    """What this process holds of what could leak."""

    processes: frozenset[psutil.Process]
    fds: Counter[str]
    shm: frozenset[str]
    threads: frozenset[threading.Thread]

    @classmethod
    def taken(cls) -> Census:
        """Count now."""
        return cls(
            frozenset(filter(_may_leak, psutil.Process().children(recursive=True))),
            Counter(target for target in open_targets() if target.startswith(_OUR_FDS[:1] if _ON_RAY else _OUR_FDS)),
            frozenset(path.name for path in Path("/dev/shm").glob("keras_mpseq*")),
            # TensorFlow's own threads look like dummies as soon as Python code runs in them.
            frozenset(
                t
                for t in threading.enumerate()
                if not (isinstance(t, threading._DummyThread) or (_ON_RAY and t.daemon))
            ),
        )

    def beyond(self, before: Census) -> list[str]:
        """Return a line for each thing that was not there *before*."""
        return [
            *[f"process {described(process)}" for process in sorted(self.processes - before.processes, key=_pid)],
            *[f"{count} x {target}" for target, count in sorted((self.fds - before.fds).items())],
            *[f"/dev/shm/{name}" for name in sorted(self.shm - before.shm)],
            *[f"thread {thread.name}" for thread in self.threads - before.threads],
        ]


def open_targets() -> list[str]:
    """Return what each descriptor of this process refers to."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # The descriptor of the listing itself.
            targets.append(str(link.readlink()))
    return targets


def _may_leak(process: psutil.Process) -> bool:
    """Tell whether a process is one that we may leave behind; of those of Ray, only our actors."""
    if not _ON_RAY:
        return True
    with contextlib.suppress(psutil.Error):
        return "RayWorker" in " ".join(process.cmdline())
    return False


def described(process: psutil.Process) -> str:
    """Return pid, state and command line."""
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline())[:300]}"
    except psutil.ZombieProcess:
        return f"{process.pid} (zombie)"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone)"


def _pid(process: psutil.Process) -> int:
    return process.pid


def _end_ours(processes: frozenset[psutil.Process]) -> None:
    ours = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if _OUR_CHILD in " ".join(process.cmdline()):
                process.kill()
                ours.append(process)
    psutil.wait_procs(ours, PATIENCE_S)


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail when the test leaves a process, descriptor, name or thread behind."""
    before = Census.taken()
    yield
    if request.node.get_closest_marker("may_lose_descriptors"):
        gc.collect()  # Its garbage is no later test's.
        before = before._replace(fds=before.fds + Census.taken().fds)
    deadline = time.monotonic() + PATIENCE_S
    # A collection takes 0.1 s once TensorFlow is loaded: only where something is left.
    while (leaks := (left := Census.taken()).beyond(before)) and time.monotonic() < deadline:
        gc.collect()
        # Also reaps what ended: orphans become our children, and nobody else waits for those.
        psutil.wait_procs(left.processes - before.processes, 0.05)
    _end_ours(left.processes - before.processes)
    if leaks and not request.node.stash.get(_failed, False):
        pytest.fail("The test left behind:\n" + "\n".join(leaks), pytrace=False)


# --- scripts in processes of their own --------------------------------------------------------------


class Script:
    """A Python program in a process group of its own, whose output is read line by line."""

    def __init__(self, arguments: Sequence[str], cwd: Path, stdin: str = "", path: str = "") -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), path, _AS_MACOS])),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        # Coverage of subprocesses, where it is on, writes to stderr when a process is killed.
        environment.pop("COVERAGE_PROCESS_START", None)
        # With it, print() writes piece by piece, so that the lines of several processes get mixed.
        environment.pop("PYTHONUNBUFFERED", None)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # communicate() would lose what a buffer read ahead of readline().
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(stdin.encode())
        self.process.stdin.close()
        self.process.stdin = None

    def line(self) -> str:
        """Return the next line of the script's stdout; "" at its end."""
        assert self.process.stdout is not None
        with alarm(f"The script said nothing for {SCRIPT_S:g} s."):
            return self.process.stdout.readline().decode().rstrip("\n")

    def wait_for(self, text: str) -> None:
        """Read up to the line *text*."""
        seen = []
        while (line := self.line()) != text:
            seen.append(line)
            if not line:
                _, _, errors = self.ended()
                pytest.fail(f"The script ended before it said {text!r}. It said {seen}; stderr:\n{errors}")

    def descendants(self) -> list[psutil.Process]:
        """Return its children, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end; return exit status, the rest of stdout, and stderr."""
        out, errors = self.process.communicate(timeout=SCRIPT_S)
        return self.process.returncode, out.decode(), "".join(_NOISE.split(errors.decode()))

    def end(self) -> None:
        """Kill it, if it runs still. Not with communicate(): its children may hold the pipes."""
        self.process.kill()
        self.process.wait(SCRIPT_S)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def alarm(message: str | Callable[[], str], seconds: float = SCRIPT_S) -> Iterator[None]:
    """Raise TimeoutError when the block takes too long."""

    def ring(*_: Any) -> None:
        raise TimeoutError(message if isinstance(message, str) else message())

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Scripts:
    """Starts scripts and ends them with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Script] = []

    def start(self, source: str, *arguments: object, path: str = "") -> Script:
        """Start *source* as a file, with *path* added to PYTHONPATH."""
        file = self._folder / f"script_{len(self._started)}.py"
        file.write_text(source)
        return self.start_python([str(file), *map(str, arguments)], path=path)

    def start_python(self, arguments: Sequence[str], stdin: str = "", path: str = "") -> Script:
        """Start the interpreter."""
        script = Script(arguments, self._folder, stdin, path)
        self._started.append(script)
        return script

    def run(self, source: str, *arguments: object) -> str:
        """Run *source* as a file to its good and silent end; return its stdout."""
        return self.checked(self.start(source, *arguments))

    def run_python(self, arguments: Sequence[str], stdin: str = "") -> str:
        """Run the interpreter to its good and silent end; return its stdout."""
        return self.checked(self.start_python(arguments, stdin))

    @staticmethod
    def checked(script: Script) -> str:
        """Wait for the good and silent end; return the rest of stdout."""
        status, out, errors = script.ended()
        assert (status, errors) == (0, ""), f"exit status {status}, stdout {out!r}, stderr:\n{errors}"
        return out

    def end(self) -> None:
        """End what still runs."""
        for script in self._started:
            script.end()


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    """Run programs in a folder of their own."""
    started = Scripts(tmp_path)
    yield started
    started.end()

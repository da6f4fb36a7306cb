"""The leak fixture sees what it is to see, and nothing else."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import psutil

from tests.conftest import PATIENCE_S, Census, Scripts


def test_nothing_is_left_by_nothing(tmp_path: Path) -> None:
    before = Census.taken()
    with open(tmp_path / "a file of the user's", "w"):
        assert Census.taken().beyond(before) == []


def test_descriptors_are_seen() -> None:
    before = Census.taken()
    opened = [*os.pipe(), os.memfd_create("keras_mpseq"), os.pidfd_open(os.getpid())]
    leaks = Census.taken().beyond(before)
    for fd in opened:
        os.close(fd)
    assert [leak.partition("[")[0] for leak in leaks] == [
        "1 x /memfd:keras_mpseq (deleted)",
        "1 x anon_inode:",
        "2 x pipe:",
    ]
    assert Census.taken().beyond(before) == []


def test_threads_are_seen() -> None:
    before = Census.taken()
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="of the test")
    thread.start()
    leaks = Census.taken().beyond(before)
    go_on.set()
    thread.join()
    assert leaks == ["thread of the test"]


def test_names_in_shared_memory_are_seen() -> None:
    before = Census.taken()
    path = Path("/dev/shm/keras_mpseq-of-a-test")
    path.touch()
    leaks = Census.taken().beyond(before)
    path.unlink()
    assert leaks == ["/dev/shm/keras_mpseq-of-a-test"]


def test_zombies_are_seen() -> None:
    before = Census.taken()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    leaks = Census.taken().beyond(before)
    os.waitpid(pid, 0)
    assert leaks == [f"process {pid} (zombie)"]


def test_orphans_of_descendants_are_seen(scripts: Scripts, tmp_path: Path) -> None:
    before = Census.taken()
    os.mkfifo(tmp_path / "end")
    script = scripts.start(
        """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "open('end').read()"])
print(child.pid, flush=True)
threading.Event().wait()
"""
    )
    orphan = psutil.Process(int(script.line()))
    script.end()
    leaks = Census.taken().beyond(before)
    (tmp_path / "end").write_text("")
    assert orphan.wait(PATIENCE_S) == 0
    assert any(leak.startswith(f"process {orphan.pid} ") for leak in leaks)

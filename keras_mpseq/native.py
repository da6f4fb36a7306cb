"""What the operating system says a process is doing: its state, where it waits in the kernel, its threads.

Linux only, from /proc; parts that cannot be read, for want of rights or of /proc, are left out.
"""

from __future__ import annotations

import contextlib
import platform
from collections import Counter
from pathlib import Path

from keras_mpseq.machine import told

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device or a file system (D)",
    "T": "stopped by a signal (T)",
    "t": "stopped by a debugger (t)",
    "Z": "dead (Z)",
    "X": "dead (X)",
}
_CALLS_X86 = {
    0: "read", 1: "write", 3: "close", 7: "poll", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev",
    23: "select", 35: "nanosleep", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg",
    47: "recvmsg", 61: "wait4", 72: "fcntl", 73: "flock", 74: "fsync", 202: "futex", 230: "clock_nanosleep",
    232: "epoll_wait", 247: "waitid", 257: "openat", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait",
}  # fmt: skip
_CALLS_ARM = {
    22: "epoll_pwait", 25: "fcntl", 32: "flock", 56: "openat", 57: "close", 63: "read", 64: "write", 65: "readv",
    66: "writev", 67: "pread64", 68: "pwrite64", 72: "pselect6", 73: "ppoll", 82: "fsync", 95: "waitid", 98: "futex",
    101: "nanosleep", 115: "clock_nanosleep", 202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom",
    211: "sendmsg", 212: "recvmsg", 260: "wait4",
}  # fmt: skip
_CALLS = {"x86_64": _CALLS_X86, "aarch64": _CALLS_ARM}.get(platform.machine(), {})
_ON_FILES = {
    "read", "write", "pread64", "pwrite64", "readv", "writev", "fcntl", "flock", "fsync", "close", "connect",
    "accept", "sendto", "recvfrom", "sendmsg", "recvmsg",
}  # fmt: skip
"""System calls whose first argument is a descriptor."""
_GROUPS = 3
"""Of threads in the same state."""


def described(pid: int) -> str:
    """Return what process *pid* is doing in one line, such as "process 17 is sleeping in futex"; "" if nothing tells.

    Example: "process 4711 is waiting for a device or a file system (D) in read of /mnt/data/x.h5 (nfs_wait_bit), has
    2 threads and 145 MB of memory".
    """
    root = Path("/proc", str(pid))
    status = _fields(root / "status")
    if not status.get("State"):
        return ""
    parts = [f"process {pid} is {_doing(root)}", _threads(root), _memory(status)]
    *most, last = [part for part in parts if part]
    return f"{', '.join(most)} and {last}" if most else last


def state(pid: int) -> str:
    """Return the letter that /proc has for what process *pid* is doing, as ps shows it; "?" if nothing tells."""
    return _state(Path("/proc", str(pid)))


def _fields(path: Path) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in told(path).splitlines())}


def _state(root: Path) -> str:
    return _fields(root / "status").get("State", "?")[:1]


def _doing(root: Path) -> str:
    """Return the state of a process or a thread, and what it waits for."""
    letter = _state(root)
    text = _STATES.get(letter, letter)
    call = _call(root)
    if call:
        text += f" in {call}"
    channel = told(root / "wchan")
    return f"{text} ({channel})" if channel not in ("", "0") else text


def _call(root: Path) -> str:
    words = told(root / "syscall").split()  # "running", or the number and the arguments of the system call.
    if not words or not words[0].isdigit():
        return ""
    name = _CALLS.get(int(words[0]), f"system call {words[0]}")
    if name in _ON_FILES and len(words) > 1:
        with contextlib.suppress(OSError, ValueError):
            return f"{name} of {(root / 'fd' / str(int(words[1], 16))).readlink()}"
    return name


def _threads(root: Path) -> str:
    try:
        threads = [path for path in (root / "task").iterdir() if path.name != root.name]
    except OSError:
        return ""
    if not threads:
        return "has 1 thread"
    groups = Counter(_doing(thread) for thread in threads)
    told = [f"{count} {doing}" for doing, count in groups.most_common(_GROUPS)]
    others = len(threads) - sum(count for _, count in groups.most_common(_GROUPS))
    if others:
        told.append(f"{others} other")
    return f"has {len(threads) + 1} threads (besides the main one {', '.join(told)})"


def _memory(status: dict[str, str]) -> str:
    words = status.get("VmRSS", "").split()
    return f"{int(words[0]) // 1024} MB of memory" if words and words[0].isdigit() else ""

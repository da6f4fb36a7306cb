"""What this process may use of the machine: cores and memory, as far as the system and its containers allow.

A container is bounded by its control group (cgroup v1 or v2) and by those above it; the lowest bound counts. What
cannot be read bounds nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_ENDLESS = 1 << 60
"""Bytes from which a limit of cgroup v1, which has no word for it, is none."""


def cores() -> int:
    """Return how many cores this process may use: of those that it may run on, as many as its container pays for."""
    quota = cpu_quota()
    return affinity() if quota is None else max(1, min(affinity(), ceil(quota)))


def affinity() -> int:
    """Return on how many cores this process may run."""
    find = getattr(os, "sched_getaffinity", None)
    return len(find(0)) if find else os.cpu_count() or 1


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's."""
    limit = memory_limit()
    return physical_memory() if limit is None else min(physical_memory(), limit)


def physical_memory() -> int:
    """Return the bytes of memory of the machine."""
    if not hasattr(os, "sysconf"):  # Windows, where there are no workers and so no slots.
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu_quota() -> float | None:
    """Return for how many cores' worth of time the control group allows; None for no limit."""
    quotas = []
    for folder in _folders("cpu"):
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        with contextlib.suppress(ValueError):  # "max", and -1 in v1, are no limit.
            if len(words) == 2 and int(words[0]) > 0:
                quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Return the bytes of memory that the control group allows; None for no limit."""
    return _lowest("memory", "memory.max", "memory.limit_in_bytes")


def process_limit() -> int | None:
    """Return how many processes and threads the control group may yet start; None for no limit."""
    rooms = []
    for folder in _folders("pids"):
        limit, used = _number(folder / "pids.max"), _number(folder / "pids.current")
        if limit is not None and used is not None:
            rooms.append(max(0, limit - used))
    return min(rooms, default=None)


def killed_for_memory() -> int:
    """Return how many processes of the control group the system has killed because its memory was used up."""
    counts = [0]
    for folder in _folders("memory"):
        for name in ("memory.events", "memory.oom_control"):
            words = _words(folder / name)
            if "oom_kill" in words:
                counts.append(int(words[words.index("oom_kill") + 1]))
    return max(counts)


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group for *controller*, and of those above it."""
    for line in told(_OWN).splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        for base in (_GROUPS / names, _GROUPS / controller) if names else (_GROUPS, _GROUPS / "unified"):
            folder = base / path.lstrip("/")
            # A container may see its own group as the root, while the path is that of the machine outside.
            yield from (one for one in (folder, *folder.parents) if one == base or base in one.parents)


def _lowest(controller: str, *names: str) -> int | None:
    found = [_number(folder / name) for folder in _folders(controller) for name in names]
    return min((number for number in found if number is not None), default=None)


def _number(path: Path) -> int | None:
    words = _words(path)
    if len(words) != 1 or not words[0].isdigit() or int(words[0]) >= _ENDLESS:
        return None
    return int(words[0])


def _words(path: Path) -> list[str]:
    return told(path).split()


def told(path: Path) -> str:
    """Return what the system says in the file *path* of /proc or /sys; "" if it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""

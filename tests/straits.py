"""Brings a script's process into straits: little memory, few files, other mounts. Imports nothing heavy.

Mounts are changed in a mount namespace of the script's own, which needs root or user namespaces.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 8192, 16384, 1 << 18
NO_MOUNTS = 77
"""Exit status of a script that may not mount anything."""


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def own_mounts() -> None:
    """Let what is mounted from here on be seen by this process and its children only."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNS):
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
            os._exit(NO_MOUNTS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    try:
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    except OSError:
        os._exit(NO_MOUNTS)


def tmpfs(path: str, nbytes: int) -> None:
    """Lay an empty file system in memory over *path*."""
    _mount("none", path, "tmpfs", 0, f"size={nbytes}")


def read_only(path: str) -> None:
    """Let nobody write below *path*."""
    _mount(path, path, "", _MS_BIND)
    _mount("none", path, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def bare_dev(folder: str) -> None:
    """Let /dev have null and urandom, and neither shm nor fd; *folder* is an empty one."""
    tmpfs(folder, 1 << 20)
    for name in ("null", "urandom"):
        Path(folder, name).touch()
        _mount(f"/dev/{name}", f"{folder}/{name}", "", _MS_BIND)
    _mount(folder, "/dev", "", _MS_MOVE)


def limit(name: str, value: int) -> None:
    """Set the soft limit *name* of this process and its children, such as RLIMIT_AS."""
    number = getattr(resource, name)
    resource.setrlimit(number, (value, resource.getrlimit(number)[1]))


def address_space() -> int:
    """Return the bytes of address space that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

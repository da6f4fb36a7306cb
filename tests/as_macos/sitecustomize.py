"""Takes from this Python what only Linux has, before anything else is imported: what is left is what macOS has.

With this folder in front of PYTHONPATH it holds for a process and all its children. So the package takes the ways of
macOS: temporary files in the place of memory files, workers that are spawned, a pipe in the place of a pidfd, a thread
that watches the lifeline, and poll. What Linux does otherwise below that, such as the size of socket buffers, stays.
"""

import fcntl
import os
import selectors
import signal
import socket

for module, names in {
    os: ("memfd_create", "pidfd_open", "pipe2", "sched_getaffinity", "posix_fallocate"),
    signal: ("SIGRTMIN", "SIGRTMAX", "pidfd_send_signal", "sigtimedwait", "sigwaitinfo"),
    socket: ("MSG_CMSG_CLOEXEC", "SOCK_CLOEXEC"),
    selectors: ("EpollSelector",),
}.items():
    for name in names:
        vars(module).pop(name, None)
for name in ("F_SETSIG", "F_GETSIG", "F_ADD_SEALS", "F_GET_SEALS"):
    setattr(fcntl, name, None)  # Not deleted: the number would be looked up elsewhere.
selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc]

"""No process outlives the one that needs it.

The training process holds the only writing end of a pipe, the *lifeline*, and never writes. When it is gone, for
whatever reason, the kernel closes the pipe. On Linux the kernel then kills the holder of the reading end itself
(a SIGIO that is a SIGKILL): no thread, which would forbid the template to fork, and no wait for a long
`__getitem__`. PR_SET_PDEATHSIG does not serve here: it fires when the *thread* that started the process ends, and
tf.data iterates in threads that come and go. Between template and worker it does serve: the template has one thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
# fcntl.h of Linux; Python names it only on some builds.
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10 if sys.platform == "linux" else None)


def hold(fd: int) -> None:
    """Die when every writing end of the pipe *fd* is closed."""
    if _F_SETSIG is not None:
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        os.set_blocking(fd, False)
        try:
            ended = os.read(fd, 1) == b""  # Closed before the signal was armed.
        except BlockingIOError:
            ended = False
        if ended:
            os._exit(1)
    else:
        threading.Thread(target=_wait, args=(fd,), daemon=True, name="keras_mpseq lifeline").start()


def _wait(fd: int) -> None:
    os.read(fd, 1)
    os._exit(1)


def die_with(parent: int) -> None:
    """Die when the process *parent*, whose child this is, dies; Linux only."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # It died before the call.
        os._exit(1)

"""What the interpreter can tell of a call: audit events, patched functions, and the user's lines they came from.

Only for processes that are thrown away: an audit hook stays for ever, and the patches reach into every module.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq.checks.records import NUMPY, PYTHON, Event, Place
from keras_mpseq.state.reach import UserCode

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
_EVENTS = {
    "os.listdir": "list",
    "os.scandir": "list",
    "sqlite3.connect": "connect",
    "socket.connect": "connect",
    "subprocess.Popen": "start",
    "os.fork": "start",
    "os.forkpty": "start",
    "os.posix_spawn": "start",
}
_CODE = (".py", ".pyc", ".so", ".pyi", ".pth")
_RUBBISH = 0xA5
_MOST = 200
"""Events that are kept of one call."""


class Listener:
    """Collects what happens while it is switched on.

    Args:
        code: Which files are the user's.
    """

    def __init__(self, code: UserCode) -> None:
        self._code = code
        self._busy = False
        self.on = False
        self.events: list[Event] = []

    def note(self, kind: str, detail: str, frame: types.FrameType | None) -> None:
        """Keep an event, with the line of the user's that led to it."""
        if self.on and not self._busy and len(self.events) < _MOST:
            self._busy = True
            try:
                if not self._imports(frame):
                    self.events.append(Event(kind, detail, self.place(frame)))
            finally:
                self._busy = False

    def _imports(self, frame: types.FrameType | None) -> bool:
        """Tell whether a module is being imported between the user's line and *frame*: that happens once."""
        while frame is not None and not self._code.owns_frame(frame):
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            frame = frame.f_back
        return False

    def place(self, frame: types.FrameType | None, line: int = 0) -> Place | None:
        """Return the innermost line of the user's in the stack that ends with *frame*, which is at *line*."""
        hops: list[tuple[str, str, int]] = []
        boot = vars(sys.modules["__main__"])  # Ours, in a child.
        while frame is not None and frame.f_globals is not boot:
            code = frame.f_code
            if self._code.owns_frame(frame):
                hops.append((qualified(frame), code.co_filename, line or frame.f_lineno))
                if code.co_name == "__getitem__":
                    break
            frame, line = frame.f_back, 0
        if not hops:
            return None
        function, path, line = hops[0]
        return Place(path, line, function, tuple(reversed(hops)) if len(hops) > 1 else ())

    def take(self) -> list[Event]:
        """Return what was collected since the last time."""
        events, self.events = self.events, []
        return events

    # --- audit events -------------------------------------------------------------------------------

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Be the audit hook."""
        if not self.on or self._busy:
            return
        if event == "open":
            self._open(*args)
        elif event in _EVENTS:
            self.note(_EVENTS[event], f"{event} {_text(args[0]) if args else ''}".strip(), sys._getframe(1))

    def _open(self, path: object, mode: str | None, flags: int) -> None:
        name = _text(path)
        if not isinstance(path, (str, bytes)) or name.endswith(_CODE) or name.startswith("/dev/"):
            return
        frame = sys._getframe(2)
        if Path(name).is_dir():  # `tempfile` names the folder of a file that gets its name, if any, only then.
            return
        writes = any(letter in mode for letter in "wax+") if mode else bool(flags & _WRITING)
        self.note("write" if writes else "read", os.path.abspath(name), frame)


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, (str, bytes)) else type(value).__name__


def qualified(frame: types.FrameType) -> str:
    """Return the qualified name of a frame's function; before Python 3.11 code objects do not know it."""
    code = frame.f_code
    name: str = getattr(code, "co_qualname", "")
    if not name:
        owner = frame.f_locals.get("self")
        name = f"{type(owner).__name__}.{code.co_name}" if owner is not None else code.co_name
    return name.rpartition("<locals>.")[2]


# --- patches ----------------------------------------------------------------------------------------


class Patches:
    """Functions that are put in the place of others.

    Args:
        listener: Is told of their calls.
        code: Which files are the user's.
    """

    def __init__(self, listener: Listener, code: UserCode) -> None:
        self._listener = listener
        self._code = code
        self._made: dict[int, tuple[Any, Any]] = {}

    def put(self, owner: Any, name: str, made: Callable[[Any], Any]) -> None:
        """Put `made(original)` in the place of `owner.name`."""
        original = getattr(owner, name)
        substitute = made(original)
        self._made[id(original)] = original, substitute
        setattr(owner, name, substitute)

    def reach_into(self, namespaces: Iterable[dict[str, Any]]) -> None:
        """Put them also where the user's code imported the originals by name."""
        for namespace in namespaces:
            for key, value in list(namespace.items()):
                if id(value) in self._made and self._made[id(value)][0] is value:
                    namespace[key] = self._made[id(value)][1]

    def sources(self) -> None:
        """Tell of what a batch may read that is not the same in every process, and of seeding."""
        for name in ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns"):
            self.put(time, name, self._telling("ambient", f"time.{name}()"))
        for name in ("getpid", "getppid", "urandom", "getcwd"):
            self.put(os, name, self._telling("ambient", f"os.{name}()"))
        for name in ("uuid1", "uuid4"):
            self.put(uuid, name, self._telling("ambient", f"uuid.{name}()"))
        self.put(np.random, "default_rng", self._telling("ambient", "np.random.default_rng()", unless_given=True))
        for owner, label, names in ((np.random, NUMPY, ("seed", "set_state")), (random, PYTHON, ("seed", "setstate"))):
            for name in names:
                self.put(owner, name, self._telling("seed", f"{label}.{name}()"))
        self.put(threading.Thread, "start", self._telling("start", "threading.Thread.start()", any_caller=True))
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "manual_seed"):
            self.put(torch, "manual_seed", self._telling("seed", "torch.manual_seed()"))
        h5py = sys.modules.get("h5py")
        if h5py is not None:
            self.put(h5py.File, "__init__", self._opening)

    def _telling(
        self, kind: str, label: str, *, unless_given: bool = False, any_caller: bool = False
    ) -> Callable[[Any], Any]:
        def made(original: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                frame = sys._getframe(1)
                # Of the user's own calls only: what libraries do with the time seldom reaches a batch.
                if not (unless_given and (args or kwargs)) and (
                    any_caller or self._code.owns(frame.f_code.co_filename)
                ):
                    self._listener.note(kind, label, frame)
                return original(*args, **kwargs)

            return call

        return made

    def _opening(self, original: Any) -> Any:
        def opening(this: Any, name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
            if isinstance(name, (str, bytes, os.PathLike)):  # Else it is a view of a file that is open already.
                kind = "read" if mode == "r" else "write"
                self._listener.note(kind, os.path.abspath(os.fsdecode(name)), sys._getframe(1))
            original(this, name, mode, *args, **kwargs)

        return opening

    def fill(self, *, rubbish: bool) -> None:
        """Let `np.empty` return zeros, or rubbish: what the memory held before is never twice the same."""

        def filled(original: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                array = original(*args, **kwargs)
                if type(array) is np.ndarray and array.dtype.kind in "biufc" and array.flags.writeable:
                    array.fill(_rubbish(array.dtype) if rubbish else 0)
                    if rubbish:
                        self._listener.note("empty", str(array.shape), sys._getframe(1))
                return array

            return call

        self.put(np, "empty", filled)
        self.put(np, "empty_like", filled)

    def turn_listings(self) -> None:
        """Let directories be listed the other way round: their order is the file system's affair."""

        def turned(original: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                self._listener.note("list", f"os.{original.__name__}", sys._getframe(1))
                found = list(original(*args, **kwargs))[::-1]
                return found if original.__name__ == "listdir" else _Listing(found)

            return call

        self.put(os, "listdir", turned)
        self.put(os, "scandir", turned)


def _rubbish(dtype: np.dtype[Any]) -> Any:
    return np.frombuffer(bytes([_RUBBISH]) * dtype.itemsize, dtype)[0]


class _Listing:
    """What `os.scandir` returns: an iterator that is a context manager."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> _Listing:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> _Listing:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def close(self) -> None:
        """Have nothing to close."""


class Console:
    """Stands in the place of `sys.stdout` or `sys.stderr`, and tells of what is written."""

    def __init__(self, listener: Listener, name: str) -> None:
        self._listener = listener
        self._name = name
        self._under = getattr(sys, name)

    def write(self, text: str) -> int:
        """Tell of *text*, and throw it away."""
        frame = sys._getframe(1)
        if not frame.f_code.co_filename.endswith("warnings.py"):  # A warning is not the user's print.
            self._listener.note("print", self._name, frame)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)

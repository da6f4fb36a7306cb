"""Find every member of a sequence that does not pickle, and say where it is and what to do about it.

Runs only after pickling has failed. Breadth first, from the sequence down: what pickles alone is skipped at once, what
does not is taken apart the way pickle would do it, and what fails although all its parts pickle is to blame. Nothing
of the user's is called but what pickling itself calls.
"""

from __future__ import annotations

import copyreg
import functools
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_mpseq.errors import PayloadError

_MOST = 10
"""Members named in one message."""
_LONGEST = 60
"""Characters of a dictionary key in a path."""
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})

_OPAQUE = {
    "it belongs to one process": (
        *("_thread.", "threading.", "queue.", "_queue.", "asyncio.", "concurrent.futures.", "subprocess."),
        *("multiprocessing.", "_multiprocessing.", "_contextvars.", "logging.", "builtins.frame", "builtins.traceback"),
    ),
    "keep its path and open it in the worker": (
        *("_io.", "tempfile.", "zipfile.", "tarfile.", "mmap.", "gzip.", "bz2.", "lzma.", "posix.ScandirIterator"),
        *("h5py.", "netCDF4.", "tables.", "lmdb.", "cv2.VideoCapture", "PIL."),
    ),
    "connect in the worker": (
        *("sqlite3.", "socket.", "_socket.", "ssl.", "_ssl.", "psycopg", "pymysql.", "MySQLdb.", "sqlalchemy.engine."),
        *("pymongo.", "redis.", "boto3.", "botocore."),
    ),
    "keep what it is made from, and index that": (
        *("builtins.generator", "builtins.coroutine", "builtins.async_generator"),
    ),
    "keep what it refers to": ("weakref.", "_weakref.", "builtins.weakref"),
    "keep what it is made from": ("_ctypes.", "ctypes."),
}
"""What to do about a kind of object, by how names of its classes begin. These are not taken apart: the lock inside a
queue would tell the user less than the queue."""
_FRAMEWORKS = {
    "a dataset is not read inside a sequence: keep files or arrays": ("tensorflow.python.data.",),
    "build it in the worker, or keep NumPy arrays": ("tensorflow.", "keras.", "tf_keras.", "torch.", "jax.", "jaxlib."),
}
"""The same for the class itself only: the user's own classes are often subclasses of these."""


class Member(NamedTuple):
    """A part of the sequence, where it is, and what pickling it raised."""

    path: str
    value: Any
    error: Exception | None = None


Attempt = Callable[[object], Exception | None]
"""Pickles a value and returns what that raised, if it raised."""
Reduce = Callable[[Any], Any]
"""Returns the tuple that pickle takes a value apart into, or something else where it does not."""


def refusal(sequence: object, error: Exception, attempt: Attempt, reduce: Reduce) -> PayloadError:
    """Return the error that names everything in *sequence* that does not pickle.

    Args:
        sequence: What did not pickle.
        error: What pickling it raised.
        attempt: Pickles one value.
        reduce: Takes one value apart.
    """
    members = culprits(Member("seq", sequence, error), attempt, reduce)
    listed = ", ".join(f"{member.path} ({_describe(member)})" for member in members[:_MOST])
    more = f", and {len(members) - _MOST} more" if len(members) > _MOST else ""
    count = "1 member does" if len(members) == 1 else f"{len(members)} members do"
    return PayloadError(
        f"The sequence cannot be sent to workers: {count} not pickle: {listed}{more}",
        remedy="Build such members in the worker with @per_worker, or drop them in __getstate__.",
    )


def culprits(root: Member, attempt: Attempt, reduce: Reduce) -> list[Member]:
    """Return the members that do not pickle though all their parts do; one for each path to them."""
    # Kept by value as well as by id: the parts of a value may be made for the occasion, and their ids dealt again.
    paths: dict[int, tuple[Any, list[Member]]] = {id(root.value): (root.value, [root])}
    queue = deque([root])
    blamed: list[int] = []
    while queue:
        member = queue.popleft()
        parts = [] if _is_final(member, root) else _failing(_parts(member, reduce), attempt)
        if not parts:
            blamed.append(id(member.value))
        for part in parts:
            if id(part.value) in paths:
                paths[id(part.value)][1].append(part)
            else:
                paths[id(part.value)] = part.value, [part]
                queue.append(part)
    # Nothing to blame means a failing ring whose members fail only together.
    return [member for key in blamed for member in paths[key][1]] or [root]


def _is_final(member: Member, root: Member) -> bool:
    """Tell whether to blame *member* without a look at its parts."""
    return member is not root and (_is_too_deep(member.error) or _hint(member.value) is not None)


def _failing(members: list[Member], attempt: Attempt) -> list[Member]:
    """Return those that do not pickle; halves that do are not looked into."""
    error = attempt([member.value for member in members])
    if error is None:
        return []
    if len(members) == 1:
        return [members[0]._replace(error=error)]
    middle = len(members) // 2
    return _failing(members[:middle], attempt) + _failing(members[middle:], attempt)


# --- taking apart -----------------------------------------------------------------------------------


def _parts(member: Member, reduce: Reduce) -> list[Member]:
    try:
        parts = [part for part in _taken_apart(member.path, member.value, reduce) if type(part.value) not in _ATOMS]
    except Exception:  # The user's __reduce__ or __getstate__ raised: then the object itself is to blame.
        return []
    return parts


def _taken_apart(path: str, value: Any, reduce: Reduce) -> Iterator[Member]:
    kind = type(value)
    if kind is dict:
        yield from _items(path, value.items())
    elif kind in (list, tuple):
        yield from (Member(f"{path}[{position}]", part) for position, part in enumerate(value))
    elif kind in (set, frozenset):
        yield from (Member(f"{path}{{{_key(part)}}}", part) for part in value)
    elif kind is types.MethodType:
        yield Member(f"{path}.__self__", value.__self__)
        yield Member(f"{path}.__func__", value.__func__)
    elif kind is types.CellType:
        yield Member(path, value.cell_contents)
    elif kind is np.ndarray and value.dtype == object:
        yield from (Member(f"{path}.flat[{at}]", part) for at, part in enumerate(value.ravel().tolist()))
    elif kind is functools.partial:
        yield from (Member(f"{path}.{name}", getattr(value, name)) for name in ("func", "args", "keywords", "__dict__"))
    else:
        reduced = reduce(value)
        if isinstance(reduced, tuple):
            yield from _reduced(path, value, *reduced)


def _reduced(
    path: str, value: Any, make: Any, args: Any, state: Any = None, items: Any = None, pairs: Any = None, *_: Any
) -> Iterator[Member]:
    if make is copyreg.__newobj__ or make is copyreg.__newobj_ex__:  # type: ignore[attr-defined]
        yield Member(f"type({path})", args[0])
        yield from (Member(f"{path}.__getnewargs__()[{at}]", part) for at, part in enumerate(args[1:]))
    else:
        yield Member(f"{path}.__reduce__()[0]", make)
        yield from (Member(f"{path}.__reduce__()[1][{at}]", part) for at, part in enumerate(args))
    # A pair of dictionaries: __dict__ and __slots__, or what cloudpickle keeps of a function or class.
    for names in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(names, dict):
            yield from (Member(*_attribute(path, value, name, part)) for name, part in names.items())
        elif names is not None:
            yield Member(f"{path}.__getstate__()", names)
    yield from (Member(f"{path}[{at}]", part) for at, part in enumerate(items or ()))
    yield from _items(path, pairs or ())


def _attribute(path: str, value: Any, name: Any, part: Any) -> tuple[str, Any]:
    if name == "__closure__" and isinstance(value, types.FunctionType) and part:
        part = dict(zip(value.__code__.co_freevars, part, strict=True))
    return f"{path}.{name}" if type(name) is str else f"{path}.__dict__[{_key(name)}]", part


def _items(path: str, pairs: Any) -> Iterator[Member]:
    for key, part in pairs:
        yield Member(f"{path}.keys(){{{_key(key)}}}", key)
        yield Member(f"{path}[{_key(key)}]", part)


def _key(key: Any) -> str:
    """Return how to write a key; calls no __repr__ of the user's."""
    text = repr(key) if type(key) in _ATOMS else f"<{_name(type(key))}>"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


# --- saying it --------------------------------------------------------------------------------------


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _hint(value: Any) -> str | None:
    """Return what to do about a value of a well-known kind."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__]
    for table, known in ((_FRAMEWORKS, names[:1]), (_OPAQUE, names)):
        for hint, starts in table.items():
            if any(name.startswith(starts) for name in known):
                return hint
    return None


def _is_too_deep(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError))


def _describe(member: Member) -> str:
    return f"{_name(type(member.value))}: {_hint(member.value) or _reason(member.error)}"


def _reason(error: Exception | None) -> str:
    if _is_too_deep(error):
        return "nested too deeply"
    # Not str(): exceptions of the user's may have a __str__ that raises.
    told = error.args[0] if error is not None and error.args and type(error.args[0]) is str else ""
    return f"{type(error).__name__}: {told.rstrip('.')}" if told else type(error).__name__

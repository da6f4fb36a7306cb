"""What a sequence holds: a walk over its members by name, and what is wrong with having some kinds of them."""

from __future__ import annotations

import functools
import gc
import io
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_mpseq.state.digests import is_generator

_MOST = 20_000
"""Objects that are walked through."""
_DEEPEST = 8
_LONGEST = 60
_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, np.generic, np.dtype)
OBJECTS_LIMIT = 1_000_000
"""Python objects from which copy-on-write by reference counts is worth a word."""

_KINDS: dict[str, tuple[str, ...]] = {
    "SEQ102": (
        *("_thread.", "threading.", "queue.", "_queue.", "asyncio.", "concurrent.futures.", "multiprocessing."),
        *("_multiprocessing.",),
    ),
    "SEQ301": ("h5py.", "netCDF4.", "tables.", "xarray.backends.", "lmdb."),
    "SEQ302": ("sqlite3.", "psycopg", "pymysql.", "MySQLdb.", "sqlalchemy.engine.", "pymongo.", "redis.", "duckdb."),
    "SEQ303": (
        *("_io.", "tempfile.", "zipfile.", "tarfile.", "mmap.", "gzip.", "bz2.", "lzma.", "socket.", "_socket."),
        *("ssl.", "_ssl.", "cv2.VideoCapture", "subprocess.", "requests.sessions.", "logging.FileHandler"),
        *("posix.ScandirIterator", "tqdm."),
    ),
    "SEQ304": (
        *("tensorflow.", "keras.src.backend.", "keras.src.models.", "keras.src.layers.", "tf_keras.src.engine."),
        *(
            "jaxlib.",
            "torch.Tensor",
        ),
    ),
}
"""What may not be a member, by how the names of its classes begin."""
_IN_MEMORY = (io.BytesIO, io.StringIO)


class Member(NamedTuple):
    """A part of the sequence and where it is."""

    path: str
    value: Any


def members(sequence: Any) -> Iterator[Member]:
    """Yield what *sequence* holds, breadth first, each object once; libraries' objects are not entered."""
    seen: set[int] = {id(sequence)}
    level = list(_attributes("self", sequence))
    for _ in range(_DEEPEST):
        deeper: list[Member] = []
        for member in level:
            if id(member.value) in seen or isinstance(member.value, (*_ATOMS, types.ModuleType)):
                continue
            if len(seen) > _MOST:
                return
            seen.add(id(member.value))
            yield member
            deeper += _parts(member)
        level = deeper


def kind_of(value: object) -> str:
    """Return the code of the rule that a member breaks by being what it is; "" if none."""
    if isinstance(value, (*_IN_MEMORY, np.ndarray, types.FunctionType, type)):
        return ""
    # The user's own subclasses of framework classes are judged by their members, as of SEQ304 they are no handle.
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(value).__mro__]
    for code, starts in _KINDS.items():
        known = names[:1] if code == "SEQ304" else names
        if any(name.startswith(starts) for name in known):
            return code
    if names[0].startswith("PIL.") and getattr(value, "fp", None) is not None:
        return "SEQ303"
    return ""


def generators(sequence: object) -> dict[str, Any]:
    """Return the random generators that the sequence holds, by path."""
    return {member.path: member.value for member in members(sequence) if is_generator(member.value)}


def arrays(sequence: object) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays that the sequence holds, by path."""
    return {member.path: member.value for member in members(sequence) if isinstance(member.value, np.ndarray)}


def count_objects(sequence: object) -> int:
    """Return how many references to Python objects the sequence holds, up to a little more than the limit."""
    count, seen = 0, set()
    level: list[Any] = [getattr(sequence, "__dict__", {})]
    while level and count <= OBJECTS_LIMIT:
        parts = gc.get_referents(*level)
        count += len(parts)
        # What is not tracked holds nothing that is.
        level = [part for part in parts if gc.is_tracked(part) and id(part) not in seen and not _is_shared(part)]
        seen |= {id(part) for part in level}
    return count


def _is_shared(value: object) -> bool:
    return isinstance(value, (type, types.ModuleType, types.FunctionType))


def type_name(value: object) -> str:
    """Return the full name of the class of *value*, as findings show it."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _attributes(path: str, value: Any) -> Iterator[Member]:
    for name, part in list(getattr(value, "__dict__", {}).items()):
        if name != "_mpseq":  # Belongs to the process already, and does not travel.
            yield Member(f"{path}.{name}", part)


def _parts(member: Member) -> Iterator[Member]:
    path, value = member
    kind = type(value)
    if isinstance(value, dict):
        yield from (Member(f"{path}[{_key(key)}]", part) for key, part in list(value.items())[:_MOST])
    elif isinstance(value, (list, tuple)):
        yield from (Member(f"{path}[{at}]", part) for at, part in enumerate(value[:_MOST]))
    elif isinstance(value, (set, frozenset)):
        yield from (Member(f"{path}{{{_key(part)}}}", part) for part in list(value)[:_MOST])
    elif isinstance(value, (types.MethodType, types.BuiltinMethodType)):
        yield Member(f"{path}.__self__", value.__self__)
    elif isinstance(value, functools.partial):
        yield from (Member(f"{path}.args[{at}]", part) for at, part in enumerate(value.args))
        yield from (Member(f"{path}.keywords[{key!r}]", part) for key, part in value.keywords.items())
    elif isinstance(value, types.FunctionType):
        yield from _cells(path, value)
    elif not isinstance(value, (type, types.ModuleType, np.ndarray)) and not kind_of(value) and kind is not object:
        yield from _attributes(path, value)


def _cells(path: str, function: types.FunctionType) -> Iterator[Member]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield Member(f"{path}.<{name}>", cell.cell_contents)
        except ValueError:  # Not assigned yet.
            continue


def _key(key: Any) -> str:
    """Return how to write a key; calls no __repr__ of the user's."""
    text = repr(key) if type(key) in _ATOMS else f"<{type_name(key)}>"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"

"""Digests of state: equal digests mean equal contents, within one process.

What does not pickle counts as what it is (its identity); so does what is too large.
"""

from __future__ import annotations

import functools
import gc
import itertools
import operator
import pickle
import random
import sys
import types
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Scrutiny(NamedTuple):
    """How closely state is looked at."""

    large: int
    """Bytes from which an array is compared by samples, and by identity where it cannot be written."""
    samples: int
    limit: int
    """Bytes of pickle after which a value counts as too large to be compared."""
    generators: bool
    """Random generators count; else whoever looks looks at them by themselves."""


THOROUGH = Scrutiny(64 << 20, 1 << 16, 64 << 20, generators=False)
"""Of `check`, which also freezes arrays and so finds the rest."""
QUICK = Scrutiny(1 << 20, 64, 8 << 20, generators=True)
"""Of workers: arrays of 1 MiB and more are shared and cannot be written there."""
_IO = ("_io.", "tempfile.", "h5py.", "sqlite3.", "socket.", "zipfile.")
_FRAMEWORKS = ("tensorflow", "keras", "jaxlib")


def digest_of_array(array: Array) -> bytes:
    """Return a digest of dtype, shape and contents."""
    digest = blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.digest()


# --- random generators ------------------------------------------------------------------------------


def is_generator(value: object) -> bool:
    """Tell whether *value* is a random generator, of which every process would have a copy."""
    if isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
        return not isinstance(value, random.SystemRandom)
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Generator)


def state_of_generator(value: Any) -> object:
    """Return the state of a random generator, to be pickled or compared by its repr."""
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, random.Random):
        return value.getstate()
    return value.get_state().numpy().tobytes()


def print_of_generator(value: Any) -> int:
    """Return a hash of the state of a random generator, good within this process."""
    return hash(pickle.dumps(state_of_generator(value), 5))


# --- iterators --------------------------------------------------------------------------------------

_ITERABLES: tuple[Iterable[object], ...] = (
    [],
    (),
    {},
    set(),
    "",
    b"",
    range(0),
    range(1 << 70),
    {}.items(),
    {}.values(),
)
_ITERATORS: tuple[type, ...] = (
    *(type(iter(iterable)) for iterable in _ITERABLES),
    *(type(reversed([])), map, filter, zip, enumerate, types.GeneratorType),
    *(value for value in vars(itertools).values() if isinstance(value, type)),
)


def is_iterator(value: object) -> bool:
    """Tell whether *value* is used up by reading it."""
    return isinstance(value, _ITERATORS)


def position_of(value: Any, depth: int = 0) -> object:
    """Return something that changes when the iterator *value* moves on."""
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return None if frame is None else (frame.f_lasti, frame.f_lineno, _simple(frame.f_locals))
    if isinstance(value, itertools.count):
        return repr(value)
    inner = [part for part in gc.get_referents(value) if is_iterator(part)] if depth < 5 else []
    return (
        operator.length_hint(value, -1),
        tuple(position_of(part, depth + 1) for part in inner),
        # A `cycle` over what it has saved, a `product` and their like show their position in the objects they hold.
        tuple(id(part) for part in gc.get_referents(value)[:50]),
    )


def _simple(names: dict[str, Any]) -> object:
    """Return the simple local variables of a generator: they tell how far it is when the line is the same again."""
    return tuple(
        (name, value if isinstance(value, (int, float, str)) else position_of(value) if is_iterator(value) else 0)
        for name, value in names.items()
    )


# --- state ------------------------------------------------------------------------------------------


class _Hasher:
    """A file that keeps a hash of what is written, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._digest = blake2b(digest_size=16)
        self._left = limit

    def write(self, data: Any) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise OverflowError
        self._digest.update(data)

    def digest(self) -> bytes:
        return self._digest.digest()


class _Pickler(pickle.Pickler):
    """Takes code by identity, arrays by contents, iterators by how far they are."""

    def __init__(self, hasher: _Hasher, scrutiny: Scrutiny) -> None:
        super().__init__(hasher, 5)
        self._scrutiny = scrutiny

    def reducer_override(self, value: Any) -> Any:
        """Return what is written for *value*, or NotImplemented for the usual (called by pickle)."""
        if isinstance(value, (type, types.FunctionType, types.ModuleType)):
            return len, (id(value),)  # Never read again: any function of Python's own will do.
        if is_generator(value):
            return len, (print_of_generator(value) if self._scrutiny.generators else 0,)
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
            return len, (self._of_array(value),)
        if is_iterator(value):
            return len, (repr(position_of(value)),)
        if isinstance(value, functools._lru_cache_wrapper):
            return len, (value.cache_info().currsize,)
        return self._by_state(value)

    def _by_state(self, value: Any) -> Any:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name.startswith(_IO) or name.partition(".")[0] in _FRAMEWORKS:
            return len, (id(value),)
        try:
            value.__reduce_ex__(5)
        except Exception:  # Locks and the like; also whatever the user's own hooks raise.
            return len, (id(value),)
        return NotImplemented

    def _of_array(self, array: Array) -> object:
        if array.nbytes < self._scrutiny.large:
            return digest_of_array(array)
        if not array.flags.writeable:
            return id(array)
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        return digest_of_array(np.asarray(flat[:: max(1, array.size // self._scrutiny.samples)]))


def print_of(value: object, scrutiny: Scrutiny = THOROUGH) -> bytes | None:
    """Return a digest of a piece of state, good within this process; None if it is too large."""
    hasher = _Hasher(scrutiny.limit)
    try:
        _Pickler(hasher, scrutiny).dump(value)
    except OverflowError:
        return None
    except Exception:  # What does not pickle although its parts said so is told apart by identity only.
        return str(id(value)).encode()
    return hasher.digest()


def entries_of(value: object) -> dict[object, bytes | None] | None:
    """Return a digest of each entry of a container, or None for what is none."""
    if isinstance(value, dict):
        return {print_of(key): print_of(entry) for key, entry in list(value.items())}
    if isinstance(value, (set, frozenset)):
        return {print_of(entry): b"" for entry in list(value)}
    return None


def size_of(value: Any) -> int:
    """Return the length of a container that can be emptied, else -1."""
    if hasattr(value, "qsize"):
        return int(value.qsize())
    return len(value) if isinstance(value, (list, dict, set, bytearray)) or hasattr(value, "popleft") else -1

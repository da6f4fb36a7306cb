"""Digests of values: equal digests mean equal bytes, in whatever process they were made.

State is compared within one process, so that what does not pickle may count as what it is (its identity). Batches are
compared between processes, as their structure, dtypes, shapes and bytes.
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
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import optree
from numpy.typing import NDArray

from keras_mpseq.checks.records import Leaf
from keras_mpseq.codec import by_leaf, path_of, take_apart
from keras_mpseq.errors import UnsupportedLeafError

LARGE = 64 << 20
"""Bytes from which an array of the state is compared by samples: freezing it finds the rest."""
_LIMIT = 64 << 20
"""Bytes of pickle after which a value counts as too large to be compared."""
_SAMPLES = 1 << 16
_MOST_ROWS = 4096
"""Rows of a batch that are hashed."""
_IO = ("_io.", "tempfile.", "h5py.", "sqlite3.", "socket.", "zipfile.")

Array = NDArray[Any]


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

    def __init__(self) -> None:
        self._digest = blake2b(digest_size=16)
        self._left = _LIMIT

    def write(self, data: Any) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise OverflowError
        self._digest.update(data)

    def digest(self) -> bytes:
        return self._digest.digest()


class _Pickler(pickle.Pickler):
    """Takes code by identity, random generators not at all (they are looked at by themselves), arrays by contents."""

    def reducer_override(self, value: Any) -> Any:
        """Return what is written for *value*, or NotImplemented for the usual (called by pickle)."""
        if isinstance(value, (type, types.FunctionType, types.ModuleType)):
            return len, (id(value),)  # Never read again: any function of Python's own will do.
        if is_generator(value):
            return len, (0,)
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
            return len, (_sampled(value) if value.nbytes >= LARGE else digest_of_array(value),)
        if is_iterator(value):
            return len, (repr(position_of(value)),)
        if isinstance(value, functools._lru_cache_wrapper):
            return len, (value.cache_info().currsize,)
        return self._by_state(value)

    def _by_state(self, value: Any) -> Any:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name.startswith(_IO) or name.partition(".")[0] in ("tensorflow", "keras", "jaxlib"):
            return len, (id(value),)
        try:
            value.__reduce_ex__(5)
        except Exception:  # Locks and the like; also whatever the user's own hooks raise.
            return len, (id(value),)
        return NotImplemented


def _sampled(array: Array) -> bytes:
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return digest_of_array(np.asarray(flat[:: max(1, array.size // _SAMPLES)]))


def print_of(value: object) -> bytes | None:
    """Return a digest of a piece of state, good within this process; None if it is too large."""
    hasher = _Hasher()
    try:
        _Pickler(hasher, 5).dump(value)
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


# --- batches ----------------------------------------------------------------------------------------


class Printed:
    """A batch as what is compared."""

    def __init__(self, batch: object) -> None:
        self.leaves: list[Leaf] = []
        self.structure = ""
        self.opaque: list[str] = []
        self.arrays: list[Array] = []
        try:
            structure, parts = take_apart(batch)
        except UnsupportedLeafError as error:
            self.opaque.append(error.message)
            return
        self.structure = str(structure.tree)
        self.arrays = parts
        for number, (kind, arrays) in enumerate(by_leaf(structure.kinds, parts)):
            digest = b"".join(digest_of_array(array) for array in arrays)
            main = arrays[0]
            form = kind.partition(":")[0]
            dtype = "text" if form in ("str", "bytes") or main.dtype.kind in "SU" else main.dtype.name
            nbytes = sum(array.nbytes for array in arrays)
            self.leaves.append(Leaf(path_of(structure.tree, number), kind, dtype, main.shape, digest, nbytes))

    def rows(self) -> tuple[bytes, ...]:
        """Return a digest of each row of the first leaf that has rows."""
        for array in self.arrays:
            if array.ndim and 1 < len(array) <= _MOST_ROWS:
                return tuple(digest_of_array(row) for row in array)
        return ()


def tensors_in(batch: object) -> Iterator[tuple[str, str]]:
    """Yield path and type of the leaves that belong to a framework."""
    if not {"tensorflow", "torch", "jax"} & sys.modules.keys():
        return
    leaves: list[Any]
    leaves, tree = optree.tree_flatten(batch)  # type: ignore[arg-type]
    for number, leaf in enumerate(leaves):
        name = f"{type(leaf).__module__}.{type(leaf).__qualname__}"
        if name.partition(".")[0] in ("tensorflow", "keras", "torch", "jax", "jaxlib"):
            yield path_of(tree, number), name

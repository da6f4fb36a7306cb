"""A sequence to bytes and back: cloudpickle, large arrays out of band, memmaps by file name.

`pack` runs in the training process, `unpack` in the template and the workers. What a large array consists of is handed
over as memory, not copied into the pickle; whoever sends the payload puts that memory into shared segments, and the
arrays come back as read-only views of them. An array over an `np.memmap` travels as file name and position.

Two rules hold for comparing a payload with what workers already have. Equal bytes mean an equal sequence: everything
that pickling reads is in `data` or in `buffers`, and both are compared whole. Different bytes need not mean a change
(a set that was rebuilt, a module imported in between that a function travelling by value uses): that costs one resend.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
from cloudpickle import cloudpickle as registry

from keras_mpseq.arrays import SHARED_FROM, Reducer
from keras_mpseq.diagnosis import Member, culprits, refusal

_BLOCK = 1 << 20
"""Bytes compared at a time: in the cache with their result (10 GB/s; 4 GB/s at 16 KiB), and an early end is early."""


class Packed(NamedTuple):
    """A sequence as bytes."""

    data: bytes
    """The pickle, without the large arrays."""
    buffers: tuple[memoryview, ...]
    """The memory of the large arrays: flat, contiguous bytes, the user's own wherever the array has no gaps."""

    @property
    def nbytes_pickled(self) -> int:
        """Bytes that every worker unpickles into memory of its own."""
        return len(self.data)

    @property
    def nbytes_shared(self) -> int:
        """Bytes that all workers can share."""
        return sum(buffer.nbytes for buffer in self.buffers)


def pack(sequence: object, instead: Mapping[int, Any] = MappingProxyType({})) -> Packed:
    """Turn *sequence* into bytes.

    Classes and functions of `__main__`, and of modules that a fresh process cannot import, travel by value. The
    buffers show the live arrays: copy or compare them before the user's code runs again.

    Args:
        sequence: What is to travel.
        instead: What `__reduce__` is to return for some objects in it, by their id: for those that cannot travel.

    Raises:
        PayloadError: Something in it does not pickle; the message names every such member by its path.
    """
    out = io.BytesIO()
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        if _is_small(buffer):
            return True
        buffers.append(buffer.raw())
        return False

    try:
        _Pickler(out, keep, instead).dump(sequence)
    except MemoryError:
        raise
    except Exception as error:  # Pickling calls the user's hooks, which raise what they like.
        raise refusal(sequence, error, _attempt, _reduce) from error
    return Packed(out.getvalue(), tuple(buffers))


def unsendable(sequence: object) -> list[Member]:
    """Return the members of *sequence* that do not pickle although their parts do; none if it can be sent."""
    error = _attempt(sequence)
    return [] if error is None else culprits(Member("seq", sequence, error), _attempt, _reduce)


def unpack(data: bytes | memoryview, buffers: Sequence[memoryview]) -> object:
    """Return the sequence of a payload; its large arrays are views of *buffers*, read-only if those are.

    Raises whatever the user's code raises while it is imported or unpickled.
    """
    return pickle.loads(data, buffers=buffers)


def same_bytes(a: memoryview, b: memoryview) -> bool:
    """Tell whether two contiguous buffers hold the same bytes; stops at the first block that differs."""
    if a.nbytes != b.nbytes:
        return False
    left, right = np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)
    blocks = (slice(start, start + _BLOCK) for start in range(0, a.nbytes, _BLOCK))
    return all(np.array_equal(left[block], right[block]) for block in blocks)


def reusable(new: Sequence[memoryview], old: Sequence[memoryview]) -> tuple[int | None, ...]:
    """Return for each buffer of *new* which of the *old* copies holds the same bytes, its own position first.

    The sequence is unchanged exactly if its data is the same and every buffer finds its own position. Read-only arrays
    are compared like others: whoever owns one can make it writeable, change it and make it read-only again, and views
    taken before stay writeable.
    """

    def find(position: int, buffer: memoryview) -> int | None:
        matching = [at for at, copy in enumerate(old) if copy.nbytes == buffer.nbytes]
        matching.sort(key=lambda at: at != position)
        return next((at for at in matching if same_bytes(buffer, old[at])), None)

    return tuple(find(position, buffer) for position, buffer in enumerate(new))


# --- pickling ---------------------------------------------------------------------------------------


def _reduce_cached_property(value: functools.cached_property[Any]) -> Any:
    # Until Python 3.11 it holds a lock, which nobody can send.
    return functools.cached_property, (value.func,), {"attrname": value.attrname}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, with its own ways for arrays and for modules that exist in this process only."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({functools.cached_property: _reduce_cached_property})

    def __init__(
        self, out: Any, keep: Callable[[pickle.PickleBuffer], bool], instead: Mapping[int, Any] = MappingProxyType({})
    ) -> None:
        super().__init__(out, protocol=5, buffer_callback=keep)
        self._arrays = Reducer()
        self._instead = instead

    def reducer_override(self, value: Any) -> Any:
        """Return how to rebuild *value*, or NotImplemented for the usual way (called by pickle)."""
        if id(value) in self._instead:
            return self._instead[id(value)]
        if issubclass(type(value), np.ndarray):
            return self._arrays.reduce(value)
        if not isinstance(value, (type, types.FunctionType, types.ModuleType)):
            return super().reducer_override(value)
        module = _lost_module(value)
        reduced = super().reducer_override(value) if module is None else self._reduce_by_value(value, module)
        if isinstance(value, type) and isinstance(reduced, tuple) and len(reduced) > 2:
            # copyreg notes this in a class when the first object is pickled; sent, it would make the second pack of
            # an unchanged sequence differ from the first.
            reduced[2][0].pop("__slotnames__", None)
        return reduced

    def _reduce_by_value(self, value: Any, module: types.ModuleType) -> Any:
        # The registry belongs to the process, and other users of cloudpickle rely on it: ours for this call only.
        with _registry_lock:
            ours = module.__name__ not in registry.list_registry_pickle_by_value()
            if ours:
                cloudpickle.register_pickle_by_value(module)
            try:
                if isinstance(value, types.ModuleType):
                    return self.dispatch_table[types.ModuleType](value)
                return super().reducer_override(value)
            finally:
                if ours:
                    cloudpickle.unregister_pickle_by_value(module)


# --- modules that a fresh process cannot import -----------------------------------------------------

_registry_lock = threading.RLock()
_lost: weakref.WeakKeyDictionary[types.ModuleType, bool] = weakref.WeakKeyDictionary()


def _lost_module(value: Any) -> types.ModuleType | None:
    """Return the module of a class or function, or a module itself, if importing its name elsewhere fails.

    cloudpickle sends by name what is in `sys.modules`, such as modules made by hand or loaded from a path.
    """
    is_module = isinstance(value, types.ModuleType)
    name = value.__name__ if is_module else registry._whichmodule(value, value.__qualname__)
    module = sys.modules.get(name)
    if not isinstance(module, types.ModuleType) or name in ("__main__", "builtins") or module.__name__ != name:
        return None
    if module not in _lost:
        _lost[module] = _is_lost(name)
    return module if _lost[module] else None


def _is_lost(name: str) -> bool:
    """Tell whether the top-level package of *name* is not what the import system finds under its name."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return False
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(top, None)
        except Exception:  # Finders are anybody's code; in doubt leave it to cloudpickle.
            return False
        if spec is not None:
            loaded = getattr(sys.modules.get(top), "__spec__", None)
            origins = spec.origin, getattr(loaded, "origin", None)
            return None not in origins and origins[0] != origins[1]
    return True


# --- for the diagnosis ------------------------------------------------------------------------------


def _is_small(buffer: pickle.PickleBuffer) -> bool:
    return buffer.raw().nbytes < SHARED_FROM


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def _attempt(value: object) -> Exception | None:
    """Pickle *value* for nothing; return what that raised."""
    try:
        _Pickler(_Nowhere(), _is_small).dump(value)
    except Exception as error:  # Pickling calls the user's hooks, which raise what they like.
        return error
    return None


def _reduce(value: Any) -> Any:
    """Return what pickle would take *value* apart into: a tuple, or something else for what goes by name."""
    pickler = _Pickler(_Nowhere(), _is_small)
    reduced = pickler.reducer_override(value)
    if reduced is not NotImplemented or isinstance(value, (type, types.FunctionType)):
        return reduced
    reducer = pickler.dispatch_table.get(type(value))
    return reducer(value) if reducer is not None else value.__reduce_ex__(5)

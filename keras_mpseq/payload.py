"""A sequence to bytes and back: cloudpickle, large arrays out of band, memmaps by file name.

`pack` runs in the training process, `unpack` in the template and the workers. What a large array consists of is handed
over as memory, not copied into the pickle; whoever sends the payload puts that memory into shared segments, and the
arrays come back as read-only views of them. An array over an `np.memmap` travels as file name and position.

Two rules hold for comparing a payload with what workers already have. Equal bytes mean an equal sequence: everything
that pickling reads is in `data` or in `buffers`, and both are compared whole. Different bytes need not mean a change
(a set that was rebuilt, a module imported in between that a function travelling by value uses): that costs one resend.
"""

from __future__ import annotations

import copyreg
import io
import mmap
import os
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
from cloudpickle import cloudpickle as registry
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from keras_mpseq.diagnosis import refusal

SHARED_FROM = 1 << 20
"""Bytes from which an array goes out of band: below, a segment of its own costs more than copying the bytes."""
_BLOCK = 1 << 20
"""Bytes compared at a time: in the cache with their result (10 GB/s; 4 GB/s at 16 KiB), and an early end is early."""
_BY_ELEMENT = 0x01 | 0x02
"""Flags of dtypes whose elements are references (NPY_ITEM_REFCOUNT, NPY_LIST_PICKLE): bytes mean nothing elsewhere."""

Array = NDArray[Any]


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


def pack(sequence: object) -> Packed:
    """Turn *sequence* into bytes.

    Classes and functions of `__main__`, and of modules that a fresh process cannot import, travel by value. The
    buffers show the live arrays: copy or compare them before the user's code runs again.

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
        _Pickler(out, keep).dump(sequence)
    except MemoryError:
        raise
    except Exception as error:  # Pickling calls the user's hooks, which raise what they like.
        raise refusal(sequence, error, _attempt, _reduce) from error
    return Packed(out.getvalue(), tuple(buffers))


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


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, with its own ways for arrays and for modules that exist in this process only."""

    def __init__(self, out: Any, keep: Callable[[pickle.PickleBuffer], bool]) -> None:
        super().__init__(out, protocol=5, buffer_callback=keep)
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._maps: dict[int, tuple[Array, _Map | None]] = {}
        self._open: set[tuple[int, int]] | None = None

    def reducer_override(self, value: Any) -> Any:
        """Return how to rebuild *value*, or NotImplemented for the usual way (called by pickle)."""
        if issubclass(type(value), np.ndarray):
            return self._reduce_array(value)
        if isinstance(value, (type, types.FunctionType, types.ModuleType)):
            module = _lost_module(value)
            if module is not None:
                return self._reduce_by_value(value, module)
        return super().reducer_override(value)

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

    def _reduce_array(self, value: Array) -> Any:
        kind: type[Array] = type(value)
        if kind is np.ma.MaskedArray:
            return _reduce_masked(value) if np.ndarray.view(value, np.ndarray).nbytes >= SHARED_FROM else NotImplemented
        if not _pickles_as_array(kind) or value.dtype.flags & _BY_ELEMENT:
            return NotImplemented
        array = np.ndarray.view(value, np.ndarray)  # Subclasses may redefine what is used below.
        root = _memmap_of(array)
        file = self._map(root) if root is not None and array.size else None
        if file is not None:
            low, nbytes = _extent(array)
            low -= _address(file.root)
            if 0 <= low and low + nbytes <= file.root.nbytes:
                return _over_map, (file, kind, array.dtype, array.shape, array.strides, low + _lead(array))
        if issubclass(kind, np.memmap):
            kind = np.ndarray
        if array.nbytes >= SHARED_FROM:
            return self._reduce_large(array, kind)
        return NotImplemented if kind is type(value) else array.__reduce_ex__(5)

    def _reduce_large(self, array: Array, kind: type[Array]) -> Any:
        low, nbytes = _extent(array)
        if nbytes > array.nbytes:
            # Gaps, as in x[::2]. Without them the memory goes as it is, in whatever order of axes it lies; overlapping
            # windows and broadcast arrays then stay as small as they are.
            array = array.copy(order="K")
            low, nbytes = _extent(array)
        block = self._blocks.setdefault((low, nbytes), _Block(array, low, nbytes))
        return _over_block, (block, kind, array.dtype, array.shape, array.strides, _lead(array))

    def _map(self, root: np.memmap[Any, Any]) -> _Map | None:
        """Return the file behind *root*, or None if a worker would not find the same bytes there."""
        if id(root) not in self._maps:
            if self._open is None:
                self._open = _open_files()
            self._maps[id(root)] = root, _Map(root) if _is_as_mapped(root, self._open) else None
        return self._maps[id(root)][1]


class _Block:
    """A stretch of memory, one for all arrays over it: pickle keeps one object one."""

    def __init__(self, owner: Array, address: int, nbytes: int) -> None:
        self._owner = owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (nbytes,),
            "data": (address, not owner.flags.writeable),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return memoryview, (pickle.PickleBuffer(np.asarray(self)),)


class _Map:
    """A mapped file, one for all arrays over it."""

    def __init__(self, root: np.memmap[Any, Any]) -> None:
        self.root = root

    def __reduce__(self) -> tuple[Any, ...]:
        # Never "r+" or "w+": workers do not write, and "w+" would empty the file.
        path = os.path.abspath(str(self.root.filename))
        return np.memmap, (path, np.uint8, "r", self.root.offset, (self.root.nbytes,))


def _over_block(
    block: memoryview,
    kind: type[Array],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
) -> Array:
    return np.ndarray.__new__(kind, shape, dtype, block, offset, strides)


def _over_map(
    file: np.memmap[Any, Any],
    kind: type[Array],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
) -> Array:
    array: Array = np.ndarray(shape, dtype, file, offset, strides)
    if kind is not np.ndarray:
        array = array.view(kind)
        array.__array_finalize__(file)  # Gives a memmap its file name, offset and mode.
    return array


def _reduce_masked(array: np.ma.MaskedArray[Any, Any]) -> Any:
    # np.ma copies data and mask into the pickle; here both go the way of arrays.
    fill = array._fill_value  # type: ignore[attr-defined]
    fields = (array.data, array.mask, None, False, True, 0, fill, True, array.hardmask)
    return np.ma.MaskedArray, fields


# --- arrays -----------------------------------------------------------------------------------------


def _is_small(buffer: pickle.PickleBuffer) -> bool:
    return buffer.raw().nbytes < SHARED_FROM


def _pickles_as_array(kind: type[Array]) -> bool:
    """Tell whether pickling sees only the array in a *kind*: no pickling hooks of its own."""
    hooks = ("__reduce__", "__reduce_ex__", "__setstate__")
    return kind is np.ndarray or (
        all(getattr(kind, hook) is getattr(np.ndarray, hook) for hook in hooks) and kind not in copyreg.dispatch_table
    )


def _address(array: Array) -> int:
    address: int = np.ndarray.view(array, np.ndarray).__array_interface__["data"][0]
    return address


def _lead(array: Array) -> int:
    """Return how many bytes of the array's memory lie before its element [0, 0, …]."""
    return -sum(min(0, (n - 1) * step) for n, step in zip(array.shape, array.strides, strict=True))


def _extent(array: Array) -> tuple[int, int]:
    """Return the lowest address of the elements of a non-empty array, and how many bytes they span."""
    span = sum((n - 1) * abs(step) for n, step in zip(array.shape, array.strides, strict=True))
    return _address(array) - _lead(array), span + array.itemsize


_STRIDED: type = type(as_strided(np.zeros(1)).base)
"""What NumPy's as_strided and sliding_window_view put between a view and its base."""


def _memmap_of(array: Array) -> np.memmap[Any, Any] | None:
    """Return the memmap that maps the memory of *array*, if there is one: only its `offset` is right, not a slice's."""
    owner: Any = array
    root: Any = None
    while not isinstance(owner, mmap.mmap):
        if issubclass(type(owner), np.ndarray):
            root, owner = owner, owner.base
        elif type(owner) is memoryview:
            owner = owner.obj
        elif type(owner) is _STRIDED:
            owner = owner.base
        else:
            return None
    return root if isinstance(root, np.memmap) else None


def _is_as_mapped(root: np.memmap[Any, Any], open_files: set[tuple[int, int]]) -> bool:
    """Tell whether the file's name still leads to what was mapped, and the mapping to what is in the file."""
    mapping: Any = root.base
    nbytes = mapping.size()
    if nbytes < root.offset + root.nbytes:
        # Reading on would end this process with SIGBUS.
        raise ValueError(f"the file {root.filename} has shrunk to {nbytes} bytes since it was mapped")
    # With "c" the array's changes are private to this process.
    if root.filename is None or root.mode not in ("r", "r+", "w+"):
        return False
    try:
        found = os.stat(root.filename)
    except OSError:
        return False
    # A mapping holds a descriptor of its file: if the name leads to none that is open, the file was replaced.
    return found.st_size == nbytes and (not open_files or (found.st_dev, found.st_ino) in open_files)


def _open_files() -> set[tuple[int, int]]:
    """Return device and inode of every open descriptor; empty where the system does not list them."""
    found = set()
    try:
        names = os.listdir("/dev/fd")  # noqa: PTH208
    except OSError:
        return set()
    for name in names:
        try:
            status = os.fstat(int(name))
        except OSError:  # The descriptor of the listing itself.
            continue
        found.add((status.st_dev, status.st_ino))
    return found


# --- modules that a fresh process cannot import -----------------------------------------------------

_registry_lock = threading.RLock()
_lost: weakref.WeakKeyDictionary[types.ModuleType, bool] = weakref.WeakKeyDictionary()


def _lost_module(value: Any) -> types.ModuleType | None:
    """Return the module of a class or function, or a module itself, if importing its name elsewhere fails.

    cloudpickle sends by name what is in `sys.modules`, such as modules made by hand or loaded from a path.
    """
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    module = sys.modules.get(name) if isinstance(name, str) else None
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

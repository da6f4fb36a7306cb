"""How arrays travel: large ones as stretches of memory, arrays over an `np.memmap` as file name and position.

`Reducer` tells pickle what to make of an array; the functions at the end put it together again. Shape, dtype, strides
and memory order come back as they were. Views of the same memory or the same file still share it afterwards.
"""

from __future__ import annotations

import contextlib
import copyreg
import importlib
import mmap
import os
import pickle
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

# NumPy 2 says that recarray lives there, but loads it late; until then cloudpickle takes recarray for a made-up class.
with contextlib.suppress(ImportError):
    importlib.import_module("numpy.rec")

SHARED_FROM = 1 << 20
"""Bytes from which an array goes out of band: below, a segment of its own costs more than copying the bytes."""
_BY_ELEMENT = 0x01 | 0x02
"""Flags of dtypes whose elements are references (NPY_ITEM_REFCOUNT, NPY_LIST_PICKLE): bytes mean nothing elsewhere."""
_STRIDED: Any = type(as_strided(np.zeros(1)).base)
"""What NumPy's as_strided and sliding_window_view put between a view and its base."""

Array = NDArray[Any]
Memmap = np.memmap[Any, Any]


class Reducer:
    """Reduces the arrays of one pickle."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._maps: dict[int, tuple[Array, _Map | None]] = {}
        self._open: frozenset[tuple[int, int]] | None = None

    def reduce(self, value: Array) -> Any:
        """Return what `__reduce__` would, or NotImplemented for the usual way.

        Raises:
            ValueError: The file behind a memmap has become shorter than the memmap.
        """
        kind: type[Array] = type(value)
        if kind is np.ma.MaskedArray:
            return _reduce_masked(value) if np.ndarray.view(value, np.ndarray).nbytes >= SHARED_FROM else NotImplemented
        if not _pickles_as_array(kind) or value.dtype.flags & _BY_ELEMENT:
            return NotImplemented
        array = np.ndarray.view(value, np.ndarray)  # Subclasses may redefine what is used below.
        mapped = self._reduce_mapped(array, kind)
        if mapped is not None:
            return mapped
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
        return over_block, (block, kind, array.dtype, array.shape, array.strides, _lead(array))

    def _reduce_mapped(self, array: Array, kind: type[Array]) -> Any:
        root = memmap_of(array)
        if root is None or array.size == 0:
            return None
        if id(root) not in self._maps:
            if self._open is None:
                self._open = _open_files()
            self._maps[id(root)] = root, _Map(root) if _is_as_mapped(root, self._open) else None
        file = self._maps[id(root)][1]
        low, nbytes = _extent(array)
        low -= _address(root)
        if file is None or low < 0 or low + nbytes > root.nbytes:
            return None
        return over_map, (file, kind, array.dtype, array.shape, array.strides, low + _lead(array))


class _Block:
    """A stretch of memory, one for all arrays over it: what is one object to pickle stays one."""

    def __init__(self, owner: Array, address: int, nbytes: int) -> None:
        self._owner = owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (nbytes,),
            # Read-only in the workers in any case; what it is here must not look like a change.
            "data": (address, True),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return memoryview, (pickle.PickleBuffer(np.asarray(self).data),)


class _Map:
    """A mapped file, one for all arrays over it."""

    def __init__(self, root: Memmap) -> None:
        self._root = root

    def __reduce__(self) -> tuple[Any, ...]:
        # Never "r+" or "w+": workers do not write, and "w+" would empty the file.
        path = os.path.abspath(os.fspath(self._root.filename or ""))
        return np.memmap, (path, np.uint8, "r", self._root.offset, (self._root.nbytes,))


def _reduce_masked(array: Any) -> tuple[Any, ...]:
    # By itself np.ma copies data and mask into the pickle.
    return np.ma.MaskedArray, (
        *(array.data, array.mask, None, False, True, 0),
        *(array._fill_value, True, array.hardmask),
    )


def _pickles_as_array(kind: type[Array]) -> bool:
    """Tell whether pickling sees only the array in a *kind*: no pickling hooks of its own."""
    hooks = ("__reduce__", "__reduce_ex__", "__setstate__")
    return kind is np.ndarray or (
        all(getattr(kind, hook) is getattr(np.ndarray, hook) for hook in hooks) and kind not in copyreg.dispatch_table
    )


# --- where an array lies ----------------------------------------------------------------------------


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _lead(array: Array) -> int:
    """Return how many bytes of the array's memory lie before its element [0, 0, …]."""
    lead: int = -sum(min(0, (n - 1) * step) for n, step in zip(array.shape, array.strides, strict=True))
    return lead


def _extent(array: Array) -> tuple[int, int]:
    """Return the lowest address of the elements of a non-empty array, and how many bytes they span."""
    span = sum((n - 1) * abs(step) for n, step in zip(array.shape, array.strides, strict=True))
    return _address(array) - _lead(array), span + array.itemsize


# --- memory-mapped files ----------------------------------------------------------------------------


def memmap_of(array: Array) -> Memmap | None:
    """Return the memmap that made the mapping of *array*, if any: its `offset` is right, that of a slice is not."""
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


def _is_as_mapped(root: Memmap, open_files: frozenset[tuple[int, int]]) -> bool:
    """Tell whether the file's name still leads to what was mapped, and whether the array shows what is in it."""
    mapping: Any = root.base
    nbytes: int = mapping.size()
    if nbytes < root.offset + root.nbytes:
        # Reading it would end this process with SIGBUS.
        raise ValueError(f"the file {root.filename} has shrunk to {nbytes} bytes since it was mapped")
    # With "c" changes of the array are private to this process.
    if root.filename is None or root.mode not in ("r", "r+", "w+"):
        return False
    try:
        found = os.stat(root.filename)
    except OSError:
        return False
    # A mapping holds a descriptor of its file: if the name leads to none that is open, the file was replaced.
    return found.st_size == nbytes and (not open_files or (found.st_dev, found.st_ino) in open_files)


def _open_files() -> frozenset[tuple[int, int]]:
    """Return device and inode of every open descriptor; nothing where the system does not list them."""
    found = set()
    try:
        names = os.listdir("/dev/fd")  # noqa: PTH208
    except OSError:
        return frozenset()
    for name in names:
        try:
            status = os.fstat(int(name))
        except OSError:  # Closed since, as the descriptor of the listing itself.
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)


# --- in the worker ----------------------------------------------------------------------------------


def over_block(
    block: memoryview,
    kind: type[Array],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
) -> Array:
    """Return an array over *block*; read-only if the block is."""
    array: Array = np.ndarray.__new__(kind, shape, dtype, block, offset, strides)
    return array


def over_map(
    file: Memmap,
    kind: type[Array],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
) -> Array:
    """Return a read-only array over a mapped file."""
    array: Array = np.ndarray(shape, dtype, file, offset, strides)
    if kind is not np.ndarray:
        array = array.view(kind)
        array.__array_finalize__(file)  # Gives a memmap its file name, offset and mode.
    return array

"""What a BatchedSequence reads: a tree of columns of equal length, one row of each for every sample.

A tuple or a dict is a tree; all else is one column. Columns of arrays and of HDF5 datasets know dtype and shape of
their rows, so that a batch is one read into memory that is there already. What is read is read-only for the user's
code, in workers and without them, because a row is a view of the source wherever it can be.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
import optree
from numpy.typing import NDArray

from keras_mpseq.arrays import memmap_of
from keras_mpseq.codec import is_numeric
from keras_mpseq.errors import cut, named
from keras_mpseq.hdf5 import Files, H5Column, dataset_of
from keras_mpseq.texts import TextColumn, text_column

Array = NDArray[Any]
Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]
_IN_MEMORY = ("tensorflow", "torch", "jax", "jaxlib", "keras", "pandas", "ml_dtypes")
"""Packages whose arrays are in memory; others with `__array__` may read a file row by row, and are left to do so."""


class Column(Protocol):
    """The same thing of every sample."""

    def __len__(self) -> int: ...

    @property
    def row_spec(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and dtype of every row; None where they are not known."""

    def row(self, number: int, files: Files) -> Any:
        """Return one row."""

    def take(self, numbers: Array, empty: Empty, files: Files) -> Array:
        """Return the rows *numbers* as one array, made by *empty*. Only where `row_spec` is known."""

    def release(self) -> None:
        """Give back memory that reading took, of this process alone."""


class ArrayColumn:
    """The rows of an array; of a memmap too."""

    def __init__(self, array: Array) -> None:
        self.array: Array = np.ndarray.view(array, np.ndarray)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def row_spec(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """See Column."""
        return self.array.shape[1:], self.array.dtype.newbyteorder("=")

    def row(self, number: int, files: Files) -> Any:
        """See Column."""
        del files
        row = self.array[number]
        if isinstance(row, np.ndarray):
            row.flags.writeable = False
        return row

    def take(self, numbers: Array, empty: Empty, files: Files) -> Array:
        """See Column."""
        del files
        array = self.array
        out = empty((len(numbers), *array.shape[1:]), array.dtype.newbyteorder("="))
        first = int(numbers[0])
        if int(numbers[-1]) - first == len(numbers) - 1 and (np.diff(numbers) == 1).all():
            out[...] = array[first : first + len(numbers)]
        elif array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative:
            # With mode="raise", the default, NumPy builds the rows elsewhere and copies them.
            np.take(array, numbers, axis=0, out=out, mode="clip")
        else:  # np.take would copy the whole array into order first.
            out[...] = array[numbers]
        return out

    def release(self) -> None:
        """See Column. The pages of a mapped file that only this process looked at count as its own."""
        root: Any = memmap_of(self.array)
        if root is not None and root.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
            root._mmap.madvise(mmap.MADV_DONTNEED)


class RaggedColumn:
    """Arrays of one dtype and rank, of different size: all values in one array, which workers share."""

    def __init__(self, arrays: list[Array]) -> None:
        self._shapes = np.array([array.shape for array in arrays], np.int64).reshape(len(arrays), arrays[0].ndim)
        self._ends = np.cumsum([array.size for array in arrays], dtype=np.int64)
        self._values = np.concatenate([array.reshape(-1) for array in arrays])
        self._values.flags.writeable = False

    def __len__(self) -> int:
        return len(self._ends)

    row_spec = None

    def row(self, number: int, files: Files) -> Any:
        """See Column."""
        del files
        shape = tuple(self._shapes[number].tolist())
        end = int(self._ends[number])
        return self._values[end - prod(shape) : end].reshape(shape)

    def take(self, numbers: Array, empty: Empty, files: Files) -> Array:
        """See Column."""
        raise NotImplementedError

    def release(self) -> None:
        """See Column."""


class SampleColumn:
    """Any object with `__len__` and `__getitem__`."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    row_spec = None

    def row(self, number: int, files: Files) -> Any:
        """See Column."""
        del files
        return self.samples[number]

    def take(self, numbers: Array, empty: Empty, files: Files) -> Array:
        """See Column."""
        raise NotImplementedError

    def release(self) -> None:
        """See Column."""


class RowSpec(NamedTuple):
    """What a batch of a column looks like, as `element_spec` takes it."""

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class Source:
    """All columns.

    Args:
        source: As in `BatchedSequence`.
        check_files: Refuse paths that do not exist.

    Raises:
        TypeError: It is nothing that samples can be had from.
        ValueError: It is empty, its parts are of unequal length, or a file or dataset is not there.
        ImportError: It is an HDF5 dataset, and h5py is not installed.
    """

    def __init__(self, source: Any, *, check_files: bool) -> None:
        parts: list[Any]
        self.tree: optree.PyTreeSpec
        parts, self.tree = optree.tree_flatten(_as_tree(source), is_leaf=_is_column)
        names = ["source" + "".join(f"[{entry!r}]" for entry in path) for path in self.tree.paths()]
        if not parts:
            raise ValueError(f"source holds no array, got {shown(source)}.")
        self.columns: list[Column] = [
            _column(part, name, check_files, alone=len(parts) == 1 and name == "source")
            for part, name in zip(parts, names, strict=True)
        ]
        counts = [len(column) for column in self.columns]
        for name, count in zip(names, counts, strict=True):
            if count != counts[0]:
                raise ValueError(
                    f"All parts of source must be of equal length, got {counts[0]} for {names[0]} and {count} for "
                    f"{name}."
                )
        if not counts[0]:
            raise ValueError(f"source must hold at least one sample, got {shown(source)}.")
        self.count: int = counts[0]
        self.is_pair: bool = type(source) is tuple and len(source) == 2
        """(x, y), to which a weight can be added."""

    @property
    def in_files(self) -> bool:
        """Reading it can fail."""
        return any(isinstance(column, H5Column) for column in self.columns)

    @property
    def specs(self) -> list[tuple[tuple[int, ...], np.dtype[Any]]] | None:
        """Shape and dtype of the rows of each column; None unless all are known."""
        found = [column.row_spec for column in self.columns]
        known = [spec for spec in found if spec is not None]
        return known if len(known) == len(found) else None

    def sample(self, number: int, files: Files) -> Any:
        """Return one sample, structured as the source is."""
        return self.tree.unflatten([column.row(number, files) for column in self.columns])

    def take(self, numbers: Array, empty: Empty, files: Files) -> Any:
        """Return the samples *numbers* as one batch."""
        return self.tree.unflatten([column.take(numbers, empty, files) for column in self.columns])

    def name(self, number: int) -> str:
        """Return how a sentence names a sample: by its path, if it has one."""
        for column in self.columns:
            if isinstance(column, TextColumn) and column.of_files:
                return f"sample {number} ({str(column[number])!r})"
        return f"sample {number}"

    def lengths(self) -> Array:
        """Return the length of the first part of every sample.

        Raises:
            ValueError: It has none that means anything.
        """
        first = self.columns[0]
        if isinstance(first, TextColumn) and first.of_files:
            raise ValueError(
                'bucket_by_length="auto" takes the length of what the source holds, and these are paths: pass a '
                "function of the sample, such as os.path.getsize, or an array of lengths."
            )
        with Files() as files:
            return np.array([_length(first.row(number, files), number) for number in range(self.count)], np.int64)

    def release(self) -> None:
        """Give back memory that reading took, of this process alone."""
        for column in self.columns:
            column.release()


def shown(value: object) -> str:
    """Return type and text of a value, the text cut short."""
    return f"{type(value).__name__} {cut(' '.join(repr(value).split()))}"


def _is_column(node: object) -> bool:
    return not isinstance(node, (tuple, dict))


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _as_tree(source: Any) -> Any:
    """Return a DataFrame as a dict of its columns, which workers read without pandas; all else as it is."""
    if _package(source) != "pandas" or not hasattr(source, "columns"):
        return source
    if not source.columns.is_unique:
        raise ValueError(f"The columns of source must have different names, got {list(source.columns)}.")
    return {name: source[name] for name in source.columns}


def _length(row: Any, number: int) -> int:
    try:
        return len(row)
    except TypeError:
        raise ValueError(
            f'bucket_by_length="auto" takes the length of the first part of a sample, and that of sample {number} is '
            f"{shown(row)}: pass a function of the sample, or an array of lengths."
        ) from None


def _column(part: Any, name: str, check_files: bool, *, alone: bool) -> Column:
    """Return the column that *part* is."""
    if isinstance(part, (str, os.PathLike)):
        return H5Column(os.fspath(part), name)
    if _package(part) == "h5py":
        raise TypeError(
            f"{name} is an open HDF5 object, which belongs to this process: pass where it lies, as in "
            f"{dataset_of(part)!r}."
        )
    if isinstance(part, (list, np.ndarray)) or _package(part) in _IN_MEMORY:
        found = _in_memory(part, name, check_files)
        if found is not None:
            return found
    if not hasattr(part, "__getitem__") or not hasattr(part, "__len__") or isinstance(part, (bytes, Mapping)):
        also = ", a tuple or dict of arrays" if alone else ""
        raise TypeError(
            f'{name} must be an array{also}, a list of paths, "FILE.h5:/DATASET", or any object with __len__ and '
            f"__getitem__ that gives samples, got {shown(part)}."
        )
    try:
        len(part)
    except Exception as error:  # The user's __len__ raises what it likes.
        raise TypeError(f"{name} does not say how many samples it has: len() raised {named(error)}.") from error
    return SampleColumn(part)


def _in_memory(part: Any, name: str, check_files: bool) -> Column | None:
    """Return the column of an array or a list; None where it is left as it is."""
    if isinstance(part, list):
        texts = text_column(part, name, check_files)
        if texts is not None:
            return texts
        kinds = {(type(item), getattr(item, "dtype", None), getattr(item, "ndim", 0)) for item in part}
        if len(kinds) != 1:
            return _numbers(part)
        ((kind, dtype, rank),) = kinds
        if kind is np.ndarray and rank and dtype is not None and is_numeric(dtype):
            same = len({item.shape for item in part}) == 1
            return ArrayColumn(np.stack(part)) if same else RaggedColumn(part)
        return _numbers(part)
    if not isinstance(part, np.ndarray) and not hasattr(part, "__array__"):
        return None
    if isinstance(part, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost: pass data and mask as two arrays.")
    array = np.asarray(part)
    if not array.ndim:
        raise TypeError(f"{name} must have one row for each sample, got the single value {array!r}.")
    if array.dtype.kind in "OT":
        items = array.tolist() if array.ndim == 1 else list(array)
        return text_column(items, name, check_files=False, always=True) or SampleColumn(items)
    return ArrayColumn(array)


def _numbers(part: list[Any]) -> Column | None:
    """Return the column of a list of plain numbers; None for any other list."""
    plain = all(isinstance(item, (bool, int, float, complex, np.number, np.bool_)) for item in part)
    array = np.asarray(part) if plain and part else None
    return ArrayColumn(array) if array is not None and is_numeric(array.dtype) else None

"""Datasets of HDF5 files as columns: known by name, and opened by each process for itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_mpseq.errors import named

_LISTED = 10
"""Datasets named in an error."""


class Files:
    """The open files of one process. Owns them."""

    def __init__(self) -> None:
        self._files = contextlib.ExitStack()
        self._open: dict[str, Any] = {}
        self._datasets: dict[tuple[str, str], Any] = {}

    def dataset(self, file: str, name: str) -> Any:
        """Return a dataset, of a file that is opened now if it is not open."""
        found = self._datasets.get((file, name))
        if found is None:
            if file not in self._open:
                import h5py

                self._open[file] = self._files.enter_context(h5py.File(file, "r"))
            found = self._open[file][name]
            if _is_text(found):
                found = found.asstr()
            self._datasets[file, name] = found
        return found

    def close(self) -> None:
        """Close all of them."""
        self._datasets.clear()
        self._open.clear()
        self._files.close()

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class H5Column:
    """The rows of a dataset.

    Args:
        text: "FILE:/DATASET".
        name: Of what it is, for errors.

    Raises:
        ValueError: *text* has another form, or there is no such dataset.
        FileNotFoundError: There is no such file.
        ImportError: h5py is not installed.
    """

    def __init__(self, text: str, name: str) -> None:
        file, _, self._name = text.rpartition(":")
        if len(file) < 2 or not self._name:  # One letter is a drive of Windows.
            raise ValueError(
                f"{name} is the single path {text!r}: pass a list of paths, or name an HDF5 dataset as "
                f'"FILE.h5:/DATASET"'
                f"{_listing(text)}."
            )
        self._file = os.path.abspath(file)
        with _opened(self._file, text, name) as opened:
            found = opened.get(self._name)
            if not hasattr(found, "shape"):
                raise ValueError(f"{name} names no dataset of the file, got {text!r}{_listing(self._file)}.")
            if not found.shape:
                raise ValueError(f"{name} must have one row for each sample, got the single value {text!r}.")
            self._count = int(found.shape[0])
            plain = found.dtype.kind != "O"
            self._spec = (tuple(found.shape[1:]), found.dtype.newbyteorder("=")) if plain else None

    def __len__(self) -> int:
        return self._count

    @property
    def row_spec(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """See Column."""
        return self._spec

    def row(self, number: int, files: Files) -> Any:
        """See Column."""
        return files.dataset(self._file, self._name)[number]

    def take(self, numbers: NDArray[Any], empty: Callable[..., NDArray[Any]], files: Files) -> NDArray[Any]:
        """See Column. One read for each run of rows: h5py's own selection of single rows is slower."""
        assert self._spec is not None
        shape, dtype = self._spec
        out = empty((len(numbers), *shape), dtype)
        dataset = files.dataset(self._file, self._name)
        if out.size:
            for first, end, at in runs(numbers):
                dataset.read_direct(out, np.s_[first:end], np.s_[at : at + end - first])
        return out

    def release(self) -> None:
        """See Column."""


def runs(numbers: NDArray[Any]) -> Iterator[tuple[int, int, int]]:
    """Yield (first, end, position) of each run of consecutive *numbers*."""
    starts = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
        first = int(numbers[start])
        yield first, first + stop - start, start


def dataset_of(opened: Any) -> str:
    """Return how an open file, group or dataset is named as a source."""
    with contextlib.suppress(Exception):  # It may be closed.
        return f"{opened.file.filename}:{opened.name if hasattr(opened, 'shape') else '/DATASET'}"
    return "FILE.h5:/DATASET"


def _is_text(dataset: Any) -> bool:
    import h5py

    return dataset.dtype.kind == "O" and h5py.check_string_dtype(dataset.dtype) is not None


@contextlib.contextmanager
def _opened(file: str, text: str, name: str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{name} is the HDF5 dataset {text!r}, which needs h5py: pip install h5py.") from None
    if not os.path.exists(file):
        raise FileNotFoundError(f"{name} is in a file that does not exist: {file!r}, got {text!r}.")
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise ValueError(f"{name} is in a file that h5py cannot open ({named(error)}), got {text!r}.") from error
    with opened:
        yield opened


def _listing(file: str) -> str:
    """Return how an error ends: with the datasets of *file*, if it is an HDF5 file."""
    found: list[str] = []
    try:
        import h5py

        with h5py.File(file, "r") as opened:
            opened.visititems(lambda name, item: found.append(f"/{name}") if hasattr(item, "shape") else None)
    except (ImportError, OSError):
        return ""
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"; it has {', '.join(found[:_LISTED])}{more}" if found else "; it has no dataset"

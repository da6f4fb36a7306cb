"""Strings, bytes and paths as two arrays, which workers share as they share any array.

A list of a million paths would otherwise be a million objects in every worker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOOKED_AT = 1000
"""Of more files than that, so many are looked for: a network's file system answers some hundred times a second."""
_FILE = re.compile(r"(?!\w+://)(?:[/~].*|[A-Za-z]:\\.*|.*\.[A-Za-z]\w{0,7})")
"""The form of a path: absolute, or with a suffix; no URL, and of one line."""


class TextColumn:
    """Texts of one kind.

    Args:
        items: All str, all bytes, or paths.
        kind: "str", "bytes" or "path": what a row is.
        of_files: They are names of files.
    """

    def __init__(self, items: Sequence[Any], kind: str, of_files: bool) -> None:
        encoded = [
            item if isinstance(item, bytes) else os.fspath(item).encode("utf-8", "surrogatepass") for item in items
        ]
        self._kind = kind
        self._ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        self._blob = np.frombuffer(b"".join(encoded), np.uint8)
        self.of_files = of_files

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> Any:
        start = self._ends.item(number - 1) if number else 0
        data = self._blob[start : self._ends.item(number)].tobytes()
        if self._kind == "bytes":
            return data
        text = data.decode("utf-8", "surrogatepass")
        return text if self._kind == "str" else Path(text)

    @property
    def row_spec(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """See Column."""
        return (), np.dtype(object)

    def row(self, number: int, files: Any) -> Any:
        """See Column."""
        del files
        return self[number]

    def take(self, numbers: NDArray[Any], empty: Any, files: Any) -> NDArray[Any]:
        """See Column. An array of objects; paths as str."""
        del empty, files
        rows = np.empty(len(numbers), object)
        for at, number in enumerate(numbers.tolist()):
            row = self[number]
            rows[at] = row if isinstance(row, bytes) else str(row)
        return rows

    def release(self) -> None:
        """See Column."""


def text_column(items: Sequence[Any], name: str, check_files: bool, always: bool = False) -> TextColumn | None:
    """Return the column of a list of strings, bytes or paths; None if they are anything else.

    Args:
        items: The list.
        name: Of it, for errors.
        check_files: Refuse paths of which the file does not exist.
        always: Strings are no paths unless a file of that name exists.

    Raises:
        FileNotFoundError: A file does not exist.
    """
    if not items:
        return None
    if all(isinstance(item, bytes) for item in items):
        return TextColumn(items, "bytes", of_files=False)
    if all(isinstance(item, str) for item in items):
        of_files = _are_files(items)
        if of_files and check_files and not always:
            _check_files(items, name)
        return TextColumn(items, "str", of_files)
    if all(isinstance(item, (str, os.PathLike)) and isinstance(os.fspath(item), str) for item in items):
        if check_files:
            _check_files(items, name)
        return TextColumn(items, "path", of_files=True)
    return None


def _are_files(items: Sequence[str]) -> bool:
    """Tell whether these are names of files: the first is there, or all have the form of one."""
    return os.path.exists(items[0]) or all(map(_FILE.fullmatch, items))


def _check_files(items: Sequence[Any], name: str) -> None:
    step = -(-len(items) // _LOOKED_AT)
    looked_at = range(0, len(items), step)
    missing = [number for number in looked_at if not os.path.exists(items[number])]
    if missing:
        looked = f"the {len(looked_at)} that were looked for" if step > 1 else f"{len(items)}"
        raise FileNotFoundError(
            f"{name} has paths that do not exist ({len(missing)} of {looked}), the first is "
            f"{os.fspath(items[missing[0]])!r} (sample "
            f'{missing[0]}): correct them, pass on_error="skip", or pass np.array(names) for what are no files.'
        )

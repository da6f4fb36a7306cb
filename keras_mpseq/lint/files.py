"""Which files are looked at, and their text; a file that cannot be read becomes a finding, not an error."""

from __future__ import annotations

import ast
import io
import os
import tokenize
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", ".venv", ".git", ".tox"})
"""Folders that hold no source of the user; those given by name are searched all the same."""


class UnreadableError(Exception):
    """A file has no syntax tree. The message is that of the finding."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message: str = message
        self.line: int = line
        self.column: int = column


@dataclass(eq=False, slots=True)
class Source:
    """A file, not parsed yet."""

    path: str
    name: str
    """Of the module, from the root of its package."""
    is_package: bool
    text: str


def discover(paths: Sequence[str | Path], exclude: Collection[str] = ()) -> list[str]:
    """Return the Python files that *paths* name, files as given, folders in order, each once.

    Args:
        paths: Files and folders.
        exclude: Patterns of paths, or of names of folders and files, that are passed over.
    """
    found: dict[str, None] = {}
    for path in map(str, paths):
        if Path(path).is_dir():
            found.update(dict.fromkeys(_inside(path, exclude)))
        elif not _excluded(path, exclude):
            found[path] = None
    return list(found)


def _inside(folder: str, exclude: Collection[str]) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED and not name.startswith(".") and not _excluded(os.path.join(parent, name), exclude)
        )
        for name in sorted(files):
            path = os.path.join(parent, name)
            if name.endswith((".py", ".pyw")) and not _excluded(path, exclude) and not _is_pipe(path):
                yield path


def _is_pipe(path: str) -> bool:
    """Tell whether reading the file would wait for somebody who writes, or never end."""
    return Path(path).exists() and not Path(path).is_file()


def _excluded(path: str, exclude: Collection[str]) -> bool:
    name = path.rpartition(os.sep)[2]
    plain = path.replace(os.sep, "/")
    return any(
        fnmatch(name, pattern) or fnmatch(plain, pattern) or fnmatch(plain, f"*/{pattern}") for pattern in exclude
    )


def read(path: str) -> str:
    """Return the text of a file in the encoding that it declares.

    Raises:
        UnreadableError: There is no such file, or its bytes are not of that encoding.
    """
    try:
        data = Path(path).read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise UnreadableError(f"the file cannot be read: {error.strerror or error}") from error
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise UnreadableError(f"the file is not text in the encoding it declares: {error}") from error


def parse(source: Source) -> ast.Module:
    """Return the syntax tree of a source.

    Raises:
        UnreadableError: It is no Python, or nested too deeply for the parser.
    """
    try:
        with warnings.catch_warnings():
            # Invalid escapes and the like are the business of other linters.
            warnings.simplefilter("ignore")
            return ast.parse(source.text, source.path)
    except SyntaxError as error:
        line, column = error.lineno or 1, max(error.offset or 1, 1)
        raise UnreadableError(f"the file does not parse: {error.msg}", max(line, 1), column) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"the file does not parse: {error or type(error).__name__}") from error


def module_name(path: str, packages: dict[str, bool]) -> tuple[str, bool]:
    """Return the module's name from the root of its package, and whether it is a package itself.

    Args:
        path: Of the file.
        packages: Folders already looked at, and whether they hold an `__init__.py`.
    """
    folder, name = os.path.split(os.path.abspath(path))
    stem = name.rpartition(".")[0]
    parts = [] if stem == "__init__" else [stem]
    while True:
        if folder not in packages:
            packages[folder] = Path(folder, "__init__.py").is_file()
        parent, last = os.path.split(folder)
        if not packages[folder] or not last:
            break
        parts.append(last)
        folder = parent
    return ".".join(reversed(parts)) or stem, stem == "__init__"

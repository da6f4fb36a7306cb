"""`keras-mpseq lint --fix`: change what can be changed safely, and leave every other byte as it is.

The linter's findings say what is wrong, a plan says what becomes of it, and a tree that keeps formatting and comments
is changed accordingly. Findings that are not reported, by a comment, a setting or the baseline, are left alone, and so
is a file that has none.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst

from keras_mpseq.errors import MpseqError
from keras_mpseq.findings import Finding
from keras_mpseq.lint.config import Config
from keras_mpseq.lint.engine import lint_paths
from keras_mpseq.lint.fix_edit import edited
from keras_mpseq.lint.fix_imports import with_import, without_imports
from keras_mpseq.lint.fix_plan import Edits, plan
from keras_mpseq.lint.fix_scene import OURS
from keras_mpseq.lint.select import select
from keras_mpseq.reporting import Sources
from keras_mpseq.rules import RULES


@dataclass(frozen=True, slots=True)
class Fixed:
    """What became of one file.

    Args:
        path: Of the file, as it was given.
        diff_text: The change as a unified diff.
        applied: What was done, a clause each.
        text: Of the file afterwards.
    """

    path: str
    diff_text: str
    applied: tuple[str, ...]
    text: str


def fix_paths(
    paths: Sequence[str | os.PathLike[str]],
    *,
    diff: bool,
    settings: Config | None = None,
    every_base: bool = False,
) -> list[Fixed]:
    """Fix the files of a project; classes and their bases may be in different ones.

    Args:
        paths: Python files.
        diff: Only say what would be changed.
        settings: What is reported, and so fixed; None means every finding.
        every_base: Give our base to every class that has Keras's, also where nothing was found.

    Returns:
        The files that are changed, in the order of *paths*.

    Raises:
        MpseqError: A file cannot be written; those before it are changed.
    """
    files = [os.fspath(path) for path in paths]
    settings = settings or Config(select=frozenset(RULES))
    findings = _reported(files, settings)
    plans = {edits.module.path: edits for edits in plan(files, findings, settings, every_base=every_base)}
    fixed = []
    for path in files:
        data = Path(path).read_bytes() if path in plans else b""
        changed = _changed(data, plans[path]) if data else data
        if changed != data:
            if not diff:
                _write(path, changed)
            told = tuple(_counted(sentence, number) for sentence, number in plans[path].told.items())
            fixed.append(Fixed(path, _diff(path, data, changed), told, cst.parse_module(changed).code))
    return fixed


def _reported(files: list[str], settings: Config) -> list[Finding]:
    linted = lint_paths(files, preview=True, extra_bases=settings.extra_bases, decls=settings.decls)
    return select(linted.findings, files, settings, Sources()).findings


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise MpseqError(f"{path} cannot be written: {error.strerror}", remedy="Make it writable.") from error


def _changed(data: bytes, edits: Edits) -> bytes:
    """Return a file after its changes; as it is if its tree would not give the same bytes back."""
    try:
        before = cst.parse_module(data)
        return _with(before, edits).bytes if before.bytes == data else data
    except (cst.ParserSyntaxError, UnicodeDecodeError, RecursionError):
        return data


def _with(module: cst.Module, edits: Edits) -> cst.Module:
    after = edited(module, edits)
    if edits.bases:
        # The other way round the import of Keras's class could not become that of ours, in its place.
        after = without_imports(after, edits.freed)
        if edits.module.scope.imports.get(edits.safe) != [OURS]:
            after = with_import(after)
    return after


def _counted(sentence: str, number: int) -> str:
    return sentence if number == 1 else f"{sentence} ({number} times)"


def _diff(path: str, before: bytes, after: bytes) -> str:
    old, new = (cst.parse_module(data).code.splitlines(keepends=True) for data in (before, after))
    name = Path(path).as_posix().lstrip("/")
    lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

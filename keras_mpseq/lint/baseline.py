"""A file of findings that are known, so that only new ones are told.

Findings are kept by path, code and a hash of their line: they stay known when lines move, and are new again when the
line changes. The file is JSON with sorted keys, for reading in reviews.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_mpseq.errors import MpseqError
from keras_mpseq.findings import Finding
from keras_mpseq.reporting import Sources, fingerprints

_VERSION = 1
Known = Counter[tuple[str, str, str]]
"""How many findings are known, by path relative to the baseline, code, and hash of the line."""


def write(file: Path, findings: Sequence[Finding], sources: Sources) -> None:
    """Write *findings* to *file* as known.

    Raises:
        MpseqError: The file cannot be written.
    """
    tree: dict[str, dict[str, dict[str, int]]] = {}
    for (path, code, line), number in _keys(file, findings, sources):
        kept = tree.setdefault(path, {}).setdefault(code, {})
        kept[line] = kept.get(line, 0) + number
    text = json.dumps({"version": _VERSION, "findings": tree}, indent=2, sort_keys=True) + "\n"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MpseqError(
            f"The baseline cannot be written to {file}: {error.strerror}", remedy="Name a file that can be written."
        ) from error


def read(file: Path) -> Known:
    """Return what *file* says is known.

    Raises:
        MpseqError: The file cannot be read, or is not a baseline.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']!r}")
        return Counter(_flat(document["findings"]))
    except OSError as error:
        raise MpseqError(
            f"The baseline {file} cannot be read: {error.strerror}", remedy="Write it with --write-baseline."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MpseqError(
            f"{file} is not a baseline of this version: {error}", remedy="Write it anew with --write-baseline."
        ) from error


def unknown(file: Path, known: Known, findings: Sequence[Finding], sources: Sources) -> list[Finding]:
    """Return those *findings* that *known* does not have; of equal ones, as many as there are more."""
    left = known.copy()
    new = []
    for finding, (key, _) in zip(findings, _keys(file, findings, sources), strict=True):
        if left[key] > 0:
            left[key] -= 1
        else:
            new.append(finding)
    return new


def _keys(file: Path, findings: Sequence[Finding], sources: Sources) -> Iterable[tuple[tuple[str, str, str], int]]:
    folder = file.resolve().parent
    for finding, mark in zip(findings, fingerprints(findings, sources), strict=True):
        path = "" if finding.path is None else Path(os.path.relpath(Path(finding.path).resolve(), folder)).as_posix()
        yield (path, finding.code, mark.partition(":")[0]), 1


def _flat(tree: Any) -> dict[tuple[str, str, str], int]:
    return {
        (str(path), str(code), str(line)): int(number)
        for path, codes in tree.items()
        for code, lines in codes.items()
        for line, number in lines.items()
    }

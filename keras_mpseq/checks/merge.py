"""What the linter says of the source of a class, joined with what was seen when it ran."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_mpseq.findings import Finding
from keras_mpseq.lint import lint_paths
from keras_mpseq.state.reach import is_library

_ATTRIBUTE = re.compile(r"\bself\.(\w+)")


def with_source(sequence: Any, seen: Sequence[Finding]) -> list[Finding]:
    """Return *seen* and what the linter finds in the source of the sequence's classes, each thing once.

    What both found in the same line, or of the same attribute, is proved: it keeps the linter's place and gets the
    proof.
    """
    names, files = _classes(sequence)
    static = (
        [
            finding
            for finding in lint_paths(sorted(files)).findings
            if finding.class_name is None or finding.class_name.rpartition(".")[2] in names
        ]
        if files
        else []
    )
    joined: list[Finding] = []
    proved: set[int] = set()
    for finding in static:
        proofs = [one for one in seen if _agree(finding, one)]
        proved |= {id(one) for one in proofs}
        joined.append(
            dataclasses.replace(finding, confidence="proved", severity=proofs[0].severity, proof=proofs[0].proof)
            if proofs
            else finding
        )
    return [*joined, *(one for one in seen if id(one) not in proved)]


def _classes(sequence: Any) -> tuple[set[str], set[str]]:
    """Return names and files of the user's classes that the sequence is made of."""
    names, files = set(), set()
    for cls in type(sequence).__mro__:
        if not is_library(cls):
            names.add(cls.__name__)
            try:
                file = inspect.getsourcefile(cls)
            except (TypeError, OSError):  # Made in a notebook, or without a file.
                continue
            if file is not None and Path(file).is_file():
                files.add(file)
    return names, files


def _agree(static: Finding, seen: Finding) -> bool:
    if static.code != seen.code:
        return False
    return _place(static) == _place(seen) or bool(set(_attributes(static)) & set(_attributes(seen)))


def _place(finding: Finding) -> tuple[str, int | None]:
    return str(Path(finding.path or "").resolve()), finding.line


def _attributes(finding: Finding) -> Iterator[str]:
    yield from _ATTRIBUTE.findall(finding.message)

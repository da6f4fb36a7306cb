"""What a report is made from, and how many of what there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from keras_mpseq.findings import SEVERITIES, Finding
from keras_mpseq.reporting.sources import Sources


class NotFollowed(Protocol):
    """A call that the linter could not look into."""

    @property
    def path(self) -> str:
        """File, as in findings."""

    @property
    def line(self) -> int:
        """From 1."""

    @property
    def call(self) -> str:
        """The callee as written, such as `self.transform`."""

    @property
    def class_name(self) -> str | None:
        """The sequence class whose batches need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that a report may say.

    Args:
        findings: In the order in which they are told.
        files: That were read.
        classes: Sequence classes that were looked at.
        not_followed: Calls that the linter could not look into.
        unverified: Parts of batches that `check` could not compare, as sentences without their full stop.
        sources: Where excerpts come from.
        root: Directory that relative paths are relative to.
        show_not_followed: List the calls, not only their number.
    """

    findings: Sequence[Finding]
    files: int = 0
    classes: int = 0
    not_followed: Sequence[NotFollowed] = ()
    unverified: Sequence[str] = ()
    sources: Sources = field(default_factory=Sources)
    root: Path = field(default_factory=Path.cwd)
    show_not_followed: bool = False

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each severity, from the worst."""
        counted = Counter(finding.severity for finding in self.findings)
        return {severity: counted[severity] for severity in SEVERITIES}

    def relative(self, path: str) -> str | None:
        """Return *path* relative to the root, with slashes; None if it lies elsewhere."""
        relative = os.path.relpath(os.path.join(self.root, path), self.root)
        parts = Path(relative).parts
        return None if ".." in parts else Path(relative).as_posix()


def counted(number: int, what: str) -> str:
    """Return number and noun: 1 error, 2 errors, 2 classes."""
    if number == 1:
        return f"1 {what}"
    return f"{number:,} {what}{'es' if what.endswith('s') else 's'}"


def by_place(finding: Finding) -> tuple[str, int, int, str, str]:
    """Sort key: by place, where nobody knows the place last."""
    return (finding.path or "\U0010ffff", finding.line or 0, finding.column or 0, finding.code, finding.message)

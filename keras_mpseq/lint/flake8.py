"""The linter as a plugin of flake8, which it finds by its entry point.

flake8 hands over one file at a time, so that classes whose base is in another file of the project are not seen as
sequences; `keras-mpseq lint` sees the whole project. flake8 knows no severities and fails on every finding: notes are
therefore off until they are selected (`--extend-select SEQ405`), and rules on trial are not looked for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from keras_mpseq import __version__
from keras_mpseq.lint import suppressions
from keras_mpseq.lint.engine import lint_source
from keras_mpseq.rules import RULES

_NO_FILE = ("stdin", "-", "(none)")
"""What flake8 says for text that comes through a pipe."""


class Options(Protocol):
    """What is needed of flake8's manager of options."""

    def extend_default_ignore(self, error_codes: Sequence[str]) -> None:
        """Turn codes off that are not selected."""


class Plugin:
    """What flake8 makes for each file, by the names of the parameters.

    Args:
        tree: Of the file; only says to flake8 that files that do not parse are not for this plugin.
        filename: Of the file.
        lines: Of the file, with their ends.
    """

    name = "keras-mpseq"
    version: str = __version__

    def __init__(self, tree: ast.AST, filename: str, lines: Sequence[str]) -> None:
        self._tree = tree
        self._path = "source.py" if filename in _NO_FILE else filename
        self._source = "".join(lines)

    @classmethod
    def add_options(cls, manager: Options) -> None:
        """Turn the rules off whose findings are only notes."""
        manager.extend_default_ignore([code for code, rule in RULES.items() if rule.severity == "info"])

    def run(self) -> Iterator[tuple[int, int, str, type[Any]]]:
        """Yield line, column from 0, text and this class for each finding that no comment suppresses."""
        comments = suppressions.read(self._path, self._source)
        for finding in (*lint_source(self._source, self._path).findings, *comments.wrong):
            rule = RULES[finding.code]
            # A rule that is on reports what is only a note here as well: flake8 could not tell them apart.
            note = finding.severity == "info" != rule.severity
            if rule.stable and not note and not comments.cover(finding):
                text = f"{finding.code} {finding.name}: {finding.message}"
                yield finding.line or 1, (finding.column or 1) - 1, text, type(self)

"""Comments that say which findings are known, and why: `# seq: ignore[SEQ205] scratch, written before it is read`.

A comment covers the statement that it stands on, or the next one if it has a line of its own. On the line of a `def`
or `class` it covers the whole body; `# seq: ignore-file[...]` covers the file. `# noqa: SEQ205` counts as well, for
the line; `mpseq:` says the same as `seq:`. Comments are found by tokens, so that strings that look like one are none.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from keras_mpseq.findings import Finding
from keras_mpseq.lint.codes import nearest
from keras_mpseq.rules import RULES

_OURS = re.compile(r"#\s*(?:mp)?seq:\s*(?P<rest>.*)", re.IGNORECASE)
_FORM = re.compile(r"(?P<kind>ignore|ignore-file)\s*\[(?P<codes>[^\]]*)\](?P<reason>.*)")
_NOQA = re.compile(r"#\s*noqa\s*:\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)", re.IGNORECASE)
_UNUSED, _UNKNOWN = "SEQ001", "SEQ002"
_LAST_LINE = 10**9


@dataclass(slots=True)
class Suppression:
    """One comment.

    Args:
        line: Where it stands, from 1.
        column: From 1.
        end_column: The first column behind it.
        codes: That it names and that exist.
        first: First line that it covers.
        last: Last line that it covers.
        ours: It is not a `noqa`, which other tools read as well.
        used: Codes of which it has suppressed a finding.
    """

    line: int
    column: int
    end_column: int
    codes: tuple[str, ...]
    first: int
    last: int
    ours: bool = True
    used: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Suppressions:
    """All comments of one file, and what is wrong with them."""

    path: str
    comments: tuple[Suppression, ...]
    wrong: tuple[Finding, ...]

    def cover(self, finding: Finding) -> bool:
        """Tell whether a comment suppresses *finding*, and note that it was used."""
        covered = False
        for comment in self.comments:
            if finding.code in comment.codes and comment.first <= (finding.line or 0) <= comment.last:
                comment.used.add(finding.code)
                covered = True
        return covered

    def unused(self, looked_for: Collection[str]) -> Iterator[Finding]:
        """Yield a finding for each code that suppressed nothing, although its rule was *looked_for*."""
        for comment in self.comments:
            for code in comment.codes:
                if comment.ours and code in looked_for and code not in comment.used and RULES[code].static:
                    yield _finding(_UNUSED, f"{code} is suppressed here, and not found", self.path, comment)


class _Comment(NamedTuple):
    text: str
    line: int
    column: int
    first: int
    last: int
    """Lines of the statement that it belongs to."""

    @property
    def end_column(self) -> int:
        return self.column + len(self.text)


def read(path: str, source: str, *, require_reason: bool = False) -> Suppressions:
    """Return the suppressions in *source*; none if it is not Python.

    Args:
        path: Of the file, for findings about comments.
        source: Its text.
        require_reason: Comments without a reason suppress nothing, and are reported.
    """
    if "seq:" not in source.lower() and "noqa" not in source.lower():
        return Suppressions(path, (), ())
    try:
        comments = list(_comments(source))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About escapes and the like, which are not ours to tell.
            blocks = _blocks(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return Suppressions(path, (), ())  # That it does not parse is a finding of its own.
    found: list[Suppression] = []
    wrong: list[Finding] = []
    for comment in comments:
        first, last = comment.first, max(comment.last, blocks.get(comment.first, 0))
        if ours := _OURS.search(comment.text):
            _ours(ours, comment._replace(first=first, last=last), path, require_reason, found, wrong)
        if noqa := _NOQA.search(comment.text):
            codes = tuple(code.upper() for code in re.split(r"[,\s]+", noqa["codes"]) if code.upper() in RULES)
            found.append(_suppression(comment, codes, comment.first, comment.last, ours=False))
    return Suppressions(path, tuple(found), tuple(wrong))


def _ours(
    match: re.Match[str],
    comment: _Comment,
    path: str,
    require_reason: bool,
    found: list[Suppression],
    wrong: list[Finding],
) -> None:
    """Add what a comment of our own form says to *found*, and what is wrong with it to *wrong*."""
    form = _FORM.fullmatch(match["rest"].strip())
    named = [code.strip() for code in form["codes"].split(",") if code.strip()] if form else []
    complaints = [f"There is no rule {code!r}{nearest(code, RULES)}" for code in named if code not in RULES]
    if form is None:
        complaints.append("The comment is not of the form `seq: ignore[SEQ205] reason`")
    elif not named:
        complaints.append("The comment names no code")
    elif require_reason and not form["reason"].strip():
        complaints.append("The comment gives no reason, and so suppresses nothing")
    elif form["kind"] == "ignore-file":
        found.append(_suppression(comment, _existing(named), 0, _LAST_LINE))
    else:
        found.append(_suppression(comment, _existing(named), comment.first, comment.last))
    wrong += [_finding(_UNKNOWN, text, path, comment) for text in complaints]


def _finding(code: str, message: str, path: str, comment: _Comment | Suppression) -> Finding:
    line, end = comment.line, comment.end_column
    return Finding.of(code, message, path=path, line=line, column=comment.column, end_line=line, end_column=end)


def _existing(codes: Sequence[str]) -> tuple[str, ...]:
    return tuple(code for code in codes if code in RULES)


def _suppression(comment: _Comment, codes: tuple[str, ...], first: int, last: int, *, ours: bool = True) -> Suppression:
    return Suppression(comment.line, comment.column, comment.end_column, codes, first, last, ours)


def _comments(source: str) -> Iterator[_Comment]:
    """Yield each comment with the lines of its statement."""
    waiting: list[tokenize.TokenInfo] = []
    alone: list[tokenize.TokenInfo] = []
    begin = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            (waiting if begin else alone).append(token)
        elif token.type == tokenize.NEWLINE:
            for comment in (*alone, *waiting):
                yield _Comment(comment.string, comment.start[0], comment.start[1] + 1, begin, token.start[0])
            begin, waiting, alone = 0, [], []
        elif not begin and token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            begin = token.start[0]
    for comment in alone:
        yield _Comment(comment.string, comment.start[0], comment.start[1] + 1, comment.start[0], comment.start[0])


def _blocks(tree: ast.Module) -> dict[int, int]:
    """Return the last line of each function and class by the line where its statement begins."""
    blocks: dict[int, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            # A comment above or beside the first decorator is about the whole as well.
            for line in (node.lineno, *(decorator.lineno for decorator in node.decorator_list)):
                blocks[line] = max(blocks.get(line, 0), node.end_lineno or node.lineno)
    return blocks

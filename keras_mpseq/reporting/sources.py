"""Lines of source files, each file read once, whatever its state."""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from keras_mpseq.findings import Finding

_HASH_DIGITS = 16
"""64 bits of a hash: enough to tell the lines of one file apart."""


class Sources:
    """The text of files, as far as it can be read.

    Args:
        texts: Of files that are not on the disk, by path.
    """

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._texts: dict[str, str] = dict(texts or {})
        self._lines: dict[str, list[str]] = {}

    def text(self, path: str) -> str:
        """Return the text of the file, decoded as Python would; empty if it cannot be read."""
        if path not in self._texts:
            self._texts[path] = _read(path)
        return self._texts[path]

    def lines(self, path: str) -> list[str]:
        """Return the lines of the file without their ends, as Python counts them."""
        if path not in self._lines:
            # Not splitlines(), which also ends lines at form feeds and the like, where Python does not.
            self._lines[path] = [line.rstrip("\r\n") for line in io.StringIO(self.text(path), newline=None)]
        return self._lines[path]

    def line(self, path: str | None, number: int | None) -> str:
        """Return one line, from 1; empty if there is none."""
        if path is None or number is None:
            return ""
        lines = self.lines(path)
        return lines[number - 1] if 0 < number <= len(lines) else ""


def fingerprints(findings: Iterable[Finding], sources: Sources) -> list[str]:
    """Return for each finding what stays the same when lines are added above it.

    It is the hash of the code and the text of the line; the second such line of a file has another number behind it.
    """
    seen: Counter[tuple[str | None, str]] = Counter()
    result = []
    for finding in findings:
        line = " ".join(sources.line(finding.path, finding.line).split())
        # Without a line, as for what was seen at run time, the class and the message are what there is.
        text = line or f"{finding.class_name} {finding.message}"
        digest = hashlib.sha256(f"{finding.code}\0{text}".encode(errors="replace")).hexdigest()[:_HASH_DIGITS]
        seen[finding.path, digest] += 1
        result.append(f"{digest}:{seen[finding.path, digest]}")
    return result


def _read(path: str) -> str:
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError):
        return ""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return data.decode(errors="replace")

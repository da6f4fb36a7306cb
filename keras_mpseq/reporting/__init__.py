"""Findings as text, for people and for programs.

What needs rich is imported when text for people is written: programs that ask for JSON do not wait for it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from keras_mpseq.reporting import ci, machine, sarif
from keras_mpseq.reporting.results import NotFollowed, Results, by_place
from keras_mpseq.reporting.sources import Sources, fingerprints

if TYPE_CHECKING:
    from rich.text import Text

__all__ = [
    "FORMATS",
    "NotFollowed",
    "Results",
    "Sources",
    "by_place",
    "coloured",
    "fingerprints",
    "printed",
    "render",
    "to_html",
]

_PROGRAMS: dict[str, Callable[[Results], str]] = {
    "json": machine.to_json,
    "jsonl": machine.to_jsonl,
    "sarif": sarif.to_sarif,
    "github": ci.to_github,
    "gitlab": ci.to_gitlab,
    "junit": ci.to_junit,
}
FORMATS = ("full", "concise", *_PROGRAMS)
"""Names of the formats."""


def coloured() -> bool:
    """Tell whether standard output takes colours, as far as the environment lets it (https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def render(results: Results, format: str = "full", *, colour: bool = False) -> str:
    """Return *results* in a format, with a line end at the end unless it is empty.

    Args:
        results: What to tell.
        format: One of `FORMATS`, or `statistics`.
        colour: Put escape sequences of a terminal into formats for people.
    """
    if format in _PROGRAMS:
        return _PROGRAMS[format](results)
    from keras_mpseq.reporting import text

    written = {"full": text.full, "concise": text.concise, "statistics": text.statistics}[format](results)
    return printed(written, colour=colour)


def printed(written: Text, *, colour: bool) -> str:
    """Return text for people as a terminal gets it, with escape sequences where it takes colours."""
    if not colour:
        return written.plain
    from rich.console import Console

    file = io.StringIO()
    # In a notebook rich would show the text instead of writing it.
    console = Console(file=file, force_terminal=True, color_system="standard", force_jupyter=False)
    console.print(written, end="", soft_wrap=True)
    return file.getvalue()


def to_html(results: Results) -> str:
    """Return the full text as HTML for a notebook."""
    from rich.console import Console

    from keras_mpseq.reporting import text

    console = Console(file=io.StringIO(), record=True, force_jupyter=False)
    console.print(text.full(results), end="", soft_wrap=True)
    return console.export_html(inline_styles=True, code_format='<pre style="line-height: 1.2">{code}</pre>')

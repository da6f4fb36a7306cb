"""What the commands' arguments share: refusals in one sentence, lists, formats, and where output goes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from keras_mpseq.findings import SEVERITIES
from keras_mpseq.reporting import FORMATS

if TYPE_CHECKING:
    from keras_mpseq.reporting import Results

BAD_CALL = 2
"""Exit code of a mistake in the call, and of what nobody foresaw: never that of findings."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one sentence, without the usage that argparse puts above it."""
        self.exit(BAD_CALL, f"{self.prog}: {message.rstrip('.')}. See {self.prog} --help.\n")


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]
else:
    Commands = argparse._SubParsersAction


def int_between(least: int, most: int) -> Callable[[str], int]:
    """Return what parses an int from *least* to *most*."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be an int from {least} to {most}, got {text!r}")
        return value

    return parse


def seconds(text: str) -> float:
    """Parse a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which rules count, and how findings are told."""
    parser.add_argument(
        "--select",
        action="append",
        type=listed,
        metavar="RULES",
        help="look for these rules only: codes, begins of codes, names or ALL, with commas between them",
    )
    parser.add_argument(
        "--ignore", action="append", type=listed, default=[], metavar="RULES", help="do not look for these rules"
    )
    parser.add_argument("--preview", action="store_true", help="look for rules on trial as well")
    parser.add_argument(
        "--output-format",
        choices=FORMATS,
        help="how findings are told (default: full; github in GitHub Actions)",
    )
    parser.add_argument(
        "--fail-level",
        choices=SEVERITIES,
        help="the least severity for which the exit code is 1 (default: warning)",
    )
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 whatever is found")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is not read, and which settings count."""
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="do not read files and folders like this"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="read [tool.keras-mpseq] from FILE, not from a pyproject.toml above"
    )


def flat(lists: Sequence[Sequence[str]] | None) -> list[str] | None:
    """Return the items of an option that may be given several times; None if it was not given."""
    return None if lists is None else [item for items in lists for item in items]


def tell(results: Results, format: str | None) -> None:
    """Write *results* to standard output, in colour if that is a terminal."""
    from keras_mpseq.reporting import coloured, render

    default = "github" if os.environ.get("GITHUB_ACTIONS") == "true" else "full"
    write(render(results, format or default, colour=coloured()))


def write(text: str, file: TextIO | None = None) -> None:
    """Write *text* to a stream, None being standard output; what its encoding does not have, as escapes."""
    file = file or sys.stdout
    encoding = file.encoding or "utf-8"
    file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    file.flush()


def listed(text: str) -> list[str]:
    """Parse items with commas between them."""
    return [part.strip() for part in text.split(",") if part.strip()]

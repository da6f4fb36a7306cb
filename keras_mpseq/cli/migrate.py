"""`keras-mpseq migrate`: change what can be changed on the way to SafeSequence, and list what is left to do by hand."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_mpseq import __version__
from keras_mpseq.cli.arguments import Commands, add_reading, flat, listed, write
from keras_mpseq.cli.lint import gathered, needing_libcst
from keras_mpseq.findings import SEVERITIES

if TYPE_CHECKING:
    from rich.text import Text

    from keras_mpseq.lint.migration import Left, Migrated

SCHEMA_VERSION = 1
"""Grows when a field changes its meaning or goes away, not when one is added."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    what = "Change Keras 2 data loading to Keras 3 and SafeSequence, and tell what is left to do by hand."
    codes = (
        "The exit code is 0 if nothing is left to do; 1 if something is, or, with --diff, if something would be "
        "changed; 2 if the call is a mistake."
    )
    parser = commands.add_parser("migrate", help=what, description=f"{what} {codes}", allow_abbrev=False)
    parser.add_argument("paths", nargs="*", default=["."], metavar="PATH", help="files and folders (default: this one)")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="change nothing: the changes go to standard output, what would be left to standard error",
    )
    parser.add_argument("--json", action="store_true", help="tell all of it as JSON")
    parser.add_argument(
        "--ignore",
        action="append",
        type=listed,
        default=[],
        metavar="RULES",
        help="neither change nor tell what these rules find",
    )
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 also if something is left")
    add_reading(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Migrate, and return the exit code.

    Raises:
        MpseqError: A path, an option or a setting cannot be meant, or a file cannot be written.
    """
    from keras_mpseq.lint import config

    overrides = config.Overrides(ignore=flat(options.ignore) or [], exclude=options.exclude)
    found, settings = gathered(options.paths, options.config, overrides)
    with needing_libcst():
        from keras_mpseq.lint.migration import migrate_paths
    migrated = migrate_paths(found, write=not options.diff, settings=settings)
    if options.json:
        write(_as_json(migrated, written=not options.diff))
    elif options.diff:
        write("".join(one.diff for one in migrated))
        _tell(migrated, written=False)
    else:
        _tell(migrated, written=True)
    changes = options.diff and any(one.applied for one in migrated)
    worst = SEVERITIES[: SEVERITIES.index(settings.fail_level) + 1]
    left = any(item.severity in worst for one in migrated for item in one.left)
    return int((changes or left) and not options.exit_zero)


def _as_json(migrated: Sequence[Migrated], *, written: bool) -> str:
    document = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "keras-mpseq", "version": __version__},
        "written": written,
        "files": [dataclasses.asdict(one) for one in migrated],
        "summary": {
            "changed_files": sum(bool(one.applied) for one in migrated),
            "left": sum(len(one.left) for one in migrated),
        },
    }
    return json.dumps(document, indent=2) + "\n"


def _tell(migrated: Sequence[Migrated], *, written: bool) -> None:
    """Write the report for people: to standard output, or behind a diff to standard error."""
    from keras_mpseq.reporting import coloured, printed

    file = sys.stdout if written else sys.stderr
    write(printed(_report(migrated, written=written), colour=coloured() and file.isatty()), file)


def _report(migrated: Sequence[Migrated], *, written: bool) -> Text:
    """Return what was done and what is left, file by file."""
    from rich.text import Text

    from keras_mpseq.reporting.text import shown

    text = Text()
    for one in migrated:
        text.append(f"{one.path}\n", "bold")
        for sentence in one.applied:
            text.append("  done  " if written else "  plan  ", "green").append(f"{sentence}.\n")
        for left in one.left:
            text.append_text(_by_hand(left))
        if written and one.diff:
            text.append("\n").append_text(_coloured(one.diff))
        text.append("\n")
    return shown(text.append_text(_sums(migrated, written=written)))


def _by_hand(left: Left) -> Text:
    from rich.text import Text

    from keras_mpseq.reporting.text import STYLES

    rule = f"{left.code} {left.name}: " if left.code else ""
    see = f"; see `keras-mpseq explain {left.code}`" if left.code else ""
    text = Text.assemble(("  left  ", STYLES[left.severity]), (f"{left.path}:{left.line}:{left.column}", "bold"))
    return text.append(f" {rule}{left.message}.\n        To do: {left.remedy}{see}.\n")


def _coloured(diff: str) -> Text:
    from rich.text import Text

    styles = {"+": "green", "-": "red", "@": "cyan"}
    text = Text()
    for line in diff.splitlines(keepends=True):
        text.append(f"    {line}", styles.get(line[:1], ""))
    return text


def _sums(migrated: Sequence[Migrated], *, written: bool) -> Text:
    from rich.text import Text

    from keras_mpseq.reporting.results import counted

    changed, left = sum(bool(one.applied) for one in migrated), sum(len(one.left) for one in migrated)
    if not changed and not left:
        return Text("Nothing to migrate.\n", "bold")
    verb = "was changed" if written and changed == 1 else "were changed" if written else "would be changed"
    rest = f"{counted(left, 'thing')} {'is' if left == 1 else 'are'} left to do by hand" if left else "nothing is left"
    lines = "" if written or not left else "; lines are those after the changes"
    return Text(f"{counted(changed, 'file')} {verb}, {rest}{lines}.\n", "bold")
